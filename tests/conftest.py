"""The command in the test's own process: another one takes seconds to start."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from rsi_ray.cli import main

Command = Callable[..., tuple[int, str, str]]
Printed = Callable[..., tuple[int, str]]

# a busy machine is no failure
settings.register_profile("patient", deadline=None)
# the same few examples each time, for `make quick` and `make coverage`; `make test` looks for new ones
settings.register_profile("quick", deadline=None, max_examples=20, derandomize=True, database=None)
settings.load_profile("patient")


def pytest_collection_finish() -> None:
    """Have the collector pass over what was imported, which lasts, and come less often."""
    gc.freeze()
    gc.set_threshold(50_000)


@pytest.fixture
def command_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Exit code, output and errors of the command with these arguments, in the test's folder."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["rsi-ray", *arguments])
        monkeypatch.setattr(sys, "path", [*sys.path])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture
def command(tmp_path: Path, command_here: Command) -> Printed:
    """Exit code, and all that is printed, of a command on the ledger in the test's folder."""

    def run(*arguments: str) -> tuple[int, str]:
        code, out, err = command_here(*arguments, "--storage", str(tmp_path))
        return code, out + err

    return run
