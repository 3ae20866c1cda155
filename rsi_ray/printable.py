"""Text from outside as a terminal may show it."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text, with what would steer the terminal spelled out."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
