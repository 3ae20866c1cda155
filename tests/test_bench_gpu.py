"""`bench.gpu` without a GPU: what it says, and that its code runs at a size of seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench import gpu
from bench.gpu import SIZES, Size
from rsi_ray.training import Training

TINY = Size(name="tiny", depth=1, width=16, head_size=8, batch_size=2, length=8, classes=16)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here: the bench would measure it")
def test_where_no_gpu_is_the_bench_says_so_and_is_done():
    program = [sys.executable, "-m", "bench.gpu"]
    done = subprocess.run(program, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert done.stdout.startswith("no GPU")
    assert json.loads(done.stdout.splitlines()[-1]) == {"gpu": None, "rows": []}


@pytest.mark.parametrize(("size", "params"), list(zip(SIZES, (10**7, 10**8, 10**9), strict=True)))
def test_its_candidates_have_about_as_many_parameters_as_they_are_named_for(size, params):
    claim = size.job(Training()).price(size.config)
    assert claim.params == pytest.approx(params, rel=0.1)
    assert claim.memory_bytes < 60 * 10**9


def test_a_row_tells_speed_memory_and_share(monkeypatch):
    asked = []
    monkeypatch.setattr(gpu, "within_claim", lambda size, steps, choice: asked.append(choice) or found(size))
    peak = gpu.peak_flops(torch.device("cpu"), rounds=1, square=64)
    row = gpu.speed(TINY, peak, steps=2)
    assert asked == ["never", "always"]
    assert row["tokens_per_s"] > 0
    assert row["share_of_peak"] > 0
    assert row["claimed_bytes"] == TINY.job(Training()).price(TINY.config).memory_bytes


def found(size):
    return {"within_claim": True, **gpu.trained(size, 2, compile_="never")}


def test_what_goes_over_its_claim_is_told_and_measured_without_a_limit(monkeypatch):
    asked = []

    def trained(size, steps, *, compile_, limited=True):
        asked.append(limited)
        if limited:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return {"tokens_per_s": 1}

    monkeypatch.setattr(gpu, "trained", trained)
    assert gpu.within_claim(TINY, 2, "never") == {"within_claim": False, "tokens_per_s": 1}
    assert asked == [True, False]
