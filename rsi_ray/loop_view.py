"""What people see of the recursive loop: a line as each thing happens, and the generations at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rsi_ray.approvers import Approver, Nobody, Signer, TerminalApprover
from rsi_ray.loop import Event, Standing
from rsi_ray.printable import printable
from rsi_ray.spec_text import spec_text
from safety import improvement

BAR = 20


def telling(console: Console) -> Callable[[Event], None]:
    """Prints the events of a loop."""

    def tell(event: Event) -> None:
        for line, style in lines_of(event):
            console.print(Text(printable(line), style=style), soft_wrap=True)

    return tell


def whoever_is_here(signer: Signer, console: Console) -> Approver:
    """A person at this terminal; nobody where there is none."""
    return at_terminal(signer, console) if sys.stdin.isatty() and console.is_terminal else Nobody()


def at_terminal(signer: Signer, console: Console) -> TerminalApprover:
    """A person who is shown a proposal on this console, and answers on it."""
    return TerminalApprover(signer=signer, show=showing(console), ask=partial(console.input, markup=False))


def showing(console: Console) -> Callable[[str], None]:
    """Prints a line as it is, with nothing in it that steers the terminal."""

    def show(line: str) -> None:
        console.print(Text(printable(line)), soft_wrap=True)

    return show


def lines_of(event: Event) -> list[tuple[str, str]]:
    """Lines of an event, each with its style."""
    champion, verified = event.champion, event.verified
    if champion is None:
        head = [("", ""), ("=== Generation 0 ===", "bold")] if event.kind == "base" else []
        return [*head, *((line, "") for line in event.text.splitlines())]
    following = champion.generation + 1
    if event.kind == "searching":
        title = f"=== Generation {following} ==="
        text = f"champion: generation {champion.generation}, score {champion.score:.4f}"
        return [("", ""), (title, "bold"), (f"{text}, {spec_text(champion.config)}", "")]
    if event.kind == "searched":
        return [(f"{event.text} trained to the end; the best is evaluated by itself now", "")]
    if event.kind == "refused":
        return [(f"refused by the evaluator: {event.text}", "yellow")]
    if event.kind == "asked":
        return [(f"held for people: {event.text}", "yellow")] if event.text else []
    if event.kind == "ended":
        return [(f"The loop ends at generation {champion.generation}: {event.text}", "bold")]
    if verified is None:
        return []
    gain = improvement(old=champion.score, new=verified.standing.score)
    rate = "undefined" if gain is None else f"{gain:+.1%}"
    if event.kind == "promoted":
        return [(f"Generation {following} is the champion: {verified.standing.score:.4f} ({rate})", "green")]
    text = f"evaluated: {verified.standing.score:.4f} ({rate}; {verified.noise})"
    lines = [(text, ""), (f"  {spec_text(verified.standing.config)}", "")]
    return lines + ([(f"incident: {verified.discrepancy}", "red")] if verified.discrepancy else [])


def table_of_generations(champions: Sequence[Standing], params: Sequence[int]) -> Table:
    """The champions in order: score, gain, parameters, architecture, and a bar for the eye."""
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for name in ("generation", "score", "gain", "params"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("spec", ratio=1, overflow="ellipsis", no_wrap=True)
    best = max((champion.score for champion in champions), default=0.0)
    for place, (champion, count) in enumerate(zip(champions, params, strict=True)):
        gain = improvement(old=champions[place - 1].score, new=champion.score) if place else None
        rate = "" if gain is None else f"{gain:+.1%}"
        bar = "█" * round(BAR * champion.score / best) if best > 0 and champion.score > 0 else ""
        cells = [str(champion.generation), f"{champion.score:.4f}", rate, f"{count:,}", bar]
        table.add_row(*cells, Text(spec_text(champion.config)))
    return table
