"""Runs on disk: a folder for each, with what it takes to train any of its candidates again."""

from __future__ import annotations

import itertools
import json
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rsi_ray.config import SweepConfig, job_of, limits_of, parse_config
from rsi_ray.records import Verdict, record_of
from rsi_ray.sampling import SAMPLERS, read_study
from rsi_ray.sweep import RUN_FILE, STUDY_FILE, Sweep, SweepError, check_sweep
from safety import Document, Ledger, LedgerError
from search_spaces.given_trial import spec_from

LEDGER_FILE = "ledger.db"
LIBRARIES = ("rsi-ray", "torch", "ray", "optuna", "numpy")


class RunError(Exception):
    """A run or a trial that was asked for isn't there; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class StoredTrial:
    """A candidate of a run, as it was recorded.

    Attributes:
        run: name of the run.
        config: the run's configuration.
        about: versions and data of the run.
        record: of the candidate.
    """

    run: str
    config: SweepConfig
    about: dict[str, Any]
    record: dict[str, Any]


def new_run(config: SweepConfig, now: Callable[[], time.struct_time] = time.localtime) -> Sweep:
    """Make a sweep of a configuration that can run, in a new folder of its own.

    Raises:
        SweepError: it can't run; no folder is made.
    """
    storage = Path(config.storage).resolve()
    sweep = _sweep(config, storage)
    check_sweep(sweep)
    try:
        Ledger(sweep.ledger_url).close()
    except LedgerError as error:
        raise SweepError(str(error)) from None
    folder = _new_folder(storage, f"{config.name}-{time.strftime('%Y%m%d-%H%M%S', now())}")
    return replace(sweep, name=folder.name, folder=folder)


def _sweep(config: SweepConfig, storage: Path) -> Sweep:
    job = job_of(config)
    baseline = None if config.baseline is None else spec_from(job.space, config.baseline)[1]
    asha = config.scheduler
    return Sweep(
        name=config.name,
        folder=storage / config.name,
        ledger_url=config.ledger or f"sqlite:///{storage / LEDGER_FILE}",
        limits=limits_of(config),
        space=job.space,
        job=job,
        sampler=SAMPLERS[config.sampler](config.seed),
        reports=config.training.epochs,
        trials=config.trials,
        baseline=baseline,
        early_stopping=(asha.grace_period, asha.reduction_factor) if asha.kind == "asha" else None,
        concurrent=config.concurrent,
        cpus=config.resources.cpu,
        gpus=config.resources.gpu,
        keep_weights=config.keep_weights,
        seed=config.seed,
        about={
            "config": config.model_dump(mode="json"),
            "ledger": config.ledger or f"sqlite:///{storage / LEDGER_FILE}",
            **circumstances(job.load_task().digest),
        },
    )


def _new_folder(storage: Path, name: str) -> Path:
    for free in itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2))):
        with suppress(FileExistsError):  # of a run that began in the same second
            (storage / free).mkdir(parents=True)
            return storage / free
    raise RunError(f"storage {storage}: no name is free")


def circumstances(data: str) -> dict[str, Any]:
    """What a score depends on besides configuration and seed: versions of libraries, and the data."""
    return {
        "data": data,
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def find_trial(storage: Path, trial: str) -> StoredTrial:
    """A candidate by `RUN/NUMBER`, or by the NUMBER it has in the latest run.

    Raises:
        RunError: there is no such run or trial, or it was never trained.
    """
    name, _, number = trial.rpartition("/")
    if not number.isdecimal():
        raise RunError(f"trial {trial!r}: expected RUN/NUMBER or NUMBER")
    folder = storage / name if name else _latest(storage)
    if not (folder / RUN_FILE).is_file():
        raise RunError(f"run {folder}: no {RUN_FILE} there; expected a folder that `rsi-ray run` made")
    about = json.loads((folder / RUN_FILE).read_text())
    if not (folder / STUDY_FILE).is_file():
        raise RunError(f"run {folder}: no {STUDY_FILE} there, it never began")
    study = read_study(folder / STUDY_FILE, folder.name)
    records = {str(found.number): record_of(found) for found in study.get_trials(deepcopy=False)}
    if number not in records:
        raise RunError(f"trial {trial!r}: the run {folder.name} has trials 0 to {len(records) - 1}")
    record = records[number]
    if record["verdict"] == Verdict.KNOWN:
        record = records[str(record["same_as"])]
    if "score" not in record:
        raise RunError(f"trial {trial!r}: it has no score to compare with, it was {record['verdict']}")
    config = parse_config(Document(source=str(folder / RUN_FILE), data=about["config"]))
    return StoredTrial(run=folder.name, config=config, about=about, record=record)


def _latest(storage: Path) -> Path:
    runs = sorted(storage.glob(f"*/{RUN_FILE}"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise RunError(f"storage {storage}: no runs there")
    return runs[-1].parent
