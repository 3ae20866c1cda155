"""Runs on disk: a folder for each, with what it takes to train any of its candidates again."""

from __future__ import annotations

import itertools
import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from rsi_ray.disk import RUN_FILE, STUDY_FILE
from rsi_ray.errors import RunError, SweepError
from rsi_ray.ledgers import sqlite_path
from rsi_ray.plan import Plan, check_plan, judge_config
from rsi_ray.records import Verdict, record_of
from rsi_ray.study import earlier_trials, fits, read_study, was_trained
from rsi_ray.versions import libraries_here
from safety import Allow, Ledger, LedgerError
from search_spaces.space import Suggests

# in what a run writes down of itself: the folder of its file
BESIDE = "beside"
# what a run's scores depend on beside the space
SAME_AS_BEFORE = ("data", "objectives", "training", "hyperparameters", "seed")


@dataclass(frozen=True, kw_only=True)
class StoredTrial:
    """A candidate of a run, as it was recorded.

    Attributes:
        folder: of the run.
        about: versions and data of the run.
        record: of the candidate.
    """

    folder: Path
    about: dict[str, Any]
    record: dict[str, Any]

    @property
    def run(self) -> str:
        """Name of the run."""
        return self.folder.name


def new_run(plan: Plan, now: time.struct_time) -> Plan:
    """Give a plan that can run a new folder of its own.

    Raises:
        SweepError: it can't run; no folder is made.
    """
    check_plan(plan)
    _check_ledger(plan.ledger_url)
    folder = new_folder(plan.folder.parent, plan.name, now)
    return replace(plan, name=folder.name, folder=folder)


def named_run(plan: Plan, name: str, sweep: str) -> Plan:
    """A plan for the run of this very name, under a sweep that runs share; one that began goes on.

    Raises:
        SweepError: it can't run, or what began under this name was another sweep's.
    """
    folder = plan.folder.parent / name
    if (folder / RUN_FILE).is_file():
        return old_run(plan, name)
    check_plan(plan)
    _check_ledger(plan.ledger_url)
    folder.mkdir(parents=True, exist_ok=True)
    return replace(plan, name=name, folder=folder, sweep=sweep)


def old_run(plan: Plan, run: str | Path) -> Plan:
    """A plan that goes on with a run that was stopped; the ledger and what was trained stay.

    Raises:
        RunError: there is no such run.
        SweepError: it is a run of another space, or it can't run any more.
    """
    folder = run_folder(plan.folder.parent, run)
    about = read_about(folder)
    trials = _trials_of(folder)
    for name in SAME_AS_BEFORE:
        if about.get(name) != plan.about.get(name):
            raise SweepError(
                f"run {folder.name}: its {name} was {about.get(name)}, and is {plan.about.get(name)} now; "
                "scores of both can't be compared"
            )
    for trial in trials:
        config = record_of(trial).get("config")  # of one that waits there is none yet
        if config and not fits(plan.space, config):
            raise SweepError(f"run {folder.name}: trial {trial.number} is no candidate of this sweep's space")
    check_plan(plan)
    sweep = str(about.get("sweep", ""))
    _check_ledger(about["ledger"], knows=sweep or folder.name if any(map(was_trained, trials)) else "")
    return replace(
        plan,
        name=folder.name,
        folder=folder,
        sweep=sweep,
        ledger_url=about["ledger"],
        ledger_named=True,
        governor_key=about.get("governor_key", ""),
        resumed=True,
        enqueued=(*_enqueued(plan, about), *plan.enqueued),
    )


def _trials_of(folder: Path) -> list[FrozenTrial]:
    """Of a run that is gone on with; none where its process died before there was a study."""
    with suppress(FileNotFoundError), (folder / STUDY_FILE).open("rb") as file:
        if file.readline().endswith(b"\n"):
            return study_of_run(folder).get_trials(deepcopy=False)
    return []


