"""What is kept of every candidate, and the tables made of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

RECORD = "record"


class Verdict:
    """How a candidate ended, as the tables name it."""

    MEASURED = "measured"
    STOPPED = "stopped early"
    REFUSED = "refused"
    FAILED = "failed"
    KNOWN = "known"
    CUT = "interrupted"
    EARLIER = "earlier run"
    MUTATED = "mutated"


def below(row: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """What stands in a flat row under a prefix, by the rest of its name."""
    return {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}


def record_of(trial: FrozenTrial) -> dict[str, Any]:
    """A candidate's record; a trial that was never told has been interrupted."""
    record: dict[str, Any] = dict(trial.user_attrs.get(RECORD, {}))
    if not record:
        record = {"verdict": Verdict.CUT, "config": trial.params}
    return {"number": trial.number, **record}


def frame(study: optuna.Study) -> pd.DataFrame:
    """All candidates of a study, one row each, in the order of their proposal.

    Columns: number, verdict, score, reports, seconds, params, forward_flops, memory_bytes, train_gflop
    (FLOPs may be beyond 64 bits), latency_ms, pareto (whether no measured candidate is better in every
    objective), one `score/DOMAIN` per domain, one `members/NAME` for each thing that is told of a candidate's
    members, one `config/NAME` per parameter, rule, reason, same_as, trial_id, baseline.
    """
    front = pareto_front(study)
    rows = [
        _row(record_of(trial)) | {"pareto": trial.number in front}
        for trial in study.get_trials(deepcopy=False)
    ]
    table = pd.DataFrame(rows, columns=_columns(rows))
    for name in table.columns:
        kinds = {type(value) for value in table[name].dropna()}
        if name.startswith("config/") and len(kinds) > 1 and not kinds <= {int, float}:
            table[name] = table[name].astype("string")  # a column holds one kind of value
    domains = {name: "float64" for name in table.columns if name.startswith("score/")}
    return table.astype(TYPES | domains).sort_values("number", ignore_index=True)


TYPES = {
    "number": "int64",
    "trial_id": "string",
    "verdict": "string",
    "score": "float64",
    "reports": "Int64",
    "seconds": "float64",
    "params": "Int64",
    "forward_flops": "Int64",
    "memory_bytes": "Int64",
    "train_gflop": "Int64",
    "latency_ms": "float64",
    "pareto": "bool",
    "rule": "string",
    "reason": "string",
    "same_as": "Int64",
    "baseline": "bool",
}


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    claim, flops = record.get("claim", {}), record.get("train_flops")
    row = {
        "number": record["number"],
        "trial_id": record.get("trial_id"),
        "verdict": record["verdict"],
        "score": record.get("score"),
        "reports": record.get("reports"),
        "seconds": record.get("seconds"),
        "params": claim.get("params"),
        "forward_flops": claim.get("forward_flops"),
        "memory_bytes": claim.get("memory_bytes"),
        "train_gflop": None if flops is None else -(-flops // 10**9),
        "latency_ms": record.get("latency_ms"),
        "rule": record.get("rule"),
        "reason": record.get("reason"),
        "same_as": record.get("same_as"),
        "baseline": bool(record.get("baseline")),
    }
    row |= {f"score/{name}": score for name, score in record.get("domains", {}).items()}
    row |= {f"members/{name}": value for name, value in record.get("members", {}).items()}
    return row | {f"config/{name}": value for name, value in record.get("config", {}).items()}


def _columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    names: dict[str, None] = dict.fromkeys(TYPES)
    for row in rows:
        names |= dict.fromkeys(row)
    return list(names)


def pareto_front(study: optuna.Study) -> set[int]:
    """Numbers of the measured candidates that no other one dominates; the best alone for one objective."""
    complete = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
    trained = (Verdict.MEASURED, Verdict.EARLIER)
    measured = {t.number for t in complete if record_of(t)["verdict"] in trained}
    return {trial.number for trial in study.best_trials} & measured if measured else set()


def best(study: optuna.Study) -> dict[str, Any] | None:
    """Record of the best candidate that was trained to the end; None where there is none."""
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
    run = [record_of(trial) for trial in complete]
    measured = [record for record in run if record["verdict"] == Verdict.MEASURED]
    return max(measured, key=lambda record: float(record["score"]), default=None)
