"""Approvals: what is asked of people, what they decided and signed, and whether that is enough."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Literal

import rfc8785

from safety.claim import is_amount
from safety.errors import LedgerError
from safety.identity import Identity, is_signed
from safety.limits import Approval
from safety.tightening import TIGHTER
from safety.verdict import Allow, Deny, Hold, Verdict

Kind = Literal["unkill", "loosen", "promote", "release"]
Answer = Literal["approve", "reject"]
# of a request's digest, as people read it
SHOWN = 12
# rule of what was rejected
REJECTED = "approval.rejected"
NOBODY = Approval.model_construct(approvers={})


@dataclass(frozen=True, kw_only=True, slots=True)
class Act:
    """What is to be done, and on what ground; an approval of another act is none of this one.

    Attributes:
        kind: unkill, loosen, promote or release.
        subject: digest of the kill that is lifted, of the new limits, of the new champion's artifact, or of
            the shutdown whose lineage is released.
        parent: digest of the limits or of the artifact that it takes the place of; "" for none.
        generation: number of the new version of the limits, or of the champion; 0 for others.
        policy: digest of the limits in force; "" where no version of them binds every sweep.
        evidence: digest of what a promotion rests on.
        train_gflop: of the new champion's training and its ancestors', in digits, since whole numbers in
            canonical JSON end at 2^53; "" for others.
        sweep: that promotes, or whose lineage is released.
        lifts: rule that holds a promotion until people have seen it; "" for none.
    """

    kind: Kind
    subject: str
    parent: str = ""
    generation: int = 0
    policy: str = ""
    evidence: str = ""
    train_gflop: str = ""
    sweep: str = ""
    lifts: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Champion:
    """What would be promoted.

    Attributes:
        artifact: SHA-256 of its file; see `artifact.artifact_digest`.
        parent: of the champion whose place it takes; "" for none.
        generation: its number, from 1.
        evidence: SHA-256 of what was measured of it.
        train_gflop: of its training and its ancestors', rounded up.
    """

    artifact: str
    parent: str
    generation: int
    evidence: str
    train_gflop: int

    def __post_init__(self) -> None:
        """Refuse what is no exact 64-bit amount."""
        if not is_amount("train_gflop", self.train_gflop):
            raise ValueError(
                f"train_gflop: expected a whole number from 0 to 2^62, found {self.train_gflop!r}"
            )

    def act(self, sweep: str, policy: str, lifts: str = "") -> Act:
        """Its promotion by a sweep, under the limits with this digest, though this rule holds it."""
        return Act(
            kind="promote",
            subject=self.artifact,
            parent=self.parent,
            generation=self.generation,
            policy=policy,
            evidence=self.evidence,
            train_gflop=str(self.train_gflop),
            sweep=sweep,
            lifts=lifts,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What people are asked.

    Attributes:
        act: what they allow.
        about: why it is asked for, or the limits in JSON.
        by: who asks; that is told, not proven.
        at_ms, expires_ms: Unix time in milliseconds.
    """

    act: Act
    about: str
    by: str
    at_ms: int
    expires_ms: int

    @property
    def digest(self) -> str:
        """SHA-256 of all of it in canonical JSON (RFC 8785), by which it is known."""
        return hashlib.sha256(rfc8785.dumps(asdict(self))).hexdigest()

    @property
    def shows_its_subject(self) -> bool:
        """Whether the limits that people are shown are those that they are asked for."""
        shown = hashlib.sha256(self.about.encode()).hexdigest()
        return self.act.kind != "loosen" or shown == self.act.subject

    @property
    def name(self) -> str:
        """The beginning of its digest, for people."""
        return self.digest[:SHOWN]


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What one person decided of one request.

    Attributes:
        request: its digest.
        answer: approve or reject.
        by: name of the approver.
        reason: for people.
        public: the approver's key, 64 hexadecimal digits.
        signature: of `message`, hexadecimal.
    """

    request: str
    answer: Answer
    by: str
    reason: str
    public: str
    signature: str = ""

    @property
    def message(self) -> bytes:
        """What is signed: canonical JSON (RFC 8785).

        Raises:
            ValueError: a text in it is no Unicode.
        """
        names = ("request", "answer", "by", "reason", "public")
        return rfc8785.dumps({name: getattr(self, name) for name in names})

    def is_signed_by(self, public: str) -> bool:
        """Whether the holder of this key has signed it."""
        try:
            return self.public == public and is_signed(public, bytes.fromhex(self.signature), self.message)
        except ValueError:
            return False


def decide(request: str, answer: Answer, by: str, reason: str, identity: Identity) -> Decision:
    """A signed decision of the request with this digest."""
    plain = Decision(request=request, answer=answer, by=by, reason=reason, public=identity.public)
    return replace(plain, signature=identity.sign(plain.message).hex())


def another(approved: Act, wanted: Act) -> Deny | None:
    """Why an approval of one act is none of another; None where they are the same."""
    for field in fields(Act):
        for_this, asked = getattr(approved, field.name), getattr(wanted, field.name)
        if for_this != asked:
            told = f"approved for {field.name} {short(for_this)}, not {short(asked)}"
            return Deny(f"approval.{field.name}", told)
    return None


def out_of_line(
    champion: Champion, past: Sequence[Champion | None], lineage: str, parent: str | None
) -> Deny | None:
    """Why a champion doesn't follow its lineage's present one; None where it does.

    Args:
        champion: that would be promoted.
        past: all the lineage's champions in order, rolled back or not: numbers only rise.
        lineage: its name.
        parent: artifact that it is at; "" for none, None where nobody told, which can't be compared.
    """
    name, number = short(champion.artifact), len(past) + 1
    if champion.generation != number:
        told = f"{name} is generation {champion.generation}, and {number} is the next of lineage {lineage}"
        return Deny("approval.generation", told)
    if parent is None or champion.parent == parent:
        return None
    told = f"{name} would follow {short(champion.parent)}, and lineage {lineage} is at {short(parent)}"
    return Deny("approval.parent", told)


def short(value: object) -> str:
    """A digest as people read it."""
    return str(value)[:SHOWN] or "none"


def closed(request: Request, now_ms: int) -> Deny | None:
    """Why a request can't be decided, by itself and the time; None where it can."""
    if not request.shows_its_subject:
        return Deny("approval.forged", f"request {request.name} shows other limits than it asks for")
    if request.at_ms <= now_ms < request.expires_ms:
        return None
    return Deny("approval.expired", f"request {request.name} can be decided within its hours only")


