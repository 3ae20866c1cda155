"""The ways in which people throw the kill switch of a ledger."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bench.hosts import ROOT
from safety import Ledger
from safety.kill_file import NAME

# throws the switch of a ledger's file and doesn't wait; gives what has to be done when the workers are dead
Way = Callable[[Path], Callable[[], object]]
REASON, BY = "a bench says so", "a bench"


def by_command(ledger: Path) -> Callable[[], object]:
    """`rsi-ray kill`, a process that has yet to start."""
    words = ["kill", "--ledger", f"sqlite:///{ledger}", "--reason", REASON, "--by", BY]
    command = [sys.executable, "-c", "from rsi_ray.cli import main; main()", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT)
    return process.wait


def by_file(ledger: Path) -> Callable[[], object]:
    """A file beside the ledger."""
    file = ledger.parent / NAME
    file.touch()
    return file.unlink


def by_call(ledger: Path) -> Callable[[], object]:
    """`Ledger.kill`, in this process."""
    opened = Ledger(f"sqlite:///{ledger}")
    opened.kill(REASON, BY)
    return opened.close


def lift(ledger: Path) -> None:
    """Let sweeps begin again."""
    opened = Ledger(f"sqlite:///{ledger}")
    opened.unkill(REASON, BY)
    opened.close()


WAYS: dict[str, Way] = {"rsi-ray kill": by_command, f"the file {NAME}": by_file, "Ledger.kill": by_call}
