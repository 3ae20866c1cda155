"""The loop's ports on a cluster: sweeps search, an evaluator verifies, the ledger judges, people decide."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rsi_ray.approvers import Approver
from rsi_ray.champion import ChampionStore
from rsi_ray.champion_version import Candidate, Version
from rsi_ray.description import describe
from rsi_ray.durable import write_durably
from rsi_ray.errors import ChampionError
from rsi_ray.evaluation import Subject
from rsi_ray.evaluator import Reported, evaluate_in_fresh_process
from rsi_ray.evidence import Evidence, evidence_in, is_improvement
from rsi_ray.heritage import Parent
from rsi_ray.job import TrainingJob
from rsi_ray.loop import Answer, Found, Searched, Standing, Verified
from rsi_ray.proposal import Domain, Proposal, Size
from rsi_ray.search_engine import ArchitectureSearchEngine
from safety import Allow, ApprovalRefused, Deny, Hold, Limits, Verdict, artifact_digest, improvement
from safety.actor import GovernorClient
from search_spaces.given_trial import spec_from

# in the folder of a generation's run: what the evaluator found of its candidates
EVALUATIONS = "evaluations"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """An evaluation as it was written down.

    Attributes:
        evidence: its numbers.
        verdict: of the ceilings.
        discrepancy: in what was reported.
    """

    evidence: Evidence
    verdict: Verdict
    discrepancy: str


@dataclass(kw_only=True)
class GovernedLoop:
    """What the loop asks of the world, each once: what was done is read back from where it was written.

    Attributes:
        engine: searches a generation.
        store: the lineage's versions.
        governor: of the cluster.
        limits: in force.
        approver: decides of promotions.
        seeds: further trainings by which a candidate is verified.
        by: who asks for promotions.
        key: file of the key that signs approvals, as people are told it.
        after_shutdown: finishes an emergency shutdown.
    """

    engine: ArchitectureSearchEngine
    store: ChampionStore
    governor: GovernorClient
    limits: Limits
    approver: Approver
    seeds: int
    by: str
    key: str
    after_shutdown: Callable[[str], object]

    def champion(self) -> Standing:
        """The champion that the store and the ledger agree on."""
        return standing_of(self.store.settle())

    def search(self, champion: Standing) -> Searched:
        """Train the candidates of the generation that would follow a champion."""
        return self.engine.search(champion, self.next_generation(), self._parent())

    def verify(self, found: Found) -> Verified:
        """Evaluate a candidate in a fresh process, and stage it."""
        generation, parent = self.next_generation(), self._parent()
        job = self.engine.generation_sweep(generation, parent).job()
        weights = self.engine.weights_of(generation, found)
        judged = self._evaluated(job, found, weights)
        version = self.store.stage(self._candidate(job, found, weights, judged.evidence))
        better = is_improvement(_evidence(self.store.champion()), judged.evidence)
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
        job = self.engine.generation_sweep(0, None).job()
        weights = self.engine.weights_of(0, found)
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
        proposal = self._proposal(version, wanted, held)
        with self._open():
            request = self.governor.ask_promotion(
                self.engine.run,
                version.champion,
                self.by,
                proposal.to_json(),
                held.rule if held else "",
            )
            self._requests[version.artifact] = request.digest
            _, verdict = self.governor.request(request.digest)
            if isinstance(verdict, Hold):
                decision = self.approver.decide(request, proposal)
                if decision:
                    try:
                        self.governor.decide(decision)
                    except ApprovalRefused as error:
                        return Answer.NONE, str(error)
                _, verdict = self.governor.request(request.digest)
        return _answer(verdict, request.name, self.engine.run, self.key)

    def promote(self, champion: Standing, wanted: Verified) -> Verdict:
        """Replace the champion, if the ledger allows it."""
        version = self.store.find(wanted.standing.artifact)
        key = f"{self.store.lineage}/{version.name}"
        request = self._requests.get(version.artifact, "")
        with self._open():
            return self.store.promote(
                version.artifact,
                lambda promoted: self.governor.promote(
                    self.engine.run, key, champion.score, wanted.standing.score, "max", promoted, request
                ),
            )

    def shut_down(self, reason: str) -> None:
        """Finish an emergency shutdown that the ledger has begun."""
        self.after_shutdown(reason)

    def __post_init__(self) -> None:
        self._requests: dict[str, str] = {}

    @contextmanager
    def _open(self) -> Iterator[None]:
        """The run's sweep, which every search closes at its end."""
        self.governor.open_sweep(self.engine.run, self.limits, self.store.lineage)
        try:
            yield
        finally:
            self.governor.close_sweep(self.engine.run, {})

    def next_generation(self) -> int:
        """Number of the generation that would come next: of what was rolled back none is used again."""
        return len(self.governor.champions(self.store.lineage)) + 1

    def _parent(self) -> Parent:
        version = self.store.champion()
        manifest = version.manifest
        return Parent(
            weights=version.path,
            artifact=version.artifact,
            config=manifest.config,
            spec=spec_from(self.engine.sweep.job(), manifest.config)[0].spec,
            train_flops=manifest.total_flops,
        )

    def _evaluated(self, job: TrainingJob, found: Found, weights: Path) -> Judged:
        digest = artifact_digest(weights)
        written = weights.parents[1] / EVALUATIONS / f"{weights.stem}.json"
        known = _read(written, digest)
        if known is not None:
            return known
        subject = Subject(config=found.config, weights=weights, digest=digest, seeds=self.seeds)
        reported = Reported(
            trial=f"{self.engine.run}/{found.record['trial_id']}",
            score=found.reported,
            domains=found.record["domains"],
            selected_from=self.engine.sweep.trials,
        )
        with self._open():
            evaluation = evaluate_in_fresh_process(
                self.governor, job, subject, reported, sweep=self.engine.run, cpus=self.engine.sweep.cpus
            )
        judged = Judged(
            evidence=evaluation.evidence,
            verdict=evaluation.verdict,
            discrepancy="; ".join(one.reason for one in evaluation.discrepancies),
        )
        _write(written, judged)
        return judged

    def _candidate(self, job: TrainingJob, found: Found, weights: Path, evidence: Evidence) -> Candidate:
        candidate = job.candidate(found.config)
        claim = job.price(found.config)
        return Candidate(
            weights=weights,
            space=describe(job.space),
            spec=describe(candidate.spec),
            config=dict(found.config),
            training=describe(candidate.training),
            params=claim.params,
            train_flops=claim.train_flops,
            inherits=job.parent is not None,
            evidence=evidence.canonical,
            trial=f"{self.engine.run}/{found.record['trial_id']}",
        )

    def _proposal(self, version: Version, wanted: Verified, held: Hold | None) -> Proposal:
        before = self.store.champion()
        old, new = _evidence(before), _evidence(version)
        ceilings = self.limits.bounds.max_performance
        domains = {
            name: Domain(current=old.own.domains.get(name), proposed=score, ceiling=ceilings.get(name))
            for name, score in new.own.domains.items()
        }
        return Proposal(
            lineage=self.store.lineage,
            generation=version.manifest.generation,
            current=old.own.score,
            proposed=new.own.score,
            improvement=improvement(old=old.own.score, new=new.own.score),
            noise=wanted.noise,
            seeds=len(new.measurements),
            is_sealed=new.sealed,
            reported=wanted.reported,
            domains=domains,
            difference=_difference(before.manifest.config, version.manifest.config),
            before=self._size(before),
            after=self._size(version),
            ancestors=tuple(one.name for one in self._ancestors(version)),
            held=held.reason if held else "",
            incident=wanted.discrepancy,
        )

    def _size(self, version: Version) -> Size:
        claim = self.engine.sweep.job().price(version.manifest.config)
        manifest = version.manifest
        return Size(
            params=manifest.params, forward_flops=claim.forward_flops, train_flops=manifest.total_flops
        )

    def _ancestors(self, version: Version) -> list[Version]:
        found: list[Version] = []
        parent = self.store.parent_of(version)
        while parent is not None:
            found.insert(0, parent)
            parent = self.store.parent_of(parent)
        return found


