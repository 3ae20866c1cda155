"""What a sweep holds on disk: its study, the weights that are kept, and how much all of it takes."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from rsi_ray.errors import ArtifactStoreError, SweepError
from rsi_ray.plan import Plan
from rsi_ray.records import Verdict, frame, record_of
from rsi_ray.states import kept_in, remove
from rsi_ray.study import open_study, take_up, unended_digests
from safety import request_digest

RUN_FILE = "run.json"
STUDY_FILE = "study.log"
LOCK_FILE = "run.lock"
WEIGHTS = "weights"
STATES = "states"
TUNE = "tune"


@contextmanager
def open_folder(plan: Plan) -> Iterator[tuple[optuna.Study, list[FrozenTrial]]]:
    """Open a sweep's folder for this process alone: its study, and what a resumed run left in the middle.

    Raises:
        SweepError: it holds a run that isn't resumed, or another process runs it.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    known = (plan.folder / RUN_FILE).exists()
    if known and not plan.resumed:
        raise SweepError(f"folder {plan.folder}: holds a run already")
    with _locked(plan.folder / LOCK_FILE):
        if not known:
            governed = {"ledger": plan.ledger_url, "governor_key": plan.governor_key, "sweep": plan.sweep}
            told = {**plan.about, **governed, "enqueued": list(plan.enqueued)}
            partial = plan.folder / f"{RUN_FILE}.partial"
            partial.write_text(json.dumps(told, indent=2))
            partial.replace(plan.folder / RUN_FILE)
        study = open_study(plan.folder / STUDY_FILE, plan.name, plan.sampler, plan.objectives)
        interrupted = take_up(study, plan.objectives)
        # of a run before: what is in it is in the study
        shutil.rmtree(plan.folder / TUNE, ignore_errors=True)
        if plan.stored:
            with suppress(ArtifactStoreError):
                plan.stored.at(TUNE).remove_all()
        _tell_earlier(study, plan)
        yield study, interrupted


def _tell_earlier(study: optuna.Study, plan: Plan) -> None:
    told = {
        request_digest(record["config"])
        for record in map(record_of, study.get_trials(deepcopy=False))
        if record["verdict"] == Verdict.EARLIER
    }
    study.add_trials(trial for trial in plan.earlier if request_digest(trial.params) not in told)


@contextmanager
def nothing_empty(folder: Path) -> Iterator[None]:
    """Leave no empty folder of a run that never began."""
    try:
        yield
    finally:
        with suppress(OSError):  # it holds something
            folder.rmdir()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process, however it ends."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SweepError(f"run {path.parent}: another process runs it") from None
        yield


def prune_weights(plan: Plan, study: optuna.Study, live: Collection[str] = ()) -> None:
    """Keep the weights of the best candidates, of the Pareto front, and of what is live, only."""
    kept = kept_trials(plan, study)
    for path in (plan.folder / WEIGHTS).glob("*"):
        whole = path.suffix == ".safetensors" and path.stem in kept
        if not whole and path.stem not in live:
            path.unlink()


def kept_trials(plan: Plan, study: optuna.Study) -> set[str]:
    """Ids of the candidates whose weights are kept: the best, and those of the Pareto front."""
    table = frame(study)
    measured = table[table["verdict"] == Verdict.MEASURED]
    kept = set(measured.nlargest(plan.keep_weights, "score")["trial_id"])
    if len(plan.objectives) > 1:
        kept |= set(measured[measured["pareto"]]["trial_id"])
    return kept


def prune_states(plan: Plan, study: optuna.Study, live: Collection[str] = ()) -> None:
    """Keep the states of candidates that have not ended: whoever trains them next goes on from there.

    Args:
        plan: of the sweep.
        study: its candidates.
        live: digests of the configurations that are in training.
    """
    place, unended = plan.kept_in(STATES), unended_digests(study) | set(live)
    with suppress(ArtifactStoreError):  # the next time
        for kept in kept_in(place):
            if kept.digest not in unended:
                remove(place, kept)
    with suppress(OSError):  # there is none, or it holds something
        (plan.folder / STATES).rmdir()


def bytes_of_checkpoints(folder: Path) -> int:
    """Bytes of everything that Tune and the workers have written for a sweep."""
    total = 0
    for part in (folder / TUNE, folder / WEIGHTS, folder / STATES):
        for path in part.rglob("*"):
            with suppress(FileNotFoundError):  # removed meanwhile
                total += path.stat().st_size if path.is_file() else 0
    return total
