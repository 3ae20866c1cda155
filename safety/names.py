"""What a sweep or a lineage may be called: what is a folder on every system and looks like no other name."""

from __future__ import annotations

import re

# of what people name, and of what has the time of a run added
MOST, MOST_OF_A_RUN = 63, 127
# folders that Windows takes for devices
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?\Z", re.IGNORECASE)


def plain_name(name: str, most: int = MOST) -> str:
    """The name, where it is plain.

    Args:
        name: as it was given.
        most: characters that it may have.

    Raises:
        ValueError: it isn't plain; what was expected.
    """
    if not re.fullmatch(rf"[A-Za-z0-9_][A-Za-z0-9._-]{{0,{most - 1}}}", name) or _DEVICES.match(name):
        raise ValueError(
            f"expected 1 to {most} letters, digits, '_', '.' or '-' of ASCII, beginning with none of the "
            "last two, and no device of Windows"
        )
    return name
