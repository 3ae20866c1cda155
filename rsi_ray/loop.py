"""The recursive loop: search, verify, ask people, replace the champion, repeat; its ports are arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from safety import Allow, Deny, Hold, Verdict
from safety.improvement import GENERATIONS, improvement


class Why(StrEnum):
    """Why a loop ended."""

    COMPLETE = "complete"
    CONVERGED = "converged"
    NOTHING = "nothing found"
    REJECTED = "rejected"
    WAITS = "waits for approval"
    HELD = "held"
    SHUT_DOWN = "shut down"
    STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How a loop ended.

    Attributes:
        why: its kind.
        text: the same for people, with the numbers.
    """

    why: Why
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """A champion as the loop needs it.

    Attributes:
        generation: its number; 0 for the base model.
        artifact: SHA-256 of its file.
        score: the independent evaluator's.
        config: its parameters.
    """

    generation: int
    artifact: str
    score: float
    config: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A candidate that the search has trained to the end.

    Attributes:
        number: of its trial.
        config: its parameters.
        reported: score that its worker reported.
        record: all that the study knows of it.
    """

    number: int
    config: Mapping[str, Any]
    reported: float
    record: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Searched:
    """What the search of a generation came to.

    Attributes:
        best_first: its candidates, the best reported score first.
        stopped: why it was stopped before its end; "" where it wasn't.
    """

    best_first: Sequence[Found]
    stopped: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verified:
    """What the independent evaluator says of a candidate.

    Attributes:
        standing: the candidate as a champion; staged, not promoted.
        reported: score that its worker reported.
        domains: its score per domain.
        verdict: of the capability ceilings.
        is_beyond_noise: whether it is better than the champion beyond what other seeds explain.
        noise: the difference from the champion, and what noise leaves of it, for people.
        discrepancy: how the reported score differs from this one beyond noise; "" where it doesn't.
    """

    standing: Standing
    reported: float
    domains: Mapping[str, float]
    verdict: Verdict
    is_beyond_noise: bool
    noise: str
    discrepancy: str = ""


class Answer(StrEnum):
    """What people say to a request; no answer is no."""

    APPROVED = "approved"
    REJECTED = "rejected"
    NONE = "none"


class Ports(Protocol):
    """What the loop asks of the world; every method may be asked again after a crash and answers the same."""

    def champion(self) -> Standing:
        """The champion now: the base model where nothing was promoted."""
        ...

    def next_generation(self) -> int:
        """Number of the generation that would come next; of what was rolled back none is used again."""
        ...

    def search(self, champion: Standing) -> Searched:
        """Train the candidates of the generation that would follow a champion."""
        ...

    def verify(self, found: Found) -> Verified:
        """Evaluate a candidate to follow the champion independently, and stage it."""
        ...

    def judge(self, champion: Standing, wanted: Standing) -> Verdict:
        """The ledger's verdict on an improvement; what is a runaway has shut its lineage down."""
        ...

    def ask(self, wanted: Verified, held: Hold | None) -> tuple[Answer, str]:
        """Have people decide of a promotion, and of what holds it; the answer and what is known of it."""
        ...

    def promote(self, wanted: Verified) -> Verdict:
        """Replace the champion, if the ledger allows it."""
        ...

    def shut_down(self, reason: str) -> None:
        """Finish an emergency shutdown: stop, save, revert, alert."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """When a loop ends by itself.

    Attributes:
        last_generation: number of the last generation that it may promote a champion of.
        min_improvement: relative improvement under which it has converged.
        must_ask: whether people are asked before every promotion.
    """

    last_generation: int
    min_improvement: float
    must_ask: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that people see as it happens.

    Attributes:
        kind: begun, base, searching, searched, verified, refused, asked, promoted or ended.
        champion: the champion at that time; None before there is one.
        verified: the candidate that it is about, if any.
        text: more of it.
    """

    kind: str
    champion: Standing | None = None
    verified: Verified | None = None
    text: str = ""


Tell = Callable[[Event], None]


