"""What is written where a storage may be away for a while: a share's server, a disk that is full."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

# a storage that is away for longer is a fault
AWAY_SECONDS = 300.0
# between two tries: twice as long each time
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0

Result = TypeVar("Result")

log = logging.getLogger(__name__)


def while_away(
    act: Callable[[], Result],
    what: str,
    *,
    faults: tuple[type[Exception], ...] = (OSError,),
    seconds: float = AWAY_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Result:
    """Do what may be done again where it fails in the middle, until the storage lets it be done.

    Args:
        act: reads or writes.
        what: is read or written, for the log.
        faults: by which it fails while the storage is away.
        seconds: after which it isn't waited for any more.
        clock: seconds, monotonic.
        sleep: waits so many seconds.

    Raises:
        OSError: or another of the faults: the storage is away for longer.
    """
    since, told, pause = clock(), False, FIRST_PAUSE
    while True:
        try:
            found = act()
            break
        except faults as error:
            left = since + seconds - clock()
            if left <= 0:
                raise
            if not told:
                log.warning("%s: its storage is away, waiting for it: %s", what, error)
            told = True
        sleep(min(pause, left))
        pause = min(2 * pause, LONGEST_PAUSE)
    if told:
        log.warning("%s: its storage is back after %.0f s", what, clock() - since)
    return found
