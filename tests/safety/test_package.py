import subprocess
import sys
from pathlib import Path

import pytest

import safety
from safety import system_clock


def test_the_safety_that_is_imported_is_ours():
    # a scanner of the same top-level name is on PyPI
    assert Path(safety.__file__).resolve() == Path(__file__).resolve().parents[2] / "safety" / "__init__.py"
    assert {"Governor", "Ledger", "Limits", "LeaseKeeper"} <= set(safety.__all__)


def test_every_public_name_is_there():
    assert all(hasattr(safety, name) for name in safety.__all__)
    assert len(safety.__all__) == len(set(safety.__all__))


@pytest.mark.processes
def test_importing_safety_loads_neither_torch_nor_ray_nor_the_other_packages():
    strangers = {"torch", "ray", "optuna", "search_spaces", "rsi_ray"}
    program = f"import safety, sys; print({{name.split('.')[0] for name in sys.modules}} & {strangers})"
    root = Path(safety.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout.strip() == "set()"


def test_the_systems_clocks_go_forward_and_name_their_boot():
    clock = system_clock()
    first = clock.monotonic_ms()
    assert type(first) is int
    assert clock.monotonic_ms() >= first
    assert clock.wall_ms() > 1_600_000_000_000
    assert clock.boot == system_clock().boot


def test_a_host_without_a_boot_id_takes_the_time_it_was_started(monkeypatch, tmp_path):
    monkeypatch.setattr("safety.clock._BOOT_ID", tmp_path / "none")
    assert int(system_clock().boot) > 0