def improve(ports: Ports, terms: Terms, tell: Tell) -> Ending:
    """Replace the champion by better ones until the loop has converged, is complete, or is stopped."""
    # not by the champion's own number, which is an earlier one again where people went back to it
    while ports.next_generation() <= terms.last_generation:
        champion = ports.champion()
        outcome = one_generation(ports, terms, champion, tell)
        if isinstance(outcome, Ending):
            return _ended(champion, outcome, tell)
    text = f"generation {terms.last_generation} is the last that this run may promote"
    return _ended(ports.champion(), Ending(why=Why.COMPLETE, text=text), tell)


def _ended(champion: Standing, ending: Ending, tell: Tell) -> Ending:
    tell(Event(kind="ended", champion=champion, text=ending.text))
    return ending


def one_generation(ports: Ports, terms: Terms, champion: Standing, tell: Tell) -> Standing | Ending:
    """Search for a champion's successor, and promote it if all agree; otherwise why not."""
    tell(Event(kind="searching", champion=champion))
    searched = ports.search(champion)
    if searched.stopped:
        return Ending(why=Why.STOPPED, text=searched.stopped)
    tell(Event(kind="searched", champion=champion, text=f"{len(searched.best_first)} candidates"))
    wanted = _first_that_is_better(ports, terms, champion, searched.best_first, tell)
    return wanted if isinstance(wanted, Ending) else _judged(ports, terms, champion, wanted, tell)


def _first_that_is_better(
    ports: Ports, terms: Terms, champion: Standing, candidates: Sequence[Found], tell: Tell
) -> Verified | Ending:
    """The best candidate that the evaluator finds under every ceiling and better; or why the best isn't."""
    ending = None
    for found in candidates:
        verified = ports.verify(found)
        if not isinstance(verified.verdict, Allow):
            tell(Event(kind="refused", champion=champion, verified=verified, text=verified.verdict.reason))
            continue
        tell(Event(kind="verified", champion=champion, verified=verified))
        converged = _converged(terms, champion, verified)
        if converged is None:
            return verified
        ending = ending or converged
    return ending or Ending(why=Why.NOTHING, text="no candidate is fit to be champion")


def _converged(terms: Terms, champion: Standing, wanted: Verified) -> Ending | None:
    """Too small an improvement, or one that other seeds explain; an undefined one is for people to decide."""
    new = wanted.standing.score
    rate = improvement(old=champion.score, new=new)
    if rate is not None and not rate >= terms.min_improvement:
        text = (
            f"the best candidate scores {new:.4f}, the champion {champion.score:.4f}: {rate:+.1%} is under "
            f"min_improvement {terms.min_improvement:.1%}"
        )
        return Ending(why=Why.CONVERGED, text=text)
    if not wanted.is_beyond_noise:
        return Ending(why=Why.CONVERGED, text=f"other seeds may explain the improvement: {wanted.noise}")
    return None


def _judged(
    ports: Ports, terms: Terms, champion: Standing, wanted: Verified, tell: Tell
) -> Standing | Ending:
    """Promote what the ledger allows, or people do where it waits for them."""
    verdict = ports.judge(champion, wanted.standing)
    if isinstance(verdict, Deny):
        return _denied(ports, verdict)
    held = verdict if isinstance(verdict, Hold) else None
    if held and held.until_ms:
        return Ending(why=Why.HELD, text=held.reason)
    if terms.must_ask or held:
        tell(Event(kind="asked", champion=champion, verified=wanted, text=held.reason if held else ""))
        answer, text = ports.ask(wanted, held)
        if answer is not Answer.APPROVED:
            return Ending(why=Why.REJECTED if answer is Answer.REJECTED else Why.WAITS, text=text)
    return _promoted(ports, champion, wanted, tell)


def _denied(ports: Ports, verdict: Deny) -> Ending:
    if verdict.rule == GENERATIONS:
        return Ending(why=Why.COMPLETE, text=verdict.reason)
    ports.shut_down(verdict.reason)
    return Ending(why=Why.SHUT_DOWN, text=verdict.reason)


def _promoted(ports: Ports, champion: Standing, wanted: Verified, tell: Tell) -> Standing | Ending:
    verdict = ports.promote(wanted)
    if isinstance(verdict, Hold):
        return Ending(why=Why.HELD, text=verdict.reason)
    if isinstance(verdict, Deny):
        return Ending(why=Why.STOPPED, text=verdict.reason)
    tell(Event(kind="promoted", champion=champion, verified=wanted))
    return wanted.standing
