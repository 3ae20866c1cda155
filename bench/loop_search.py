"""The loop's generations in one process: what `rsi-ray run` computes, without Ray, the ledger and people."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.schedulers import TrialScheduler
from ray.tune.schedulers.async_hyperband import _Bracket

from bench.flops_curve import Curve
from rsi_ray.api import Sweep
from rsi_ray.evaluation import evaluate_weights
from rsi_ray.heritage import Parent
from rsi_ray.loop import Standing
from rsi_ray.plan import judge_config
from rsi_ray.samplers import sampler_of
from rsi_ray.search_engine import ArchitectureSearchEngine
from rsi_ray.training import Training
from rsi_ray.training_job import TrainingJob
from rsi_ray.training_run import TrainingRun
from safety import Allow, artifact_digest
from search_spaces.given_trial import spec_from

REDUCTION_FACTOR = 3


@dataclass(frozen=True, kw_only=True)
class Course:
    """How the children of a generation are trained.

    Attributes:
        inherits: whether they begin with the champion's weights. Those that don't are trained for as many
            epochs as a child that does has had, its ancestors' included.
        base_epochs: of the base model; a child that inherits has those of the sweep.
    """

    inherits: bool
    base_epochs: int


@dataclass(frozen=True, kw_only=True)
class Champion:
    """A champion: how the loop knows it, its weights, and what all its training took."""

    standing: Standing
    parent: Parent
    epochs: int


class LoopSearch:
    """Generation after generation, each promoting its best where the sealed part says so.

    Args:
        sweep: what a generation's sweep is like.
        course: how children are trained.
        base: parameters of the base model.
        folder: for weights.
    """

    def __init__(self, sweep: Sweep, course: Course, base: Mapping[str, Any], folder: Path) -> None:
        self.curve, self.champions = Curve(), 0
        self._sweep, self._course, self._folder = sweep, course, folder
        self._engine = ArchitectureSearchEngine(sweep=sweep, run="loop", train_on=True)
        self._learned = folder / "learned.safetensors"
        job: TrainingJob = replace(sweep, training=replace(sweep.training, epochs=course.base_epochs)).job()
        config = dict(spec_from(job, base)[1])
        run, _ = self._trained(job, config, None, None)
        self._champion = self._standing(job, config, run, 0)

    def generation(self, number: int) -> None:
        """Train a generation's candidates; the best follows the champion if it is better by enough."""
        parent = self._champion.parent if self._course.inherits else None
        sweep = self._engine.generation_sweep(number, parent)
        sweep = replace(sweep, training=self._training())
        finished = sorted(self._candidates(sweep, number), key=lambda found: -found[0])
        if not finished:
            return
        _, config, run = finished[0]
        job: TrainingJob = sweep.job()
        wanted = self._standing(job, config, run, number)
        old, least = self._champion.standing.score, sweep.checked_limits().min_improvement
        if wanted.standing.score >= old * (1 + least):
            self._champion, self.champions = wanted, self.champions + 1

    def _training(self) -> Training:
        given = self._sweep.training
        if self._course.inherits:
            return given
        return replace(given, epochs=self._champion.epochs + given.epochs)

    def _candidates(
        self, sweep: Sweep, number: int
    ) -> Iterator[tuple[float, Mapping[str, Any], TrainingRun]]:
        """Those of a generation that were trained to their end, with their scores on the hold-out."""
        job: TrainingJob = sweep.job()
        sampler: Any = sampler_of(str(sweep.sampler), sweep.seed)
        if self._learned.is_file():
            sampler.inner.load(self._learned)
        study = optuna.create_study(sampler=sampler, direction="maximize")
        drafts = self._engine.drafts(self._champion.standing, number, sweep.parent)
        for config in self._engine.first(sweep.parent, drafts):
            study.enqueue_trial(dict(config))
        rungs = _Bracket(1, job.training.epochs, REDUCTION_FACTOR, 0)
        for trial in self._admitted(study, sweep, job):
            run, score = self._trained(job, trial.params, trial, rungs)
            if run:
                yield score, trial.params, run
        sampler.inner.save(self._learned)

    def _admitted(self, study: optuna.Study, sweep: Sweep, job: TrainingJob) -> Iterator[optuna.Trial]:
        """So many trials as a generation has; what is over a ceiling is told, and none of them."""
        limits, left = sweep.checked_limits(), sweep.trials
        while left:
            trial = study.ask()
            job.suggest(trial)
            verdict = judge_config(limits, job, trial.params)
            if isinstance(verdict, Allow):
                left -= 1
                yield trial
                continue
            for name, over in getattr(verdict, "excess", {}).items():
                trial.set_constraint(name, over)
            study.tell(trial, state=TrialState.PRUNED)

    def _trained(
        self,
        job: TrainingJob,
        config: Mapping[str, Any],
        trial: optuna.Trial | None,
        rungs: _Bracket | None,
    ) -> tuple[TrainingRun | None, float]:
        """Train a candidate until its end, or until ASHA stops it; no run then."""
        run, claim, name = job.begin(config), job.price(config), _named(str(id(trial)))
        flops, score = claim.train_flops // claim.reports, 0.0
        for epoch in range(1, claim.reports + 1):
            began = time.perf_counter()
            score = float(str(run.next_report()["score"]))
            path = claim.ancestor_flops + epoch * flops
            self.curve.add(score, flops, path, time.perf_counter() - began)
            if trial:
                trial.report(score, epoch)
            stops = rungs and rungs.on_result(name, epoch, score) == TrialScheduler.STOP
            if trial and stops and epoch < claim.reports:
                trial.study.tell(trial, state=TrialState.PRUNED)
                return None, score
        if trial:
            trial.study.tell(trial, score)
        return run, score

    def _standing(
        self, job: TrainingJob, config: Mapping[str, Any], run: TrainingRun | None, number: int
    ) -> Champion:
        """A candidate as a champion, scored on the sealed part."""
        if run is None:
            raise ValueError("expected a candidate that was trained to its end")
        path = self._folder / f"{number}-{random.getrandbits(64):x}.safetensors"
        run.export(path)
        digest, claim = artifact_digest(path), job.price(config)
        score = evaluate_weights(job, config, path, digest=digest).score
        total, spec = claim.train_flops + claim.ancestor_flops, job.candidate(config).spec
        before = self._champion.epochs if self._course.inherits and number else 0
        return Champion(
            standing=Standing(generation=number, artifact=digest, score=score, config=config),
            parent=Parent(weights=path, artifact=digest, config=config, spec=spec, train_flops=total),
            epochs=before + job.training.epochs,
        )


def _named(trial_id: str) -> Any:
    """As much of a trial of Tune as ASHA's brackets look at."""
    return SimpleNamespace(trial_id=trial_id)
