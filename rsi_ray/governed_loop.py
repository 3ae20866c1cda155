"""The loop's ports on a cluster: sweeps search, an evaluator verifies, the ledger judges, people decide."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rsi_ray.champion import ChampionStore
from rsi_ray.champion_version import Candidate, Version
from rsi_ray.description import Json, describe
from rsi_ray.errors import ChampionError, EvaluationError
from rsi_ray.evaluation import Subject
from rsi_ray.evaluator import EVALUATION, Reported, evaluate_in_fresh_process
from rsi_ray.evidence import Evidence, is_improvement
from rsi_ray.heritage import Parent
from rsi_ray.judged import Judged, read_judged, write_judged
from rsi_ray.loop import Answer, Found, Searched, Standing, Verified
from rsi_ray.placement import TooLarge
from rsi_ray.screener import screen_in_fresh_process
from rsi_ray.search_engine import ArchitectureSearchEngine
from rsi_ray.self_modification import SelfModificationEngine, evidence_of
from rsi_ray.training_job import TrainingJob
from safety import (
    ArtifactError,
    Deny,
    Hold,
    Limits,
    Verdict,
    artifact_digest,
    judge_capability,
    read_plain_file,
)
from safety.actor import GovernorClient
from search_spaces.given_trial import spec_from

# chance that noise alone is taken for an improvement, in one generation
DOUBT = 0.05
# drafts near the champion that are screened, at most
MOST_SCREENED = 64
# in the folder of a generation's run: what the evaluator found of its candidates
EVALUATIONS = "evaluations"


@dataclass(kw_only=True)
class GovernedLoop:
    """What the loop asks of the world, each once: what was done is read back from where it was written.

    Attributes:
        engine: searches a generation.
        modifier: replaces the champion.
        store: the lineage's versions.
        governor: of the cluster.
        limits: in force.
        seeds: further trainings by which a candidate is verified.
        space: description of the space, as a champion's file keeps it.
        proxies: by which candidates near the champion are screened at their initialisation; none for not.
        after_shutdown: finishes an emergency shutdown.
    """

    engine: ArchitectureSearchEngine
    modifier: SelfModificationEngine
    store: ChampionStore
    governor: GovernorClient
    limits: Limits
    seeds: int
    space: Json
    proxies: Sequence[str]
    after_shutdown: Callable[[str], object]

    def champion(self) -> Standing:
        """The champion that the store and the ledger agree on."""
        return standing_of(self.store.settle())

    def search(self, champion: Standing) -> Searched:
        """Train the candidates of the generation that would follow a champion."""
        generation, parent = self.next_generation(), self._parent()
        if self.engine.has_begun(generation, parent):  # its run knows what it begins with
            return self.engine.search(generation, parent, ())
        drafts = self.engine.drafts(champion, generation, parent)
        if self.proxies:
            drafts = self._screened(generation, parent, drafts)
        return self.engine.search(generation, parent, self.engine.first(parent, drafts))

    def _screened(
        self, generation: int, parent: Parent, drafts: Sequence[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """The best drafts at their initialisation, best first."""
        job, some = self.engine.job(generation, parent), list(drafts[:MOST_SCREENED])
        with self._open():
            best = screen_in_fresh_process(
                self.governor,
                job,
                some,
                best=self.engine.near,
                proxies=self.proxies,
                sweep=self.engine.run,
            )
        return [some[screened.index] for screened in best]

    def verify(self, found: Found) -> Verified:
        """Evaluate a candidate in a fresh process, and stage it; one that can't be evaluated is refused."""
        generation, parent = self.next_generation(), self._parent()
        job = self.engine.job(generation, parent)
        weights = self.engine.weights_of(generation, parent, found)
        try:
            judged = self._evaluated(job, found, weights)
        except (EvaluationError, ArtifactError, TooLarge) as error:
            return _refused(generation, found, str(error))
        version = self.store.stage(self._candidate(job, found, weights, judged.evidence))
        better = is_improvement(
            evidence_of(self.store.champion()),
            judged.evidence,
            # as many may be tried in turn: together they are no luckier than one
            confidence=1 - DOUBT / max(1, min(self.engine.sweep.keep_weights, self.engine.sweep.trials)),
        )
        return Verified(
            standing=standing_of(version),
            reported=found.reported,
            domains=judged.evidence.own.domains,
            verdict=judged.verdict,
            is_beyond_noise=better.is_believed,
            noise=better.text,
            discrepancy=judged.discrepancy,
        )

    def adopt_base(self, found: Found) -> Standing:
        """Evaluate the base model, and let the lineage begin with it.

        Raises:
            ChampionError: it is over a ceiling.
        """
        job = self.engine.job(0, None)
        weights = self.engine.weights_of(0, None, found)
        judged = self._evaluated(job, found, weights)
        if isinstance(judged.verdict, Deny):
            raise ChampionError(f"base model: {judged.verdict.reason}; expected one under every ceiling")
        return standing_of(self.store.adopt_base(self._candidate(job, found, weights, judged.evidence)))

    def judge(self, champion: Standing, wanted: Standing) -> Verdict:
        """The ledger's verdict on an improvement."""
        with self._open():
            return self.governor.judge_improvement(self.engine.run, champion.score, wanted.score)

    def ask(self, wanted: Verified, held: Hold | None) -> tuple[Answer, str]:
        """Have people decide; what is decided already is not asked again."""
        version = self.store.find(wanted.standing.artifact)
        proposal = self.modifier.propose(
            self.store.champion(),
            version,
            reported=wanted.reported,
            noise=wanted.noise,
            incident=wanted.discrepancy,
            held=held.reason if held else "",
        )
        with self._open():
            return self.modifier.ask(version, proposal, held.rule if held else "")

    def promote(self, wanted: Verified) -> Verdict:
        """Replace the champion, if the ledger allows it."""
        with self._open():
            return self.modifier.promote(self.store.find(wanted.standing.artifact))

    def shut_down(self, reason: str) -> None:
        """Finish an emergency shutdown that the ledger has begun."""
        self.after_shutdown(reason)

    def next_generation(self) -> int:
        """Number of the generation that would come next: of what was rolled back none is used again."""
        return len(self.governor.champions(self.store.lineage)) + 1

    @contextmanager
    def _open(self) -> Iterator[None]:
        """The run's sweep, which every search closes at its end."""
        self.governor.open_sweep(self.engine.run, self.limits, self.store.lineage)
        try:
            yield
        finally:
            self.governor.close_sweep(self.engine.run, {})

    def _parent(self) -> Parent:
        version = self.store.champion()
        manifest = version.manifest
        return Parent(
            weights=version.path,
            artifact=version.artifact,
            config=manifest.config,
            spec=spec_from(self.engine.sweep.job(), manifest.config)[0].spec,
            train_flops=manifest.total_flops,
            content=self._content(version.path),
        )

    def _content(self, path: Path) -> bytes | None:
        """Of a file that goes along to workers which share no folder with this process."""
        return read_plain_file(path) if self.engine.sweep.artifacts else None

    def _evaluated(self, job: TrainingJob, found: Found, weights: Path) -> Judged:
        digest = artifact_digest(weights)
        written = weights.parents[1] / EVALUATIONS / f"{weights.stem}.json"
        known = read_judged(written, digest)
        if known is not None and known.evidence.task == job.digest() and self._is_attested(found, known):
            # the limits may have been tightened since
            verdict = judge_capability(self.limits, known.evidence.own.domains)
            return replace(known, verdict=verdict if isinstance(verdict, Deny) else known.verdict)
        subject = Subject(
            config=found.config,
            weights=weights,
            digest=digest,
            seeds=self.seeds,
            content=self._content(weights),
        )
        judged = self._evaluate(job, found, subject)
        write_judged(written, judged)
        return judged

    def _is_attested(self, found: Found, known: Judged) -> bool:
        """Whether an evaluator has said what was written down; where none has, that is an incident."""
        if self.governor.is_attested(self.engine.run, known.evaluated.record):
            return True
        reason = f"no evaluator has said what is written of trial {found.number}; it is evaluated again"
        trial = f"{self.engine.run}/{found.record['trial_id']}"
        self.governor.record_incident(self.engine.run, trial, EVALUATION, reason)
        return False

    def _evaluate(self, job: TrainingJob, found: Found, subject: Subject) -> Judged:
        reported = Reported(
            trial=f"{self.engine.run}/{found.record['trial_id']}",
            score=found.reported,
            domains=found.record["domains"],
            selected_from=self.engine.sweep.trials * job.training.members.alternatives,
        )
        with self._open():
            found_out = evaluate_in_fresh_process(
                self.governor, job, subject, reported, sweep=self.engine.run
            )
        return found_out.judged

    def _candidate(self, job: TrainingJob, found: Found, weights: Path, evidence: Evidence) -> Candidate:
        candidate, claim = job.candidate(found.config), job.price(found.config)
        return Candidate(
            weights=weights,
            space=self.space,
            spec=describe(candidate.spec),
            config=dict(found.config),
            training=describe(candidate.training),
            params=claim.params,
            train_flops=claim.train_flops,
            inherits=job.parent is not None,
            evidence=evidence.canonical,
            trial=f"{self.engine.run}/{found.record['trial_id']}",
        )


def _refused(generation: int, found: Found, reason: str) -> Verified:
    nobody = Standing(generation=generation, artifact="", score=math.nan, config=found.config)
    return Verified(
        standing=nobody,
        reported=found.reported,
        domains={},
        verdict=Deny("evaluation", reason),
        is_beyond_noise=False,
        noise="",
    )


def standing_of(version: Version) -> Standing:
    """A version as the loop needs it.

    Raises:
        ChampionError: its evidence is missing.
    """
    return Standing(
        generation=version.manifest.generation,
        artifact=version.artifact,
        score=evidence_of(version).own.score,
        config=version.manifest.config,
    )