def _enqueued(plan: Plan, about: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What a run was to train first, without what is over ceilings that were tightened since."""
    for config in about.get("enqueued", ()):
        if isinstance(judge_config(plan.limits, plan.job, config), Allow):
            yield config


def earlier_of(
    known: str | Path | optuna.Study | None, storage: Path, space: Suggests[Any], objectives: Sequence[str]
) -> tuple[FrozenTrial, ...]:
    """What a sampler is told of an earlier run or study; nothing where none is named.

    Raises:
        RunError: there is no such run.
        SweepError: nothing in it fits.
    """
    if known is None:
        return ()
    study = known if isinstance(known, optuna.Study) else study_of_run(run_folder(storage, known))
    found = earlier_trials(study, space, objectives)
    if not found:
        raise SweepError(f"warm_start: of {len(study.trials)} trials none was measured and fits this space")
    return found


def _check_ledger(url: str, *, knows: str = "") -> None:
    """Open the ledger once; of a run that is resumed it must know what was spent."""
    path = sqlite_path(url)
    if knows and path is not None and not path.exists():
        raise SweepError(f"run {knows}: its ledger {path} is gone; its budgets would start anew")
    try:
        ledger = Ledger(url)
        if knows:
            ledger.sweep(knows)
        ledger.close()
    except LedgerError as error:
        raise SweepError(str(error)) from None


def run_folder(storage: Path, run: str | Path, file: str = RUN_FILE) -> Path:
    """Folder of a run that has this file: a path, or its name in the storage.

    Raises:
        RunError: there is no run.
    """
    for folder in (storage / run, Path(run)):
        with suppress(OSError):  # a name that no folder can have
            if (folder / file).is_file():
                return folder.resolve()
    raise RunError(f"run {storage / run}: no {file} there; expected a folder that a run made")


def is_run(storage: Path, run: str | Path, file: str) -> bool:
    """Whether there is a folder of a run that has this file."""
    try:
        run_folder(storage, run, file)
    except RunError:
        return False
    return True


def read_about(folder: Path, file: str = RUN_FILE) -> dict[str, Any]:
    """What a run wrote down of itself in a file of its folder.

    Raises:
        RunError: it can't be read.
    """
    try:
        about: dict[str, Any] = json.loads((folder / file).read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"run {folder}: its {file} can't be read: {error}") from None
    return about


def told_config(folder: Path, file: str = RUN_FILE) -> Any:
    """The configuration that a run wrote down; paths beside its file begin here where that folder is gone.

    Raises:
        RunError: it was made in Python, with objects of its own.
    """
    about = read_about(folder, file)
    if "config" not in about:
        raise RunError(
            f"run {folder.name}: made in Python with objects of its own; "
            "use run(resume=...) or replay(...) of the same Sweep"
        )
    beside = str(about.get(BESIDE) or "")
    # a job's folder is called by what is in it
    is_gone = beside and not Path(beside).is_dir()
    return _moved(about["config"], f"{beside}/", f"{Path.cwd()}/") if is_gone else about["config"]


def _moved(value: Any, old: str, new: str) -> Any:
    """The value, whose strings that begin with the one folder begin with the other."""
    if isinstance(value, str):
        return new + value[len(old) :] if value.startswith(old) else value
    if isinstance(value, Mapping):
        return {name: _moved(one, old, new) for name, one in value.items()}
    return [_moved(one, old, new) for one in value] if isinstance(value, list) else value


def versions_of_run(storage: Path, name: str) -> dict[str, str]:
    """Versions that a run wrote down when it began; none where it can't be read."""
    if Path(name).name != name:  # a name from a ledger may be anything
        return {}
    try:
        about = read_about(storage / name)
        return {"python": str(about["python"]), **{lib: str(v) for lib, v in about["libraries"].items()}}
    except (RunError, KeyError, AttributeError, TypeError):
        return {}


def study_of_run(folder: Path) -> optuna.Study:
    """The study of a run.

    Raises:
        RunError: it never began.
    """
    if not (folder / STUDY_FILE).is_file():
        raise RunError(f"run {folder}: no {STUDY_FILE} there, it never began")
    try:
        return read_study(folder / STUDY_FILE, folder.name)
    except KeyError:
        raise RunError(f"run {folder}: its {STUDY_FILE} is of another run; was the folder renamed?") from None


def new_folder(storage: Path, name: str, now: time.struct_time) -> Path:
    """A new folder in the storage, of this name and the time."""
    name = f"{name}-{time.strftime('%Y%m%d-%H%M%S', now)}"
    for free in itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2))):
        with suppress(FileExistsError):  # of a run that began in the same second
            (storage / free).mkdir(parents=True)
            return storage / free
    raise RunError(f"storage {storage}: no name is free")


def circumstances(data: str) -> dict[str, Any]:
    """What a score depends on besides configuration and seed: versions of libraries, and the data."""
    return {"data": data, "python": platform.python_version(), "libraries": libraries_here()}


def find_trial(storage: Path, trial: str) -> StoredTrial:
    """A candidate by `RUN/NUMBER`, or by the NUMBER it has in the latest run.

    Raises:
        RunError: there is no such run or trial, or it was never trained.
    """
    name, _, number = trial.rpartition("/")
    if not number.isdecimal():
        raise RunError(f"trial {trial!r}: expected RUN/NUMBER or NUMBER")
    folder = run_folder(storage, name) if name else _latest(storage)
    study = study_of_run(folder)
    records = {str(found.number): record_of(found) for found in study.get_trials(deepcopy=False)}
    if number not in records:
        raise RunError(f"trial {trial!r}: the run {folder.name} has trials 0 to {len(records) - 1}")
    record = records[number]
    if record["verdict"] == Verdict.KNOWN:
        record = records[str(record["same_as"])]
    if "score" not in record:
        raise RunError(f"trial {trial!r}: it has no score to compare with, it was {record['verdict']}")
    if record["verdict"] == Verdict.EARLIER:
        raise RunError(f"trial {trial!r}: it was told, not trained in this run")
    if "proposed" in record:
        raise RunError(f"trial {trial!r}: its hyperparameters were changed while it was trained")
    return StoredTrial(folder=folder, about=read_about(folder), record=record)


def _latest(storage: Path) -> Path:
    runs = sorted(storage.glob(f"*/{RUN_FILE}"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise RunError(f"storage {storage}: no runs there")
    return runs[-1].parent
