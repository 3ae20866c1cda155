"""Which promotions are right, by what people have really decided; not by what the ledger makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from safety.approval import Champion, Decision, Request
from safety.limits import Limits
from safety.simulation.feed import PromotionChange
from safety.simulation.model import GFLOP
from safety.simulation.timeline import Host
from safety.simulation.violation import Call, Violated, require


@dataclass(slots=True)
class People:
    """What people have signed with their own keys, whether or not it has arrived; and what arrived.

    Attributes:
        signed: every decision that is no forgery.
        taken: decisions that the ledger took, by the request's digest.
        asked: requests by their digest.
        used: requests by which something was promoted.
        champions: what was promoted, in order, by sweep; each has a lineage of its own.
        line: of these, with the numbers of their promotions, those that led to the present champion.
    """

    signed: set[Decision] = field(default_factory=set)
    taken: dict[str, list[Decision]] = field(default_factory=dict)
    asked: dict[str, Request] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    champions: dict[str, list[Champion]] = field(default_factory=dict)
    line: dict[str, list[tuple[int, Champion]]] = field(default_factory=dict)

    def hear(self, call: Call, answer: object) -> None:
        """Note what was asked, and what was decided.

        Raises:
            Violated: the ledger took a decision that nobody has made.
        """
        if isinstance(answer, Request):
            self.asked[answer.digest] = answer
        if call.method == "requests" and isinstance(answer, list):
            self.asked |= {asked.request.digest: asked.request for asked, _ in answer}
        if call.method == "decide" and answer is None:
            decision: Decision = call.arguments[0]
            require(
                decision in self.signed, "I10", f"a decision by {decision.by} is a forgery, and was taken"
            )
            self.taken.setdefault(decision.request, []).append(decision)

    def follow(self, call: Call, row: PromotionChange, limits: Limits, host: Host) -> None:
        """Check one promotion.

        Raises:
            Violated: people have not allowed exactly it, or not any more.
        """
        require(call.method == "promote", "I10", f"{row.key} was promoted by {call.method}")
        champion, digest = call.arguments[5:7]
        told = f"{row.key} was promoted by request {digest[:12] or 'none'}"
        request = self.asked.get(digest)
        if request is None:
            raise Violated(f"I10: {told}, which nobody has asked for")
        most = limits.bounds.max_train_flops
        over = most is not None and champion.train_gflop * GFLOP > most
        require(not over, "ceiling", f"{told}, whose champion has {champion.train_gflop:,} GFLOP in it")
        require(digest not in self.used, "I10", f"{told}, which was used before")
        self._require_same(request, champion, row.sweep, limits, told)
        in_time = request.at_ms <= host.clock().wall_ms() < request.expires_ms
        require(in_time, "I10", f"{told}, which has expired")
        self._require_quorum(request, limits, told)
        following = self.next_of(row.sweep)
        require(
            (champion.parent, champion.generation) == following,
            "I10",
            f"{told}, whose parent and generation are none of {following}",
        )
        self.used.add(digest)
        self.champions.setdefault(row.sweep, []).append(champion)
        self.line.setdefault(row.sweep, []).append((row.id, champion))

    def trained(self, sweep: str) -> int:
        """GFLOP of the most trained champion among those that led to a sweep's present one."""
        return max((champion.train_gflop for _, champion in self.line.get(sweep, [])), default=0)

    def next_of(self, sweep: str) -> tuple[str, int]:
        """Parent and generation of the champion that a sweep may promote next."""
        line = self.line.get(sweep, [])
        return line[-1][1].artifact if line else "", len(self.champions.get(sweep, [])) + 1

    def _require_same(
        self, request: Request, champion: Champion, sweep: str, limits: Limits, told: str
    ) -> None:
        act = request.act
        asked = act.subject, act.parent, act.generation, act.evidence, act.train_gflop, act.sweep, act.policy
        wanted = (
            champion.artifact,
            champion.parent,
            champion.generation,
            champion.evidence,
            str(champion.train_gflop),
            sweep,
            limits.digest,
        )
        require(asked == wanted, "I10", f"{told}, which is for {asked}, not {wanted}")

    def agree(self, request: Request, limits: Limits) -> bool:
        """Whether so many as must have approved a request, and nobody has rejected it."""
        try:
            self._require_quorum(request, limits, "")
        except Violated:
            return False
        return True

    def _require_quorum(self, request: Request, limits: Limits, told: str) -> None:
        decisions = self.taken.get(request.digest, [])
        rejected = [one.by for one in decisions if one.answer == "reject"]
        require(not rejected, "I10", f"{told}, which {', '.join(rejected)} rejected")
        approved = {one.by for one in decisions if one.by in limits.approval.keys} - {request.by}
        enough = len(approved) >= limits.approval.quorum
        require(enough, "I10", f"{told}, which {', '.join(sorted(approved)) or 'nobody'} approved")
