"""A published benchmark table as a space: the search is real and governed, a training is one look-up.

`python examples/benchmark_table.py nas_bench_macro.parquet`
"""

import sys
from pathlib import Path

import rsi_ray
from search_spaces.tabular import load_table

LIMITS = {"bounds": {"max_params": 1_634_378, "max_flops": 1e9, "max_memory": 10e9}}

if __name__ == "__main__":
    table = load_table(Path(sys.argv[1]))
    result = rsi_ray.Sweep(table, None, LIMITS, sampler="evolution", trials=60).run()
    print(result.table["verdict"].value_counts())
    print(result.table.nlargest(3, "score")[["number", "score", "params"]])
