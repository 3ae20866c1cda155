"""The Tune plugins under one name: gates 1 and 2, and the judge of reports.

A plugin that Tune restores comes back as it was pickled; so none holds a limit or a history of its own.
"""

from safety.governance import Governance, Price, lease_of, report_of, usage_of
from safety.scheduler import GovernedScheduler
from safety.search import GovernedSearch
from safety.stopper import GovernedStopper

__all__ = [
    "Governance",
    "GovernedScheduler",
    "GovernedSearch",
    "GovernedStopper",
    "Price",
    "lease_of",
    "report_of",
    "usage_of",
]
