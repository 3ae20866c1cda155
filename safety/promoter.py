"""What a driver that promotes champions asks, of the governor itself or of its client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from safety.approval import Champion, Decision
from safety.approval import Request as ApprovalRequest
from safety.approvals import Asked
from safety.champions import Promoted
from safety.improvement import Mode, Promotion
from safety.limits import Approval
from safety.verdict import Verdict


class Promoter(ABC):
    """Asks what `ChampionLedger` answers of champions and their approvals."""

    @abstractmethod
    def _ask(self, method: str, *arguments: object) -> Any:
        """Ask whoever answers."""

    def judge_improvement(self, sweep: str, old: float, new: float, mode: Mode = "max") -> Verdict:
        """Judge a sweep's best against what it would replace; see `ChampionLedger.judge_improvement`."""
        verdict: Verdict = self._ask("judge_improvement", sweep, old, new, mode)
        return verdict

    def promote(
        self,
        sweep: str,
        key: str,
        old: float,
        new: float,
        mode: Mode = "max",
        champion: Champion | None = None,
        request: str = "",
    ) -> Verdict:
        """Record that a champion takes another's place, if it may; see `ChampionLedger.promote`."""
        verdict: Verdict = self._ask("promote", sweep, key, old, new, mode, champion, request)
        return verdict

    def ask_promotion(
        self, sweep: str, champion: Champion, by: str, about: str, lifts: str = ""
    ) -> ApprovalRequest:
        """Ask people to approve a promotion; see `ChampionLedger.ask_promotion`."""
        asked: ApprovalRequest = self._ask("ask_promotion", sweep, champion, by, about, lifts)
        return asked

    def decide(self, decision: Decision) -> None:
        """Write an approver's signed decision down; see `ChampionLedger.decide`."""
        self._ask("decide", decision)

    def request(self, name: str) -> tuple[Asked, Verdict]:
        """A request for an approval, and whether it is approved now; see `ChampionLedger.request`."""
        found: tuple[Asked, Verdict] = self._ask("request", name)
        return found

    def approval(self, sweep: str = "") -> Approval:
        """Who approves for all sweeps, or for the lineage of one."""
        approval: Approval = self._ask("approval", sweep)
        return approval

    def champions(self, lineage: str) -> list[Promoted]:
        """The promotions of a lineage, in order, each with its champion and who approved it."""
        champions: list[Promoted] = self._ask("champions", lineage)
        return champions

    def promotions(self, lineage: str) -> list[Promotion]:
        """The promotions of a lineage, in order."""
        promotions: list[Promotion] = self._ask("promotions", lineage)
        return promotions
