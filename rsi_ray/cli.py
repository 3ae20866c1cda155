"""The command line: which commands are loaded, one line for what went wrong, the exit code."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

import typer

from rsi_ray import oversight
from rsi_ray.cluster_token import show_token
from rsi_ray.errors import UsageError
from rsi_ray.printable import printable
from safety import DocumentError, SafetyError
from safety.errors import LedgerUrlError

USAGE, FAILURE, INTERRUPTED = 2, 1, 130


def app() -> typer.Typer:
    """The commands: those that train are loaded where one of them is named; a kill must not wait."""
    home = oversight.HOMES.get(sys.argv[1]) if sys.argv[1:2] else None
    if home:
        import_module(home)
        return oversight.app
    found: typer.Typer = import_module("rsi_ray.commands").app
    return found


def main() -> None:
    """Entry point: one line for what went wrong, 2 for usage and 1 for failure; a loop that waits gives 3."""
    if "ray" not in sys.modules:  # it has looked for its mode by then
        show_token(os.environ, Path(os.path.expanduser("~")))
    try:
        app()()
    except (DocumentError, LedgerUrlError, UsageError) as error:
        print(f"rsi-ray: {printable(str(error))}", file=sys.stderr)
        sys.exit(USAGE)
    except (SafetyError, OSError) as error:
        print(f"rsi-ray: {printable(str(error))}", file=sys.stderr)
        sys.exit(FAILURE)
    except KeyboardInterrupt:
        print("rsi-ray: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
