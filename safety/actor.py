"""Ray shell: the cluster's one governor actor and its client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from safety.claim import Measured, Usage
from safety.errors import GovernorUnreachable, LedgerError
from safety.governor import Governor, Status
from safety.improvement import Mode
from safety.lease import Grant, Request
from safety.ledger import Ledger
from safety.limits import Limits
from safety.rules import Report
from safety.schema import without_password
from safety.verdict import Verdict

NAME = "governor"
NAMESPACE = "rsi_ray"
ANSWER_SECONDS = 10.0


class GovernorActor:
    """The governor in a process of its own, on the head node, beside its ledger.

    Every call is safe to repeat: Ray delivers at least once.
    """

    def __init__(self, ledger_url: str) -> None:
        self._governor = Governor(Ledger(ledger_url))

    def ask(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """Call a method of the governor."""
        return getattr(self._governor, method)(*arguments)

    def __repr__(self) -> str:
        """Shown in the dashboard."""
        return f"Governor({without_password(self._governor.ledger_url())})"


class GovernorClient:
    """The governor as drivers and workers reach it; picklable, and without memory.

    Every method is the governor's; each raises GovernorUnreachable where no answer comes.
    """

    def __init__(self, handle: Any, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._handle = handle
        self._answer_seconds = answer_seconds

    def _ask(self, method: str, *arguments: object) -> Any:
        try:
            return ray.get(self._handle.ask.remote(method, arguments), timeout=self._answer_seconds)
        except RayTaskError as error:
            raise error.cause from None
        except GetTimeoutError:
            raise GovernorUnreachable(
                f"the governor gave no answer to {method} within {self._answer_seconds} s"
            ) from None
        except RayError as error:
            line = str(error).splitlines()[0]
            raise GovernorUnreachable(f"the governor can't be reached for {method}: {line}") from None

    def open_sweep(self, sweep: str, limits: Limits, lineage: str | None = None) -> Limits:
        """Bind a sweep to its limits; answers those in force."""
        in_force: Limits = self._ask("open_sweep", sweep, limits, lineage)
        return in_force

    def close_sweep(self, sweep: str, usage: Mapping[str, Usage]) -> None:
        """End a sweep whose workers are dead."""
        self._ask("close_sweep", sweep, dict(usage))

    def freeze(self, sweep: str, reason: str) -> None:
        """Admit and renew nothing of a sweep any more."""
        self._ask("freeze", sweep, reason)

    def admit(self, request: Request) -> Verdict:
        """Judge a claim and reserve it."""
        verdict: Verdict = self._ask("admit", request)
        return verdict

    def readmit(self, request: Request) -> Verdict:
        """Judge and reserve the claim of a trial that may have held another lease."""
        verdict: Verdict = self._ask("readmit", request)
        return verdict

    def confirm(self, lease: int, fence: int, measured: Measured) -> None:
        """Judge what was built under a lease."""
        self._ask("confirm", lease, fence, measured)

    def activate(self, key: str, digest: str, holder: str, measured: Measured | None) -> Grant:
        """Begin a lease."""
        grant: Grant = self._ask("activate", key, digest, holder, measured)
        return grant

    def observe(self, lease: int, fence: int, grown_bytes: int) -> None:
        """Judge the memory that a trial's process has grown by."""
        self._ask("observe", lease, fence, grown_bytes)

    def renew(self, lease: int, fence: int) -> int:
        """Milliseconds until the new deadline."""
        ttl_ms: int = self._ask("renew", lease, fence)
        return ttl_ms

    def settle(self, lease: int, fence: int, usage: Usage) -> None:
        """End a lease."""
        self._ask("settle", lease, fence, usage)

    def report(self, key: str, report: Report) -> Verdict:
        """Judge one report of a running trial."""
        verdict: Verdict = self._ask("report", key, report)
        return verdict

    def void(self, key: str, reason: str) -> None:
        """Give back a lease that never began."""
        self._ask("void", key, reason)

    def revoke(self, key: str, rule: str, reason: str) -> None:
        """Renew a lease no more."""
        self._ask("revoke", key, rule, reason)

    def judge_improvement(self, sweep: str, old: float, new: float, mode: Mode = "max") -> Verdict:
        """Judge a sweep's best against what it would replace."""
        verdict: Verdict = self._ask("judge_improvement", sweep, old, new, mode)
        return verdict

    def promote(self, sweep: str, key: str, old: float, new: float, mode: Mode = "max") -> Verdict:
        """Record that a champion takes another's place, if it may."""
        verdict: Verdict = self._ask("promote", sweep, key, old, new, mode)
        return verdict

    def fail(self, sweep: str, key: str, reason: str) -> None:
        """Record that a trial failed."""
        self._ask("fail", sweep, key, reason)

    def verdict(self, key: str) -> Verdict:
        """What was decided of a trial in the end."""
        verdict: Verdict = self._ask("verdict", key)
        return verdict

    def pulse(self, sweep: str) -> str:
        """Say that the driver is alive."""
        state: str = self._ask("pulse", sweep)
        return state

    def status(self, sweep: str) -> Status:
        """State and budgets of a sweep."""
        status: Status = self._ask("status", sweep)
        return status

    def ledger_url(self) -> str:
        """Which ledger the governor fronts."""
        url: str = self._ask("ledger_url")
        return url


def connect_to_any(ledger_url: str) -> GovernorClient:
    """The client of the cluster's governor, whichever ledger it keeps; this one where there is none.

    Raises:
        GovernorUnreachable: it does not answer.
    """
    try:
        found = GovernorClient(ray.get_actor(NAME, namespace=NAMESPACE)).ledger_url()
    except ValueError:  # there is none
        found = ledger_url
    return connect(found)


def connect(ledger_url: str) -> GovernorClient:
    """The client of the cluster's governor, which is started where there is none.

    Raises:
        LedgerError: the cluster's governor keeps another ledger.
        GovernorUnreachable: it does not answer.
    """
    actor = ray.remote(GovernorActor).options(
        name=NAME,
        namespace=NAMESPACE,
        get_if_exists=True,
        lifetime="detached",
        num_cpus=0,
        # the ledger lies on the head node
        resources={"node:__internal_head__": 0.001},
        max_restarts=-1,
        max_task_retries=2,
    )
    client = GovernorClient(actor.remote(ledger_url), answer_seconds=60.0)
    found = client.ledger_url()
    if found != ledger_url:
        kept, asked = without_password(found), without_password(ledger_url)
        raise LedgerError(f"this cluster's governor keeps the ledger {kept}, asked for was {asked}")
    return GovernorClient(client._handle)
