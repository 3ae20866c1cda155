"""Text from outside as a terminal may show it."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text, with what would steer the terminal spelled out."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def one_line(error: BaseException) -> str:
    """The first line of what went wrong, or its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
