"""What is allowed: limits, verdicts, the ledger and the governor of a cluster.

`govern` puts any Tuner of Ray Tune under limits. Importing this package needs no Ray: what does, is loaded
when it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from safety.approval import Act, Champion, Decision
from safety.artifact import artifact_digest, check_plain_file, read_artifact, read_plain_file, same_artifact
from safety.budgets import Budget
from safety.champions import Promoted
from safety.claim import Claim, Measured, Usage
from safety.clock import Clock, system_clock
from safety.document import Document, StrictModel, read_yaml, validate
from safety.emergency import Incident
from safety.errors import (
    ApprovalMissing,
    ApprovalRefused,
    ArtifactError,
    DocumentError,
    GovernorUnreachable,
    KeyReused,
    LeaseLost,
    LedgerError,
    LooserLimits,
    PriceError,
    SafetyError,
    SearchExhausted,
)
from safety.governor import Authority, Governor, Status
from safety.improvement import Promotion, improvement, judge_promotion, max_improvement_rate
from safety.keeper import LeaseKeeper, Switch
from safety.kernel import KernelTimer
from safety.lease import Grant, Lease, Request, request_digest
from safety.ledger import Ledger
from safety.limits import Approval, Bounds, Budgets, Limits, limits_from_dict, limits_from_yaml
from safety.proximity import Nearness, proximity
from safety.rules import Report, judge, judge_capability, judge_claim, judge_report
from safety.tightening import looser_fields, tightest
from safety.verdict import Allow, Deny, Hold, Verdict
from safety.versions import Version

if TYPE_CHECKING:
    from safety.tuner import govern

__all__ = [
    "Act",
    "Allow",
    "Approval",
    "ApprovalMissing",
    "ApprovalRefused",
    "ArtifactError",
    "Authority",
    "Bounds",
    "Budget",
    "Budgets",
    "Champion",
    "Claim",
    "Clock",
    "Decision",
    "Deny",
    "Document",
    "DocumentError",
    "Governor",
    "GovernorUnreachable",
    "Grant",
    "Hold",
    "Incident",
    "KernelTimer",
    "KeyReused",
    "Lease",
    "LeaseKeeper",
    "LeaseLost",
    "Ledger",
    "LedgerError",
    "Limits",
    "LooserLimits",
    "Measured",
    "Nearness",
    "PriceError",
    "Promoted",
    "Promotion",
    "Report",
    "Request",
    "SafetyError",
    "SearchExhausted",
    "Status",
    "StrictModel",
    "Switch",
    "Usage",
    "Verdict",
    "Version",
    "artifact_digest",
    "check_plain_file",
    "govern",
    "improvement",
    "judge",
    "judge_capability",
    "judge_claim",
    "judge_promotion",
    "judge_report",
    "limits_from_dict",
    "limits_from_yaml",
    "looser_fields",
    "max_improvement_rate",
    "proximity",
    "read_artifact",
    "read_plain_file",
    "read_yaml",
    "request_digest",
    "same_artifact",
    "system_clock",
    "tightest",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name == "govern":
        return import_module("safety.tuner").govern
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
