"""The last lines of this process's log, for a shutdown to save."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

# of the packages whose lines are kept
LOGGERS = ("rsi_ray", "safety", "search_spaces")
MOST_LINES = 2_000


class LogTail(logging.Handler):
    """Keeps the last lines, and prints nothing."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._lines: deque[str] = deque(maxlen=MOST_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self._lines.append(self.format(record))

    def lines(self) -> list[str]:
        """The last ones, the oldest first."""
        return list(self._lines)


@contextmanager
def log_tail() -> Iterator[LogTail]:
    """Keep what our packages log meanwhile."""
    tail = LogTail()
    for name in LOGGERS:
        logging.getLogger(name).addHandler(tail)
    try:
        yield tail
    finally:
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(tail)
