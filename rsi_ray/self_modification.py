"""The model that is replaced by better versions of itself, one approved promotion after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from rsi_ray.champion import ChampionStore
from rsi_ray.champion_version import Candidate, Version
from rsi_ray.champion_weights import model_of
from rsi_ray.modification import Change, Modification, architecture_difference, difference_line
from safety import Allow, Champion, Deny, Hold, Promoted, Verdict, improvement
from safety.approval import Request
from safety.improvement import Mode

if TYPE_CHECKING:
    from torch import nn

Answer = Literal["approve", "reject", "none"]


class Succession(Protocol):
    """Who decides what stands: a `Ledger`, a `Governor` or its client."""

    def champions(self, lineage: str) -> Sequence[Promoted]:
        """The promotions of a lineage, in order."""
        ...

    def ask_promotion(self, sweep: str, champion: Champion, by: str, about: str) -> Request:
        """Ask people to approve a promotion; one that waits for them already isn't asked for again."""
        ...

    def promote(
        self, sweep: str, key: str, old: float, new: float, mode: Mode, champion: Champion, request: str
    ) -> Verdict:
        """Promote a champion, if it may be; twice is once."""
        ...


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A version and its score."""

    version: Version
    performance: float


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What people are shown before they decide.

    Attributes:
        request: what the ledger has asked them.
        current, proposed: the champion, and what would take its place.
        improvement: relative to the champion's score; None where it is undefined.
        difference: of their architectures.
    """

    request: Request
    current: Scored
    proposed: Scored
    improvement: float | None
    difference: tuple[Change, ...]


class Approver(Protocol):
    """People, or who waits for them."""

    def ask(self, proposal: Proposal) -> Answer:
        """Have a request decided in the ledger: approve, reject, or none where nobody did."""
        ...


class SelfModificationEngine:
    """The guide's engine: the current model, its replacement with people's approval, and the history.

    Args:
        store: the lineage's versions.
        ledger: decides and records; whether a promotion takes an approval is for its limits to say.
        approver: asks people.
        sweep: in whose name is promoted.
        by: who asks.
        mode: whether a larger or a smaller score is better.
    """

    def __init__(
        self,
        store: ChampionStore,
        *,
        ledger: Succession,
        approver: Approver,
        sweep: str,
        by: str,
        mode: Mode = "max",
    ) -> None:
        self._store, self._ledger, self._approver = store, ledger, approver
        self._sweep, self._by, self._mode = sweep, by, mode
        self.verdict: Verdict | None = None

    @property
    def current_model(self) -> nn.Module:
        """The champion with its weights, in evaluation mode.

        Raises:
            ChampionError: there is none, or its file isn't what was promoted.
        """
        return model_of(self._store.champion())

    @property
    def modification_history(self) -> list[Modification]:
        """Every promotion of the lineage, in order, and what it changed."""
        return self._store.history()

    def apply_modification(
        self, new_architecture: Candidate, *, old: float, new: float, require_approval: bool = True
    ) -> bool:
        """Replace the champion by a candidate, if people and the limits allow it.

        Called again after a crash with the same arguments, it goes on where it was.

        Args:
            new_architecture: the candidate.
            old, new: the champion's score, and the candidate's.
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
        current = Scored(version=before, performance=old)
        proposed = Scored(version=self._store.stage(new_architecture), performance=new)
        if require_approval and not self._request_human_approval(current, proposed):
            return False
        request = self._asked(current, proposed).digest if require_approval else ""
        self.verdict = self._promoted(current, proposed, request)
        return isinstance(self.verdict, Allow)

    def _request_human_approval(self, current: Scored, proposed: Scored) -> bool:
        """Whether people approve, by a request in the ledger; no answer is no."""
        request = self._asked(current, proposed)
        proposal = Proposal(
            request=request,
            current=current,
            proposed=proposed,
            improvement=self._improvement(current, proposed),
            difference=self._diff_architectures(current, proposed),
        )
        answer = self._approver.ask(proposal)
        if answer == "reject":
            self.verdict = Deny("approval.rejected", f"request {request.name} was rejected")
        elif answer != "approve":
            self.verdict = Hold("approval.quorum", f"request {request.name} was not answered")
        return answer == "approve"

    def _diff_architectures(self, current: Scored, proposed: Scored) -> tuple[Change, ...]:
        """What changes, field by field."""
        return architecture_difference(current.version.manifest.spec, proposed.version.manifest.spec)

    def _asked(self, current: Scored, proposed: Scored) -> Request:
        about = self._about(current, proposed)
        return self._ledger.ask_promotion(self._sweep, proposed.version.champion, self._by, about)

    def _about(self, current: Scored, proposed: Scored) -> str:
        rate, manifest = self._improvement(current, proposed), proposed.version.manifest
        gained = "undefined" if rate is None else f"{rate:+.1%}"
        difference = difference_line(self._diff_architectures(current, proposed))
        return (
            f"score {current.performance:.6g} -> {proposed.performance:.6g} ({gained}); "
            f"{difference}; {manifest.params:,} parameters; "
            f"{manifest.total_flops:.3g} FLOPs of training with its ancestors'"
        )

    def _improvement(self, current: Scored, proposed: Scored) -> float | None:
        return improvement(old=current.performance, new=proposed.performance, mode=self._mode)

    def _promoted(self, current: Scored, proposed: Scored, request: str) -> Verdict:
        version = proposed.version
        old, new = current.performance, proposed.performance
        # of the champion alone, so that a second try is the same promotion
        key = f"{version.manifest.lineage}/{version.name}"

        def ask(champion: Champion) -> Verdict:
            return self._ledger.promote(self._sweep, key, old, new, self._mode, champion, request)

        return self._store.promote(version.artifact, ask)
