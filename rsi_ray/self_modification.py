"""The model that is replaced by better versions of itself, one approved promotion after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from rsi_ray.approvers import Approver
from rsi_ray.champion import ChampionStore
from rsi_ray.champion_version import Candidate, Version
from rsi_ray.champion_weights import model_of
from rsi_ray.errors import ChampionError
from rsi_ray.evidence import Evidence, is_improvement, read_evidence
from rsi_ray.loop import Answer
from rsi_ray.modification import Modification
from rsi_ray.proposal import Domain, Proposal, Size
from safety import (
    Allow,
    ApprovalRefused,
    Champion,
    Decision,
    Deny,
    Hold,
    Limits,
    Promoted,
    Verdict,
    improvement,
    judge_capability,
)
from safety.approval import REJECTED, Request
from safety.approvals import Asked
from search_spaces.choices import stem

if TYPE_CHECKING:
    from torch import nn


class Succession(Protocol):
    """Who decides what stands: a `Ledger`, a `Governor` or its client."""

    def champions(self, lineage: str) -> Sequence[Promoted]:
        """The promotions of a lineage, in order."""
        ...

    def ask_promotion(self, sweep: str, champion: Champion, by: str, about: str, lifts: str = "") -> Request:
        """Ask people to approve a promotion; one that waits for them already isn't asked for again."""
        ...

    def request(self, name: str) -> tuple[Asked, Verdict]:
        """A request, and whether it is approved now."""
        ...

    def decide(self, decision: Decision) -> None:
        """Write a signed decision down."""
        ...

    def promote(
        self,
        sweep: str,
        key: str,
        old: float,
        new: float,
        mode: Any = "max",
        champion: Champion | None = None,
        request: str = "",
    ) -> Verdict:
        """Promote a champion, if it may be; twice is once."""
        ...


