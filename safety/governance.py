"""What the plugins of one sweep share: how a configuration is priced and asked for, a result read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from safety.claim import Claim, Usage
from safety.governor import Authority
from safety.lease import Request, request_digest
from safety.rules import Report
from safety.verdict import Allow, Deny, Verdict

DOMAINS = "domains"

Price = Callable[[Mapping[str, Any]], Claim]


def _never() -> bool:
    return False


class Heard:
    """What the governor has just told this process, so that it isn't asked twice; never pickled.

    Attributes:
        admitted: digest by key, of requests that hold a lease.
        denied: by key, why a trial's report was denied or could not be judged.
        used_up: why nothing more can be admitted; "" while it can.
    """

    def __init__(self) -> None:
        self.admitted: dict[str, str] = {}
        self.denied: dict[str, Deny] = {}
        self.used_up = ""

    def __reduce__(self) -> tuple[type[Heard], tuple[()]]:
        """A plugin that is restored has heard nothing."""
        return Heard, ()


@dataclass(frozen=True, kw_only=True)
class Governance:
    """What the plugins of one sweep share.

    Attributes:
        authority: the governor.
        sweep: name of the sweep.
        price: claim of a configuration, by arithmetic.
        stop_asked: whether somebody asks for the end of the sweep.
        heard: what the governor has told.
    """

    authority: Authority
    sweep: str
    price: Price
    stop_asked: Callable[[], bool] = _never
    heard: Heard = field(default_factory=Heard)

    def key(self, trial_id: str) -> str:
        """Idempotency key of a trial."""
        return f"{self.sweep}/{trial_id}"

    def admit(self, trial_id: str, config: Mapping[str, Any]) -> Verdict:
        """Price a configuration and ask for a lease; a price that raises denies."""
        try:
            request = Request(
                key=self.key(trial_id),
                digest=request_digest(config),
                sweep=self.sweep,
                claim=self.price(config),
            )
        except Exception as error:
            return Deny("price", f"this configuration can't be priced: {type(error).__name__}: {error}")
        if self.heard.admitted.get(request.key) == request.digest:
            return Allow()
        verdict = self.authority.admit(request)
        if isinstance(verdict, Allow):
            self.heard.admitted[request.key] = request.digest
        return verdict


def usage_of(result: Mapping[str, Any]) -> Usage:
    """What a worker tells of its use in each result."""
    return Usage(
        train_flops=result["used_flops"],
        wall_ms=result["used_wall_ms"],
        gpu_ms=result["used_gpu_ms"],
        reports=result["training_iteration"],
    )


def report_of(result: Mapping[str, Any], metric: str) -> Report:
    """A result as the rules read it; a worker that tells no usage is judged without."""
    domains = result.get(DOMAINS, {})
    if not isinstance(domains, Mapping):
        domains = {DOMAINS: domains}  # no score either: the rules refuse it by its name
    usage = usage_of(result) if "used_flops" in result else Usage()
    return Report(score=result.get(metric), domains=domains, usage=usage)
