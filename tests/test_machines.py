"""A machine of the tests sees itself alone."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bench.hosts import network
from tests.machines import machine, why_not


@pytest.mark.processes
def test_a_machine_sees_no_process_but_its_own_so_what_is_stopped_there_is_its_own(tmp_path: Path):
    reason = why_not()
    if reason:
        pytest.skip(f"needs machines of its own: {reason}")
    other = tmp_path / "raylet"
    shutil.copy("/bin/sleep", other)
    with subprocess.Popen([other, "60"]) as decoy, network(1) as (host,), machine(host) as made:
        assert "raylet" not in made.shell("cat /proc/[0-9]*/comm")
        assert made.shell("cat /proc/1/comm").endswith("bash\n")
        decoy.kill()
