"""What people see of the loop: a line for what happens, and the generations at the end."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from rsi_ray.approvers import Nobody, TerminalApprover, local_signer
from rsi_ray.loop import Event, Standing, Verified
from rsi_ray.loop_view import BAR, lines_of, showing, table_of_generations, telling, whoever_is_here
from safety import Allow, Deny

BASE = Standing(generation=0, artifact="a", score=0.5, config={"depth": 1})
BETTER = Standing(generation=1, artifact="b", score=0.6, config={"depth": 2})


def verified(standing=BETTER, **changes):
    given = {
        "standing": standing, "reported": 0.6, "domains": {}, "verdict": Allow(), "is_beyond_noise": True,
        "noise": "",
    }  # fmt: skip
    return Verified(**{**given, **changes})


def text(kind, **changes):
    event = Event(kind=kind, champion=changes.pop("champion", BASE), **changes)
    return [line for line, _ in lines_of(event)]


def console(width=100, **more):
    return Console(file=io.StringIO(), width=width, **more)


@pytest.mark.parametrize(
    ("kind", "changes", "expected"),
    [
        ("searching", {}, "=== Generation 1 ==="),
        ("searching", {}, "champion: generation 0, score 0.5000, depth1"),
        ("searched", {"text": "3 candidates"}, "3 candidates trained to the end"),
        ("verified", {"verified": verified()}, "evaluated: 0.6000 (+20.0%; "),
        ("verified", {"verified": verified(discrepancy="score: reported 1")}, "incident: score: reported 1"),
        ("refused", {"verified": verified(verdict=Deny("r", "over")), "text": "over"}, "evaluator: over"),
        ("asked", {"verified": verified(), "text": "too fast"}, "held for people: too fast"),
        ("promoted", {"verified": verified()}, "Generation 1 is the champion: 0.6000 (+20.0%)"),
        ("ended", {"text": "enough"}, "The loop ends at generation 0: enough"),
    ],
)
def test_each_thing_that_happens_has_its_line(kind, changes, expected):
    assert expected in "\n".join(text(kind, **changes))


def test_what_is_asked_for_without_a_hold_is_shown_by_whoever_asks():
    assert text("asked", verified=verified()) == []


def test_an_improvement_over_nothing_is_undefined():
    zero = Standing(generation=0, artifact="a", score=0.0, config={})
    assert "(undefined)" in text("promoted", champion=zero, verified=verified())[0]


def test_the_generations_have_their_gains_and_bars_that_end_at_the_best():
    shown = console()
    shown.print(table_of_generations([BASE, BETTER], [1000, 2345]))
    _, base, better = shown.file.getvalue().splitlines()
    assert base.split()[:3] == ["0", "0.5000", "1,000"]
    assert better.split()[:4] == ["1", "0.6000", "+20.0%", "2,345"]
    assert (base.count("█"), better.count("█")) == (round(BAR * 0.5 / 0.6), BAR)


@pytest.mark.parametrize("score", [0.0, -0.5, float("nan")])
def test_a_score_that_no_bar_can_show_has_none(score):
    standing = Standing(generation=0, artifact="a", score=score, config={})
    shown = console()
    shown.print(table_of_generations([standing], [1]))
    assert "█" not in shown.file.getvalue()


def test_nothing_in_a_line_steers_the_terminal():
    shown = console(force_terminal=True)
    showing(shown)("a\x1b[2Jb [red]c")
    assert "\x1b[2J" not in shown.file.getvalue()
    assert "[red]c" in shown.file.getvalue()


def test_a_reason_in_an_event_steers_no_terminal_either():
    shown = console(force_terminal=True)
    telling(shown)(Event(kind="ended", champion=BASE, text="rejected by ann: \x1b[2Jboo"))
    assert "\x1b[2J" not in shown.file.getvalue()


@pytest.mark.parametrize(
    ("reads", "prints", "kind"),
    [(True, True, TerminalApprover), (False, True, Nobody), (True, False, Nobody)],
)
def test_a_person_is_asked_only_where_one_can_read_and_type(tmp_path, monkeypatch, reads, prints, kind):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setattr("sys.stdin.isatty", lambda: reads, raising=False)
    signer = local_signer(tmp_path, "ann")
    assert type(whoever_is_here(signer, console(force_terminal=prints))) is kind
