"""Ray shell: the client of the cluster's one governor actor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from safety.answers import Question, asked, opened
from safety.claim import Measured, Usage
from safety.database import state_folder, without_password
from safety.drills import Canary
from safety.emergency_client import EmergencyClient
from safety.errors import GovernorUnreachable, IdentityError, LedgerError
from safety.evaluations import Evaluated
from safety.governor import Status
from safety.governor_process import NAME, NAMESPACE, governor_actor
from safety.identity import public_in
from safety.lease import Grant, Request
from safety.limits import Limits
from safety.promoter import Promoter
from safety.rules import Report
from safety.verdict import Verdict

ANSWER_SECONDS, START_SECONDS = 10.0, 60.0
# where a ledger that is no file has its governor's state, if nobody says otherwise
RUNS = "rsi_results"


class GovernorClient(Promoter, EmergencyClient):
    """The governor as drivers and workers reach it; picklable, and without memory.

    It is one driver's, with its workers: a sweep that it has opened is closed by no other.
    Every method is the governor's; each raises GovernorUnreachable where no answer comes, and IdentityError
    where one comes that isn't signed by the pinned key.

    Args:
        home: the ledger's URL, and the folder of the governor's state.
        public: the key that its answers are signed with.
        handle: of its actor.
        answer_seconds: how long an answer is waited for.
    """

    def __init__(
        self, home: tuple[str, str], public: str, handle: Any, answer_seconds: float = ANSWER_SECONDS
    ) -> None:
        self._home = home
        self.public = public
        self._handle = handle
        self._answer_seconds = answer_seconds
        self._driver = uuid4().hex

    def _ask(self, method: str, *arguments: object) -> Any:
        question = asked(method, arguments)
        try:
            signed = self._signed(question)
        except GetTimeoutError:
            raise GovernorUnreachable(
                f"the governor gave no answer to {method} within {self._answer_seconds} s"
            ) from None
        except RayError as error:
            line = str(error).splitlines()[0]
            raise GovernorUnreachable(f"the governor can't be reached for {method}: {line}") from None
        return opened(self.public, question, signed)

    def _signed(self, question: Question) -> object:
        try:
            return self._got(question)
        except RayActorError:
            # somebody ended it for good: whoever has its name now must prove itself
            self._handle = governor_actor(*self._home)
            return self._got(question)

    def _got(self, question: Question) -> object:
        if not hasattr(self._handle, "ask"):
            return None
        return ray.get(self._handle.ask.remote(question), timeout=self._answer_seconds)

    def open_sweep(
        self, sweep: str, limits: Limits, lineage: str | None = None, is_drill: bool = False
    ) -> Limits:
        """Bind a sweep to its limits; answers those in force."""
        in_force: Limits = self._ask("open_sweep", sweep, limits, lineage, is_drill, self._driver)
        return in_force

    def record_drill(self, canaries: Sequence[Canary], target_ms: int, by: str) -> str:
        """Write down what a kill drill measured."""
        failure: str = self._ask("record_drill", tuple(canaries), target_ms, by)
        return failure

    def close_sweep(self, sweep: str, usage: Mapping[str, Usage]) -> None:
        """End a sweep that this driver has opened, and whose workers are dead."""
        self._ask("close_sweep", sweep, dict(usage), self._driver)

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

    def judge_capability(self, sweep: str, key: str, domains: Mapping[str, object]) -> Verdict:
        """Judge an evaluator's scores of a trial against its sweep's ceilings."""
        verdict: Verdict = self._ask("judge_capability", sweep, key, dict(domains))
        return verdict

    def attest(self, lease: int, fence: int, evaluated: Evaluated) -> None:
        """Write down what an evaluator found."""
        self._ask("attest", lease, fence, evaluated)

    def is_attested(self, sweep: str, record: str) -> bool:
        """Whether an evaluator has said this."""
        known: bool = self._ask("is_attested", sweep, record)
        return known

    def record_incident(self, sweep: str, key: str, rule: str, reason: str) -> None:
        """Write an incident into the audit."""
        self._ask("record_incident", sweep, key, rule, reason)

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

    def state(self, sweep: str) -> str:
        """Whether a sweep is open, frozen, closed or killed."""
        state: str = self._ask("state", sweep)
        return state

    def status(self, sweep: str) -> Status:
        """State and budgets of a sweep."""
        status: Status = self._ask("status", sweep)
        return status

    def sign_into(self, folders: Sequence[Path]) -> None:
        """Sign the audit into these folders of its host too; see `Office.sign_into`."""
        self._ask("sign_into", tuple(map(str, folders)))

    def ledger_url(self) -> str:
        """Which ledger the governor fronts."""
        url: str = self._ask("ledger_url")
        return url


def connect_to_any(
    ledger_url: str, *, state: Path | None = None, key: str = "", checkpoints: Sequence[Path] = ()
) -> GovernorClient:
    """As `connect`, to whichever ledger the cluster's governor keeps; to this one where there is none."""
    try:
        found, _ = _about(ray.get_actor(NAME, namespace=NAMESPACE))
    except ValueError:  # there is none
        found = ledger_url
    return connect(found, state=state, key=key, checkpoints=checkpoints)


def connect(
    ledger_url: str, *, state: Path | None = None, key: str = "", checkpoints: Sequence[Path] = ()
) -> GovernorClient:
    """The client of the cluster's governor, which is started where there is none.

    Args:
        ledger_url: the ledger that it must keep.
        state: folder for its key where the ledger is no file; beside a file it is the file's folder.
        key: its public key. Without it, that in the folder; where there is none, the first one that it shows
            is the one that all later answers must be signed with.
        checkpoints: folders of the governor's host that it signs the audit into from now on.

    Raises:
        LedgerError: the cluster's governor keeps another ledger, or it isn't the one that was signed.
        CheckpointError: one of these folders can't be written.
        GovernorUnreachable: it does not answer.
        IdentityError: it can't prove the key.
    """
    folder = state_folder(ledger_url, state or Path(RUNS).absolute())
    handle = governor_actor(ledger_url, str(folder))
    found, shown = _about(handle)
    if found != ledger_url:
        kept, wanted = without_password(found), without_password(ledger_url)
        raise LedgerError(f"this cluster's governor keeps the ledger {kept}, asked for was {wanted}")
    client = GovernorClient((ledger_url, str(folder)), key or public_in(folder) or shown, handle)
    client.ledger_url()
    if checkpoints:
        client.sign_into(checkpoints)
    return client


def _about(handle: Any) -> tuple[str, str]:
    try:
        url, public = ray.get(handle.about.remote(), timeout=START_SECONDS)
    except (AttributeError, TypeError, ValueError):
        raise IdentityError("another actor than a governor has the governor's name on this cluster") from None
    except RayError as error:
        line = str(error).splitlines()[0]
        raise GovernorUnreachable(f"the governor can't be reached: {line}") from None
    return str(url), str(public)