def refusal(request: Request, decision: Decision, approval: Approval, now_ms: int) -> Deny | None:
    """Why a decision doesn't count; None where it does.

    Args:
        request: what is decided.
        decision: of one person.
        approval: who may approve, by the limits in force.
        now_ms: Unix time in milliseconds.
    """
    public = approval.keys.get(decision.by)
    if public is None:
        return Deny("approval.approver", f"{decision.by!r:.60} is no approver by the limits in force")
    if decision.request != request.digest or not decision.is_signed_by(public):
        return Deny("approval.forged", f"{decision.by} has not signed this answer to {request.name}")
    if _is_own(request, decision, approval):
        return Deny("approval.proposer", f"{decision.by} asks for it, and the limits let no proposer approve")
    return closed(request, now_ms)


def _is_own(request: Request, decision: Decision, approval: Approval) -> bool:
    """Whether a proposer approves; its own rejection counts whatever the limits say."""
    return decision.answer == "approve" and decision.by == request.by and not approval.proposer_may_approve


def rejection(request: Request, decision: Decision) -> Deny:
    """Why a request is approved no more that was rejected."""
    return Deny(REJECTED, f"request {request.name} was rejected by {decision.by}: {decision.reason}")


def judged(request: Request, decisions: Sequence[Decision], approval: Approval, now_ms: int) -> Verdict:
    """Whether a request is approved: by the quorum, in time, and rejected by nobody.

    Args:
        request: what was asked.
        decisions: all that were made of it; what doesn't count is passed over.
        approval: who may approve, by the limits in force.
        now_ms: Unix time in milliseconds.
    """
    denial = closed(request, now_ms)
    if denial:
        return denial
    counted = {
        decision.by: decision
        for decision in sorted(decisions, key=lambda one: one.answer)  # reject comes last, and stays
        if refusal(request, decision, approval, now_ms) is None
    }
    rejected = [decision for decision in counted.values() if decision.answer == "reject"]
    if rejected:
        return rejection(request, rejected[0])
    if len(counted) < approval.quorum:
        approved = ", ".join(sorted(counted)) or "nobody"
        told = f"request {request.name} needs {approval.quorum} approvals, and was approved by {approved}"
        return Hold("approval.quorum", told)
    return Allow()


def lifting(thrown: Approval, now: Approval) -> Approval:
    """Who approves that a kill switch is lifted, or a lineage released: the tighter of then and now.

    Where too few are left of both, it is whoever could then.
    """
    values = {
        name: TIGHTER[f"approval.{name}"](getattr(thrown, name), getattr(now, name))
        for name in Approval.model_fields
    }
    both = Approval.model_construct(**values)
    return both if both.is_reachable else thrown


def require_reachable(approval: Approval) -> None:
    """Refuse that limits come into force under which nothing could ever be approved.

    Raises:
        LedgerError: the approvers whom all of them name are fewer than must agree.
    """
    if not approval.is_reachable:
        common = ", ".join(sorted(approval.keys)) or "nobody"
        raise LedgerError(
            f"approval.quorum: {approval.quorum} must agree, and the approvers that all limits in force name "
            f"are {common}; expected limits under which enough of them are left"
        )
