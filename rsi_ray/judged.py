"""An evaluation as it is written down: the evaluator's numbers, what they were denied for, what was false."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rsi_ray.durable import write_durably
from rsi_ray.evidence import Evidence, read_evidence
from safety import Allow, Deny, Verdict
from safety.evaluations import Evaluated


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What an evaluator says of a candidate.

    Attributes:
        evidence: its numbers.
        verdict: of the ceilings.
        discrepancy: in what was reported.
    """

    evidence: Evidence
    verdict: Verdict
    discrepancy: str

    @property
    def content(self) -> bytes:
        """All of it, as a file has it."""
        told = {"evidence": self.evidence.canonical.decode(), "discrepancy": self.discrepancy}
        if isinstance(self.verdict, Deny):
            # what only a sampler needs is left out
            told["denied"] = json.dumps(asdict(replace(self.verdict, excess={})))
        return json.dumps(told).encode()

    @property
    def evaluated(self) -> Evaluated:
        """The same as the ledger keeps it."""
        evidence = self.evidence
        return Evaluated(
            weights=evidence.weights,
            evidence=evidence.digest,
            record=hashlib.sha256(self.content).hexdigest(),
            score=evidence.own.score,
        )


def write_judged(path: Path, judged: Judged) -> None:
    """Write it down."""
    path.parent.mkdir(exist_ok=True)
    write_durably(path, judged.content)


def read_judged(path: Path, weights: str) -> Judged | None:
    """What was written of weights with this digest; None where nothing was, or of others."""
    try:
        told = json.loads(path.read_bytes())
        evidence = read_evidence(told["evidence"].encode())
        verdict = Deny(**json.loads(told["denied"])) if "denied" in told else Allow()
        judged = Judged(evidence=evidence, verdict=verdict, discrepancy=told["discrepancy"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return judged if evidence.weights == weights else None