class SelfModificationEngine:
    """The guide's engine: the current model, its replacement with people's approval, and the history.

    Args:
        store: the lineage's versions.
        ledger: decides and records; whether a promotion takes an approval is for its limits to say.
        approver: decides while this process waits.
        sweep: in whose name is promoted.
        by: who asks.
        limits: in force; a domain that they name and that wasn't measured, or is over its ceiling, is denied.
        key: file of the key that signs approvals, as people are told it.
    """

    def __init__(
        self,
        store: ChampionStore,
        *,
        ledger: Succession,
        approver: Approver,
        sweep: str,
        by: str,
        limits: Limits,
        key: str = "FILE",
    ) -> None:
        self._store, self._ledger, self._approver = store, ledger, approver
        self._sweep, self._by, self._key = sweep, by, key
        self._limits = limits
        self._requests: dict[str, str] = {}
        self.verdict: Verdict | None = None
        self.modification_history: list[Modification | Mapping[str, Any]] = [*store.history()]

    @property
    def current_model(self) -> nn.Module:
        """The champion with its weights, in evaluation mode.

        Raises:
            ChampionError: there is none, or its file isn't what was promoted.
        """
        return model_of(self._store.champion())

    def apply_modification(self, new_architecture: Candidate, *, require_approval: bool = True) -> bool:
        """Replace the champion by a candidate, if people and the limits allow it.

        Called again after a crash with the same candidate, it goes on where it was.

        Args:
            new_architecture: the candidate, with its evidence.
            require_approval: whether people are asked. Where they aren't and the limits want an approval,
                nothing is replaced.

        Returns:
            Whether it is the champion now; `verdict` says why not.

        Raises:
            ChampionError: the candidate's weights are no safetensors file, or the store isn't what it was.
        """
        before = self._store.settle()
        if self._store.is_champion(new_architecture):
            return True
        version = self._store.stage(new_architecture)
        if require_approval and not self._request_human_approval(before, version):
            return False
        self.verdict = self.promote(version)
        return isinstance(self.verdict, Allow)

    def _request_human_approval(self, current: Version, proposed: Version) -> bool:
        """Whether people approve; no answer is no."""
        answer, text = self.ask(proposed, self.propose(current, proposed))
        if answer is not Answer.APPROVED:
            rejected = answer is Answer.REJECTED
            self.verdict = Deny(REJECTED, text) if rejected else Hold("approval.quorum", text)
        return answer is Answer.APPROVED

    def propose(
        self,
        current: Version,
        proposed: Version,
        *,
        reported: float | None = None,
        noise: str = "",
        incident: str = "",
        held: str = "",
    ) -> Proposal:
        """What people are shown before they decide."""
        old, new = evidence_of(current), evidence_of(proposed)
        ceilings = self._limits.bounds.max_performance
        domains = {
            name: Domain(current=old.own.domains.get(name), proposed=score, ceiling=ceilings.get(name))
            for name, score in new.own.domains.items()
        }
        return Proposal(
            lineage=self._store.lineage,
            generation=proposed.manifest.generation,
            current=old.own.score,
            proposed=new.own.score,
            improvement=improvement(old=old.own.score, new=new.own.score),
            noise=noise or is_improvement(old, new).text,
            seeds=len(new.measurements),
            is_sealed=new.sealed,
            reported=reported,
            domains=domains,
            difference=self._diff_architectures(current, proposed),
            before=_size(current),
            after=_size(proposed),
            ancestors=tuple(one.name for one in reversed([*self._store.ancestors(proposed)])),
            held=held,
            incident=incident,
        )

    def ask(self, version: Version, proposal: Proposal, lifts: str = "") -> tuple[Answer, str]:
        """Have people decide of a promotion; what is decided already is not asked again.

        Args:
            version: that would be promoted.
            proposal: what they are shown; the ledger keeps it.
            lifts: rule whose hold their approval lifts.
        """
        champion, about = version.champion, proposal.to_json()
        request = self._ledger.ask_promotion(self._sweep, champion, self._by, about, lifts)
        self._requests[version.artifact] = request.digest
        _, verdict = self._ledger.request(request.digest)
        if isinstance(verdict, Hold):
            decision = self._approver.decide(request, proposal)
            try:
                if decision:
                    self._ledger.decide(decision)
            except ApprovalRefused as error:
                return Answer.NONE, str(error)
            _, verdict = self._ledger.request(request.digest)
        return self._answer(verdict, request)

    def _answer(self, verdict: Verdict, request: Request) -> tuple[Answer, str]:
        if isinstance(verdict, Allow):
            return Answer.APPROVED, ""
        if isinstance(verdict, Deny) and verdict.rule == REJECTED:
            return Answer.REJECTED, verdict.reason
        name = request.name
        return Answer.NONE, (
            f"{verdict.reason}; `rsi-ray approvals show {name}` says what it is, "
            f"`rsi-ray approvals approve {name} --key {self._key} --reason WHY` approves, and "
            f"`rsi-ray run --resume {self._sweep}` goes on"
        )

    def promote(self, version: Version) -> Verdict:
        """Make a version the champion, by the approval that was asked for, if the ledger allows it."""
        own = evidence_of(version).own
        verdict = judge_capability(self._limits, own.domains)
        if isinstance(verdict, Deny):
            return verdict
        old, new = evidence_of(self._store.champion()).own.score, own.score
        request = self._requests.get(version.artifact, "")
        # of the champion alone, so that a second try is the same promotion
        key = f"{self._store.lineage}/{version.name}"
        verdict = self._store.promote(
            version.artifact,
            lambda found: self._ledger.promote(self._sweep, key, old, new, "max", found, request),
        )
        if isinstance(verdict, Allow):
            self.modification_history = [*self._store.history()]
        return verdict

    def _diff_architectures(self, current: Version, proposed: Version) -> dict[str, tuple[Any, Any]]:
        """Old and new value of every parameter that changes; None where there is none."""
        old, new = _plain(current.manifest.config), _plain(proposed.manifest.config)
        names = [*old, *(name for name in new if name not in old)]
        return {name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters without the choices that a name may carry, which differ from width to width."""
    return {stem(name): value for name, value in config.items()}


def evidence_of(version: Version) -> Evidence:
    """What was measured of a version.

    Raises:
        ChampionError: it is missing, or is none of an evaluation, or one of other weights.
    """
    if version.evidence is None:
        raise ChampionError(f"version {version.name}: its evidence is missing; it can't be compared")
    try:
        evidence = read_evidence(version.evidence)
    except ValueError as error:
        raise ChampionError(f"version {version.name}: {error}") from None
    if evidence.weights != version.manifest.weights:
        raise ChampionError(
            f"version {version.name}: its evidence is of other weights, {evidence.weights:.12}"
        )
    return evidence


def _size(version: Version) -> Size:
    manifest = version.manifest
    return Size(params=manifest.params, train_flops=manifest.total_flops)
