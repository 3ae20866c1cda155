"""The worker's side of one trial after another: its lease, what it used, what it built."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from safety.claim import Measured, Usage
from safety.errors import LeaseLost, SafetyError
from safety.governance import REFUSED, told
from safety.governor import Authority
from safety.keeper import LeaseKeeper
from safety.lease import Grant
from safety.meter import Counted, Meter


class Tenure:
    """Holds the lease of the trial that this process runs; none where it was refused.

    Args:
        authority: who grants leases.
        keeper: renews them.
        meter: counts the models that run; None for nobody.
    """

    def __init__(self, authority: Authority, keeper: LeaseKeeper, meter: Meter | None) -> None:
        self._authority = authority
        self._keeper = keeper
        self._meter = meter
        self._refusal = ""
        self._reports = 0
        self._grant: Grant | None = None

    def begin(self, key: str, digest: str, holder: str) -> None:
        """Take the lease of a trial; the one before is over. Its meter begins anew.

        Raises:
            LeaseLost: the authority refuses.
        """
        self.end()
        try:
            self._grant = self._keeper.begin(key, digest, holder, None)
        except LeaseLost as error:
            self._refusal = str(error)
            raise
        if self._meter:
            self._meter.begin(self.judge)

    @property
    def has_begun(self) -> bool:
        """Whether a trial holds a lease, or was refused one."""
        return self._grant is not None or bool(self._refusal)

    def judge(self, counted: Counted) -> None:
        """Ask whether what was built may run.

        Raises:
            LeaseLost: it may not, and nothing else of this trial may.
        """
        grant = self._required_grant()
        measured = Measured(params=counted.params, forward_flops=counted.forward_flops, reason=counted.reason)
        try:
            self._authority.confirm(grant.lease, grant.fence, measured)
        except SafetyError as error:  # silence refuses as well
            self._refusal = str(error)
            raise LeaseLost(self._refusal) from None

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Compute under the lease; a refusal within, whoever caught it, is a refusal.

        Raises:
            LeaseLost: no lease is held, or what was built is refused.
        """
        self._required_grant()
        try:
            with self._keeper.computing():
                yield
        except Exception:
            self._required_grant()
            raise
        self._required_grant()

    def _required_grant(self) -> Grant:
        if self._grant is None or self._refusal:
            raise LeaseLost(self._refusal or "no lease is held")
        return self._grant

    def counted_report(self) -> dict[str, Any]:
        """The lease, after one more report, as a result tells it."""
        self._reports += 1
        grant = self._required_grant()
        return told(grant, grant.used(reports=self._reports, elapsed_ms=self._keeper.elapsed_ms()))

    def refused(self, error: LeaseLost) -> dict[str, Any]:
        """A result that ends a trial which was refused; the report under way counts."""
        self._refusal = self._refusal or str(error)
        lease = told(self._grant, self._cut_short(self._grant)) if self._grant else {}
        self._keeper.end()
        return {"done": True, REFUSED: self._refusal, **lease}

    def _cut_short(self, grant: Grant) -> Usage:
        reports = grant.next_report(self._reports)
        return grant.used(reports=reports, elapsed_ms=self._keeper.elapsed_ms())

    def settle_cut_short(self) -> None:
        """Settle what ends between two reports: up to the next one, since what it computed is not known."""
        if self._grant is None:
            return
        usage = self._cut_short(self._grant)
        with suppress(SafetyError):  # unsettled, its hold is spent in the end
            self._authority.settle(self._grant.lease, self._grant.fence, usage)
        self.end()

    def end(self) -> None:
        """Renew no more; this process may live on."""
        self._keeper.end()
        self._grant, self._refusal, self._reports = None, "", 0

    def leave(self) -> None:
        """Renew no more; this process has nothing more to do."""
        self.end()
        self._keeper.leave()
