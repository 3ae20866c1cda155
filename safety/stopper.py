"""Ray shell of the judge of reports: a stopper."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any

from ray.tune.stopper import Stopper

from safety.claim import Usage
from safety.governance import REFUSED, Governance, Metric, report_of
from safety.rules import Report
from safety.verdict import Allow, Deny

PULSE_SECONDS = 1.0

logger = logging.getLogger(__name__)


class GovernedStopper(Stopper):
    """Judges every report, and ends the sweep when it is frozen or somebody asks for it.

    Args:
        governance: governor, sweep and price.
        metric: what is optimized; several names, or None for nothing.
    """

    def __init__(self, governance: Governance, metric: Metric) -> None:
        self._governance = governance
        self._metric = metric
        self._pulsed = -PULSE_SECONDS
        # the last result of each trial, as an object: Tune gives it again when a function has returned
        self._judged: dict[str, dict[str, Any]] = {}
        # how many reports of each trial were heard under the lease that it has now
        self._counted: dict[str, Usage] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the wiring, not the history: the clock of the last pulse may be another host's."""
        return {**self.__dict__, "_pulsed": -PULSE_SECONDS, "_judged": {}, "_counted": {}}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether to stop this trial."""
        if REFUSED in result:
            return True  # by gate 3, which recorded why
        if self._judged.get(trial_id) is result:
            return False
        self._judged[trial_id] = result
        key = self._governance.key(trial_id)
        try:
            report = self._numbered(trial_id, report_of(result, self._metric))
            self._governance.heard.usage[key] = report.usage
            verdict = self._governance.authority.report(key, report)
        except Exception as error:  # whatever it is: what can't be judged doesn't go on
            logger.error("%s: stopped, its report could not be judged: %s", key, error)
            verdict = Deny("unjudged", f"its report could not be judged: {error}")
        if isinstance(verdict, Allow):
            return False
        # a hold stops it as well: nobody can decide on it while it trains
        denial = verdict if isinstance(verdict, Deny) else Deny(verdict.rule, verdict.reason)
        self._governance.heard.denied[key] = denial
        del self._judged[trial_id]  # whoever gives it again is denied again
        return True

    def _numbered(self, trial_id: str, report: Report) -> Report:
        """A report as the next of its lease, whatever its worker says of their number."""
        counted = self._counted.get(trial_id, Usage())
        made = counted.reports + 1 if counted.lease == report.usage.lease else 1
        self._counted[trial_id] = Usage(lease=report.usage.lease, reports=made)
        return replace(report, number=made)

    def stop_all(self) -> bool:
        """Whether to stop the sweep; asks the governor at most once a second."""
        if self._governance.stop_asked():
            return True
        now = time.monotonic()
        if now - self._pulsed < PULSE_SECONDS:
            return False
        self._pulsed = now
        return self._governance.authority.pulse(self._governance.sweep) != "open"
