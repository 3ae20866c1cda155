"""Which champion is safe, which follow one another, and in which order a shutdown's steps are taken."""

from dataclasses import replace
from itertools import pairwise

import pytest

from safety import Promotion
from safety.emergency import STEPS, Done, Incident, last_safe, missing, pending
from safety.succession import BASE, Rollback, line


def promotions(*gains):
    """Champions that gained so much, one after another; scores are decimals with an exact difference."""
    scores = [0.0]
    for gain in gains:
        scores.append(round(scores[-1] + gain, 6))
    return [
        Promotion(lineage="f", key=str(number), at_ms=0, old=old, new=new)
        for number, (old, new) in enumerate(pairwise(scores))
    ]


@pytest.mark.parametrize(
    ("gains", "safe"),
    [
        ((), 0),
        ((0.1,), 0),
        ((0.1, 0.1), 1),
        # the second began the acceleration that the third would have gone on with
        ((0.01, 0.02), 1),
        # one that the limits found later has all of its champions but the first taken back
        ((0.01, 0.02, 0.04, 0.08), 1),
        ((0.05, 0.01, 0.02), 2),
        # exactly half again is none
        ((0.02, 0.03, 0.01), 2),
        ((0.2, -0.1, 0.1, 0.3), 3),
    ],
)
def test_the_last_known_safe_champion_is_before_the_acceleration_and_never_the_present_one(gains, safe):
    assert last_safe(promotions(*gains), 1.5) == safe


@pytest.mark.parametrize(
    ("rollbacks", "expected"),
    [
        ([], [1, 2, 3, 4]),
        ([(2, 4)], [1, 2]),
        ([(1, 3)], [1, 4]),
        ([(BASE, 2)], [3, 4]),
        ([(BASE, 4)], []),
        ([(1, 2), (1, 3), (BASE, 4)], []),
        ([(2, 3), (1, 3)], [1, 4]),
    ],
)
def test_after_a_rollback_the_next_champion_follows_the_one_that_it_went_back_to(rollbacks, expected):
    told = [Rollback(to=to, after=after) for to, after in rollbacks]
    assert line([1, 2, 3, 4], told) == expected


def incident(*steps):
    done = tuple(Done(step=step, at_ms=0, by="x", told="") for step in steps)
    return Incident(
        number=1, digest="d", lineage="f", sweep="s", rule="runaway", reason="why", by="x", safe="", done=done
    )


def test_a_shutdown_has_a_name_among_those_of_all_ledgers():
    assert replace(incident("frozen"), digest="0123456789abcdef").name == "f-0123456789ab"


def test_what_is_left_of_a_shutdown_is_told_in_its_order():
    assert pending(incident("frozen")) == STEPS[1:]
    assert pending(incident("frozen", "alerted", "revoked")) == (
        "saved", "reverted", "acknowledged", "released",
    )  # fmt: skip
    assert pending(incident(*STEPS)) == ()


def test_nothing_is_reverted_unsaved_nor_released_unseen_and_an_alert_waits_for_nothing():
    assert missing(incident("frozen"), "alerted") == missing(incident("frozen"), "acknowledged") == ()
    assert missing(incident("frozen", "revoked"), "reverted") == ("saved",)
    assert missing(incident("frozen", "revoked", "saved", "reverted"), "released") == ("acknowledged",)
    # a sink that can't be reached keeps no people from it
    assert missing(incident("frozen", "revoked", "saved", "reverted", "acknowledged"), "released") == ()
