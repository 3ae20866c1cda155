"""What the plugins of one sweep share: how a configuration is priced and asked for, a result read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

from safety.claim import USED, Claim, Usage
from safety.errors import GovernorUnreachable, KeyReused, LedgerError
from safety.governor import Authority
from safety.lease import Grant, Request, request_digest
from safety.rules import Report, is_finite_number
from safety.verdict import Allow, Deny, Hold, Verdict

DOMAINS = "domains"
# of a trial of several models: per domain the highest of any of them, of which one alone is reported
HIGHEST = "highest_domains"
LEASE = "lease"
# what no metric of a user is called
REFUSED = "lease_refused"
# Tune gives some of its plugins a flat result
_FLAT = f"{LEASE}/"
_MARKER = "Governed("
# a sweep's plain name has no slash: whatever text a worker says behind its marker can't lend it another sweep
_MARKED = re.compile(re.escape(_MARKER) + r"(.+?)/[^/)]*\)")

Price = Callable[[Mapping[str, Any]], Claim]
Metric = str | Sequence[str] | None


def _never() -> bool:
    return False


class Heard:
    """What the governor has just told this process, so that it isn't asked twice; never pickled.

    Attributes:
        admitted: by key, the request that holds a lease which is not settled.
        denied: by key, why a trial's report was denied or could not be judged.
        usage: by key, what a trial has told last under a lease that is not known to be settled.
        used_up: why nothing more can be admitted; "" while it can.
        controller: Tune's, which has the processes of the trials; None before the first one.
    """

    def __init__(self) -> None:
        self.admitted: dict[str, Request] = {}
        self.denied: dict[str, Deny] = {}
        self.usage: dict[str, Usage] = {}
        self.used_up = ""
        self.controller: Any = None

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
        digest: of a configuration, as the workers take it.
        heard: what the governor has told.
        retries_failures: whether Tune may try a trial again that failed by itself, as often as it is told to;
            one whose worker died or lost its lease it always may.
    """

    authority: Authority
    sweep: str
    price: Price
    stop_asked: Callable[[], bool] = _never
    digest: Callable[[Mapping[str, Any]], str] = request_digest
    heard: Heard = field(default_factory=Heard)
    retries_failures: bool = True

    def key(self, trial_id: str) -> str:
        """Idempotency key of a trial."""
        return f"{self.sweep}/{trial_id}"

    def admit(self, trial_id: str, config: Mapping[str, Any]) -> Verdict:
        """Price a configuration and ask for a lease; a price that raises denies."""
        return self._ask(self.authority.admit, self._request(trial_id, config, gpus=0.0))

    def readmit(self, trial_id: str, config: Mapping[str, Any], gpus: float) -> Verdict:
        """The same for a trial that may have held another lease, and with the GPUs that it has now."""
        return self._ask(self.authority.readmit, self._request(trial_id, config, gpus=gpus))

    def _request(self, trial_id: str, config: Mapping[str, Any], *, gpus: float) -> Request | Deny:
        try:
            claim, digest = self.price(config), self.digest(config)
            gpu_ms = max(claim.gpu_ms, int(claim.wall_ms * gpus))
            claim = replace(claim, gpu_ms=gpu_ms)
        except Exception as error:
            return Deny("price", f"this configuration can't be priced: {type(error).__name__}: {error}")
        return Request(key=self.key(trial_id), digest=digest, sweep=self.sweep, claim=claim)

    def _ask(self, ask: Callable[[Request], Verdict], request: Request | Deny) -> Verdict:
        if isinstance(request, Deny):
            return request
        if self.heard.admitted.get(request.key) == request:
            return Allow()
        try:
            verdict = ask(request)
        except KeyReused:
            raise
        except (GovernorUnreachable, LedgerError) as error:  # it goes on when there is an answer again
            return Hold("silent", str(error))
        if isinstance(verdict, Allow):
            self.heard.admitted[request.key] = request
        else:
            self.heard.admitted.pop(request.key, None)
        return verdict

    def forget(self, trial_id: str) -> None:
        """A trial's lease is over, or may be: ask again before it runs again."""
        self.heard.admitted.pop(self.key(trial_id), None)


def marker(sweep: str, trial: str) -> str:
    """What a governed worker calls itself on its cluster."""
    return f"{_MARKER}{sweep}/{trial})"


def sweep_of_marker(says: str) -> str | None:
    """The sweep that a worker says it works for, whatever follows its marker; None where it says none."""
    found = _MARKED.match(says)
    return found[1] if found else None


def told(grant: Grant, usage: Usage) -> dict[str, Any]:
    """A worker's lease and what it used, as a result tells it."""
    used = {name: getattr(usage, name) for name in USED}
    return {LEASE: {"id": grant.lease, "fence": grant.fence, **used}}


def tellable(result: Mapping[str, Any]) -> dict[str, Any]:
    """A worker's result with a text for each number beyond a float: Tune, which averages all, fails on it."""
    return {name: _tellable(value) for name, value in result.items()}


def _tellable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tellable(value)
    try:
        if isinstance(value, Real):
            float(value)
    except OverflowError:
        return f"a {type(value).__name__} beyond a float"
    return value


def lease_of(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """A worker's lease in a result, nested or flat; None where it tells none."""
    nested = result.get(LEASE)
    if isinstance(nested, Mapping):
        return nested
    flat = {name.removeprefix(_FLAT): value for name, value in result.items() if name.startswith(_FLAT)}
    return flat or None


def usage_of(result: Mapping[str, Any]) -> Usage:
    """What a worker tells of its use in each result; nothing where it tells no lease."""
    lease = lease_of(result)
    if lease is None:
        return Usage()
    return Usage(**{name: lease[name] for name in USED}, lease=lease["id"])


def report_of(result: Mapping[str, Any], metric: Metric) -> Report:
    """A result as the rules read it.

    Args:
        result: as Tune gives it.
        metric: what is optimized; of several, the first that is no finite number is judged; None judges
            no score.
    """
    domains = result.get(DOMAINS, {})
    if not isinstance(domains, Mapping):
        domains = {DOMAINS: domains}  # no score either: the rules refuse it by its name
    highest = result.get(HIGHEST)
    if isinstance(highest, Mapping):
        domains = _of_any(domains, highest)
    return Report(score=_score(result, metric), domains=domains, usage=usage_of(result))


def _of_any(domains: Mapping[str, object], highest: Mapping[str, object]) -> dict[str, object]:
    """Each domain's score, or another model's where that is higher; what is no finite number stays one."""
    judged = dict(domains)
    for name, score in highest.items():
        own = judged.get(name, score)
        is_over = is_finite_number(score) and is_finite_number(own) and float(score) > float(own)
        if name not in judged or is_over or not is_finite_number(score):
            judged[name] = score
    return judged


def _score(result: Mapping[str, Any], metric: Metric) -> object:
    if metric is None:
        return 0.0
    names = [metric] if isinstance(metric, str) else list(metric)
    scores = [_found(result, name) for name in names]
    return next((score for score in scores if not is_finite_number(score)), scores[0])


def _found(result: Mapping[str, Any], name: str) -> object:
    """A metric by its flat name."""
    if name in result:
        return result[name]
    head, _, rest = name.partition("/")
    inner = result.get(head)
    return _found(inner, rest) if rest and isinstance(inner, Mapping) else None
