"""A cluster in one process: the real rules and ledger, driven by simulated drivers and workers."""

from safety.simulation.rehearsal import Outcome, Plan, rehearse
from safety.simulation.scenarios import SCENARIOS, Scenario

__all__ = ["SCENARIOS", "Outcome", "Plan", "Scenario", "rehearse"]
