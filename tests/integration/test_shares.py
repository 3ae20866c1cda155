"""Shares of GPUs on a real Ray; nothing of it needs a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
GB, MB = 10**9, 10**6


def test_each_candidate_asks_for_its_own_share_and_those_that_ask_alike_use_the_same_workers(tmp_path: Path):
    program = [sys.executable, "-m", "tests.integration.shares", str(tmp_path), str(GB), str(MB)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=250, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    leases = json.loads(done.stdout.splitlines()[-1])
    shares = {claimed // GB: gpu_ms / 60_000 for claimed, gpu_ms, _ in leases[str(GB)]}
    assert shares == {1: 1 / 4, 2: 3 / 8, 3: 1 / 2, 4: 3 / 4}
    alike = leases[str(MB)]
    assert [gpu_ms for _, gpu_ms, _ in alike] == [60_000 // 8] * 4
    # two at a time, and none of them is started for one trial alone
    assert len({holder for _, _, holder in alike}) <= 2
