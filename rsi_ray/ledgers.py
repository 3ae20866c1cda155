"""Where ledgers lie."""

from __future__ import annotations

from pathlib import Path

from safety.database import parsed_url
from safety.errors import LedgerUrlError

LEDGER_FILE = "ledger.db"
# folder of all runs, if nobody says otherwise
RUNS = "rsi_results"


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite URL; None for any other database, and for one in memory."""
    try:
        parsed = parsed_url(url)
    except LedgerUrlError:
        return None
    plain = parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:")
    return Path(str(parsed.database)) if plain else None


def from_anywhere(url: str) -> str:
    """A ledger's URL that means the same in every folder."""
    path = sqlite_path(url)
    return url if path is None or path.is_absolute() else f"sqlite:///{path.absolute()}"
