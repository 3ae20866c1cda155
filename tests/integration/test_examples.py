"""The examples, as people start them: in processes of their own; all but the first join the tests' Ray."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from rsi_ray.records import Verdict
from tests.integration.test_command_line import rsi_ray

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[2]
MACRO = ROOT.parent / "shared" / "data" / "nas_bench_macro.parquet"


def example(name: str, folder: Path, *arguments: object) -> str:
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def table(folder: Path) -> pd.DataFrame:
    (path,) = folder.glob("rsi_results/*/results.parquet")
    return pd.read_parquet(path)


def test_a_model_of_ones_own_is_priced_by_measuring(tmp_path: Path):
    example("own_model.py", tmp_path)
    found = table(tmp_path)
    measured = found[found["score"].notna()]
    assert len(measured) == 8
    assert measured["params"].max() <= 20e3
    # 64 pixels, `depth` layers of `width`, ten classes
    width, depth = measured["config/width"], measured["config/depth"]
    exact = 64 * width + width + (depth - 1) * (width * width + width) + 10 * width + 10
    assert (measured["params"] == exact).all()


def test_digits_leave_a_front_of_score_and_parameters(tmp_path: Path, on_shared_ray: None):
    assert "score" in example("digits_pareto.py", tmp_path)
    found = table(tmp_path)
    assert found["pareto"].sum() >= 1
    assert found[found["verdict"] == Verdict.MEASURED]["score"].max() > 0.8
    assert found["params"][found["score"].notna()].max() <= 100e3


@pytest.mark.skipif(not MACRO.exists(), reason="needs the published tables in shared/data")
def test_a_benchmark_table_is_searched_under_its_ceiling(tmp_path: Path, on_shared_ray: None):
    example("benchmark_table.py", tmp_path, MACRO)
    found = table(tmp_path)
    measured = found[found["verdict"] == Verdict.MEASURED]
    assert len(measured) == 60
    assert measured["params"].max() <= 1_634_378
    assert measured["score"].max() > 0.92


@pytest.mark.parametrize("name", ["digits", "breast_cancer"])
def test_an_example_of_the_package_runs_by_its_name(tmp_path: Path, on_shared_ray: None, name: str):
    done = rsi_ray(tmp_path, "run", "--example", name, "--trials", 5, seconds=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert table(tmp_path)["score"].max() > 0.5