def standing_of(version: Version) -> Standing:
    """A version as the loop needs it.

    Raises:
        ChampionError: its evidence is missing.
    """
    return Standing(
        generation=version.manifest.generation,
        artifact=version.artifact,
        score=_evidence(version).own.score,
        config=version.manifest.config,
    )


def _evidence(version: Version) -> Evidence:
    if version.evidence is None:
        raise ChampionError(f"version {version.name}: its evidence is missing; it can't be compared")
    return evidence_in(version.evidence)


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Old and new value of every parameter that changes; None where there is none."""
    names = [*old, *(name for name in new if name not in old)]
    return {name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}


def _answer(verdict: Verdict, request: str, run: str, key: str) -> tuple[Answer, str]:
    if isinstance(verdict, Allow):
        return Answer.APPROVED, ""
    if isinstance(verdict, Deny) and verdict.rule == "approval.rejected":
        return Answer.REJECTED, verdict.reason
    return Answer.NONE, (
        f"{verdict.reason}; `rsi-ray approvals show {request}` says what it is, `rsi-ray approvals approve "
        f"{request} --key {key} --reason WHY` approves, and `rsi-ray run --resume {run}` goes on"
    )


def _write(path: Path, judged: Judged) -> None:
    told = {"evidence": judged.evidence.canonical.decode(), "discrepancy": judged.discrepancy}
    if isinstance(judged.verdict, Deny):
        told["denied"] = json.dumps(asdict(replace(judged.verdict, excess={})))
    path.parent.mkdir(exist_ok=True)
    write_durably(path, json.dumps(told).encode())


def _read(path: Path, digest: str) -> Judged | None:
    """What was written of these weights; None where nothing was, or of others."""
    try:
        told = json.loads(path.read_bytes())
        evidence = evidence_in(told["evidence"].encode())
        denied = json.loads(told["denied"]) if "denied" in told else None
        verdict: Verdict = Deny(denied["rule"], denied["reason"]) if denied else Allow()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if evidence.weights != digest:
        return None
    return Judged(evidence=evidence, verdict=verdict, discrepancy=str(told["discrepancy"]))
