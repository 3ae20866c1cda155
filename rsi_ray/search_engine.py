"""One generation's search: candidates around the champion and beyond it, then what a sampler proposes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, Protocol

from rsi_ray.api import Sweep
from rsi_ray.artifact_store import ArtifactStore
from rsi_ray.disk import RUN_FILE, WEIGHTS
from rsi_ray.durable import write_durably
from rsi_ray.examination import smallest_gpu
from rsi_ray.heritage import Parent
from rsi_ray.loop import Found, Searched, Standing
from rsi_ray.neighbours import neighbours
from rsi_ray.observer import Watch
from rsi_ray.plan import Plan, judge_config
from rsi_ray.records import Verdict, record_of
from rsi_ray.runs import is_run, run_folder, study_of_run
from rsi_ray.stored_weights import SUFFIX
from rsi_ray.sweep import run_sweep
from rsi_ray.training_job import TrainingJob
from rsi_ray.trial_resources import known_gpu_memory
from safety import Allow, Claim, judge_claim, limits_from_dict
from search_spaces.given_trial import spec_from
from search_spaces.growth import relation

# in the storage: what samplers have learned of each lineage
LEARNED = "learned"
# in the folder of a generation's run: what its sampler had learned as it began, for whoever goes on with it
BEFORE = "learned_before.safetensors"
# of a generation's candidates, those that are around or beyond the champion; the sampler proposes the rest
SHARE_NEAR = 0.5


class Learner(Protocol):
    """A sampler that carries what it learned into the next generation, and the next run."""

    def save(self, path: Path) -> None:
        """Write what was learned."""
        ...

    def load(self, path: Path) -> None:
        """Start from what was learned before."""
        ...


def _learner(plan: Plan) -> Learner | None:
    inner = getattr(plan.sampler, "inner", plan.sampler)
    return inner if hasattr(inner, "save") and hasattr(inner, "load") else None


@dataclass(kw_only=True)
class ArchitectureSearchEngine:
    """Searches for better architectures than the champion's, one generation at a time.

    Attributes:
        sweep: what every generation's sweep is like.
        run: name that all of them have on the ledger.
        train_on: whether the champion trained on is among a generation's candidates.
        watching: gives who watches a sweep, for as long as it lasts.
        best_architecture, best_performance: of all that this engine has trained to the end.
    """

    sweep: Sweep
    run: str
    train_on: bool = False
    watching: Callable[[], AbstractContextManager[Watch | None]] = nullcontext
    best_architecture: Mapping[str, Any] | None = field(default=None, init=False)
    best_performance: float = field(default=-math.inf, init=False)

    def search(self, generation: int, parent: Parent | None, first: Sequence[Mapping[str, Any]]) -> Searched:
        """Train a generation's candidates, each from its parent's weights as far as they fit.

        Args:
            generation: its number.
            parent: whose weights they begin with.
            first: candidates that are trained before the sampler is asked.

        Raises:
            SweepError: it can't run.
            SafetyError: the governor or its ledger is at fault.
        """
        sweep = self.generation_sweep(generation, parent)
        for config in first:
            sweep.enqueue_trial(config)
        return self._run(sweep.plan_as(self.name_of(generation, parent), sweep=self.run))

    def train_base(self, config: Mapping[str, Any]) -> Searched:
        """Train the base model alone.

        Raises:
            SweepError: it can't run.
            SafetyError: the governor or its ledger is at fault.
        """
        sweep = replace(self.sweep, trials=1, scheduler="fifo", baseline=None)
        sweep.enqueue_trial(config)
        return self._run(sweep.plan_as(self.name_of(0, None), sweep=self.run))

    def generation_sweep(self, generation: int, parent: Parent | None) -> Sweep:
        """The sweep of a generation, without the candidates that it begins with."""
        return replace(self.sweep, parent=parent, seed=self.sweep.seed + generation, baseline=None)

    def job(self, generation: int, parent: Parent | None) -> TrainingJob:
        """What the candidates of a generation do, on the GPUs that this cluster has.

        Raises:
            SweepError: see `gpu_memory`.
        """
        self.gpu_memory()
        job: TrainingJob = self.generation_sweep(generation, parent).job()
        return job

    def gpu_memory(self, found: int = 0) -> int:
        """Bytes of the smallest GPU, 0 where nothing depends on it.

        The cluster is asked once: while people think about a promotion, its nodes with GPUs may go.

        Args:
            found: when it was asked before; 0 where it wasn't.

        Raises:
            SweepError: nobody knows, where that matters.
        """
        asked = self.sweep.resources
        if not asked.asks_for_gpu_memory:
            return 0
        if not asked.gpu_memory:
            self.sweep = replace(self.sweep, gpu_memory=found or known_gpu_memory(asked, smallest_gpu))
        return self.sweep.resources.gpu_memory

    def has_begun(self, generation: int, parent: Parent) -> bool:
        """Whether a generation's run was begun, so that it is gone on with."""
        return is_run(Path(self.sweep.storage).expanduser(), self.name_of(generation, parent), RUN_FILE)

    def name_of(self, generation: int, parent: Parent | None) -> str:
        """Name of a generation's run: its folder in the storage; after a rollback it has another parent."""
        return f"{self.run}-g{generation}" + (f"-{parent.artifact[:8]}" if parent else "")

    def weights_of(self, generation: int, parent: Parent | None, found: Found) -> Path:
        """Where the weights of a candidate lie; they are brought here where they are in a store alone.

        Raises:
            ArtifactStoreError: the store can't be read.
        """
        folder = run_folder(Path(self.sweep.storage).expanduser(), self.name_of(generation, parent))
        path = folder / WEIGHTS / f"{found.record['trial_id']}{SUFFIX}"
        store = self._stored(folder)
        if store and not path.is_file():
            store.patiently(partial(store.get, path.name, path))
        return path

    def _stored(self, folder: Path) -> ArtifactStore | None:
        """The weights of a run in a store, where there is one."""
        uri = self.sweep.artifacts
        return ArtifactStore(uri=uri).at(folder.name).at(WEIGHTS) if uri else None

    def _run(self, plan: Plan) -> Searched:
        learner = _learner(plan)
        state = plan.folder.parent / LEARNED / f"{plan.lineage}.safetensors"
        before = plan.folder / BEFORE
        if not plan.resumed and state.is_file():
            write_durably(before, state.read_bytes())
        if learner and before.is_file():
            learner.load(before)
        with self.watching() as watch:
            result = run_sweep(plan, watch)
        if learner:
            state.parent.mkdir(exist_ok=True)
            learner.save(state)
        if result.ended:
            return Searched(best_first=(), stopped=result.ended)
        found = sorted(self._kept(plan.folder), key=lambda one: -one.reported)
        if found and found[0].reported > self.best_performance:
            self.best_architecture, self.best_performance = found[0].config, found[0].reported
        return Searched(best_first=found)

    def _kept(self, folder: Path) -> list[Found]:
        """The candidates that were trained to the end and whose weights were kept."""
        records = map(record_of, study_of_run(folder).get_trials(deepcopy=False))
        kept = {path.name for path in (folder / WEIGHTS).glob(f"*{SUFFIX}")}
        if store := self._stored(folder):
            kept.update(store.patiently(store.names))
        return [
            Found(number=one["number"], config=one["config"], reported=float(one["score"]), record=one)
            for one in records
            if one["verdict"] == Verdict.MEASURED and f"{one['trial_id']}{SUFFIX}" in kept
        ]

    @property
    def near(self) -> int:
        """How many of a generation's candidates are the champion trained on, around it, or beyond it."""
        return round(SHARE_NEAR * self.sweep.trials)

    def first(self, parent: Parent | None, drafts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The candidates that a generation begins with: drafts, and second the champion trained on, if asked.

        ASHA holds a candidate against those before it, and one that grew learns more slowly at first: behind
        the champion trained on, it would be stopped.
        """
        first = list(drafts)
        if self.train_on and parent and relation(self.sweep.space, parent.spec, parent.spec).kind == "exact":
            first.insert(1, dict(parent.config))  # else the same model would be trained again
        return first[: self.near]

    def drafts(self, champion: Standing, generation: int, parent: Parent | None) -> list[dict[str, Any]]:
        """Children that contain the champion, and others that differ in one parameter, in turn."""
        sweep = self.generation_sweep(generation, parent)
        rng = random.Random(f"{self.sweep.seed}:{generation}")
        job, limits = self.job(generation, parent), sweep.checked_limits()
        own = spec_from(job, champion.config)[0]
        beyond: list[dict[str, Any]] = []
        around: list[dict[str, Any]] = []
        for config in neighbours(job, champion.config, rng):
            if isinstance(judge_config(limits, job, config), Allow):
                grown = relation(sweep.space, own.spec, spec_from(job, config)[0].spec).kind == "exact"
                (beyond if grown else around).append(config)
        rng.shuffle(beyond)
        rng.shuffle(around)
        return list(filter(None, chain.from_iterable(zip_longest(beyond, around))))

    def _validate_safety(self, architecture: Any, bounds: Mapping[str, Any]) -> bool:
        """Whether a spec, or one by its parameters, is under the ceilings of the guide's `bounds`."""
        limits, job = limits_from_dict({"bounds": dict(bounds)}), self.sweep.job()
        if isinstance(architecture, Mapping):
            return isinstance(judge_config(limits, job, architecture), Allow)
        cost = job.space.cost(architecture)
        sizes = {name: getattr(cost, name) for name in ("params", "forward_flops", "memory_bytes")}
        return isinstance(judge_claim(limits, Claim(**sizes, train_flops=0, wall_ms=0)), Allow)
