"""Tables and paragraphs of a page that is built as a tree: whatever text they are given stays text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element, SubElement

Row = Mapping[str, Any]
# heading, and what a row has to say under it: an int stands right, a share gets a bar
Column = tuple[str, Callable[[Row], Any]]


class Share(float):
    """A part of a ceiling, from 0 to 1 or over."""


class Moment(str):
    """A time in ISO 8601, which is shown to the second."""

    __slots__ = ()


def add_text(parent: Element, text: str) -> None:
    """A paragraph of plain text."""
    SubElement(parent, "p").text = text


def add_table(
    parent: Element, caption: str, rows: Iterable[Row], columns: Sequence[Column], none: str
) -> None:
    """A table with a caption, or a sentence where it would have no row."""
    lines = [[read(row) for _, read in columns] for row in rows]
    if not lines:
        return add_text(parent, none)
    table = SubElement(SubElement(parent, "div", {"class": "wide", "tabindex": "0"}), "table")
    SubElement(table, "caption").text = caption
    heads = SubElement(SubElement(table, "thead"), "tr")
    numeric = [any(isinstance(value, int | float) for value in column) for column in zip(*lines, strict=True)]
    for (heading, _), is_numeric in zip(columns, numeric, strict=True):
        SubElement(heads, "th", {"scope": "col", **_aligned(is_numeric)}).text = heading
    body = SubElement(table, "tbody")
    for values in lines:
        line = SubElement(body, "tr")
        for value, is_numeric in zip(values, numeric, strict=True):
            _cell(SubElement(line, "td", _aligned(is_numeric)), value)
    return None


def _aligned(is_numeric: bool) -> dict[str, str]:
    return {"class": "number"} if is_numeric else {}


def _cell(cell: Element, value: Any) -> None:
    if isinstance(value, Share):
        cell.text = f"{value:.1%} " if value >= 0.001 or not value else f"{value:.1e} "
        bar = SubElement(cell, "span", {"class": "bar", "aria-hidden": "true"})
        full = "full" if value >= 0.9 else "part"
        SubElement(bar, "span", {"class": full, "style": f"width:{min(float(value), 1):.1%}"}).text = ""
    elif isinstance(value, Moment):
        SubElement(cell, "time", {"datetime": value}).text = f"{value[:19].replace('T', ' ')} UTC"
    elif isinstance(value, int | float):
        cell.text = f"{value:,}"
    else:
        cell.text = "" if value is None else str(value)
