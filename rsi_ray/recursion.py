"""The whole system: a model that is replaced by better versions of itself, under limits and under people."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rsi_ray import emergency
from rsi_ray.alerts import keep
from rsi_ray.api import Sweep
from rsi_ray.approvers import Approver, Nobody, Signer, with_approver
from rsi_ray.champion import FOLDER as CHAMPIONS
from rsi_ray.champion import ChampionStore
from rsi_ray.connection import local_ray
from rsi_ray.description import Json, describe
from rsi_ray.disk import nothing_empty
from rsi_ray.durable import write_durably
from rsi_ray.emergency_ports import ports_of
from rsi_ray.errors import SweepError
from rsi_ray.governed_loop import GovernedLoop, standing_of
from rsi_ray.loop import Ending, Event, Standing, Terms, Why, improve
from rsi_ray.mirror import LOOP_FILE, Mirror, bring_back, mirrored, of_loop
from rsi_ray.observer import Watch, terminated_as_interrupted
from rsi_ray.oversight import this_user
from rsi_ray.plan import Plan
from rsi_ray.runs import new_folder, read_about, run_folder
from rsi_ray.search_engine import ArchitectureSearchEngine
from rsi_ray.self_modification import SelfModificationEngine, evidence_of
from rsi_ray.sweep import governor_of, quiet_tune
from rsi_ray.view import dashboard_text
from safety import SafetyError
from safety.actor import GovernorClient
from safety.database import without_password
from search_spaces.given_trial import spec_from

# before there is a base model
NOBODY = Standing(generation=0, artifact="", score=math.nan, config={})


@dataclass(kw_only=True)
class Recursion:
    """A run of the recursive loop.

    Attributes:
        sweep: what the sweep of each generation is like; its trials are those of one generation.
        base: parameters of the base model, which is trained first where the lineage has no champion.
        generations: champions that this run may promote.
        seeds: further trainings by which a candidate is verified.
        approver: decides of promotions.
        signer: who approves where the limits name nobody; None to leave them as they are.
        key: file of the key that signs approvals, as people are told it.
        space: description of the space, as a champion's file keeps it; None for what the object tells itself.
        proxies: by which candidates near the champion are screened at their initialisation; none for not.
        train_on: whether the champion trained on is among a generation's candidates.
        watching: gives who watches a generation's sweep.
        tell: is told what happens.
        log: lines of this process's log, for an incident's folder.
        about: what is written down for whoever resumes.
    """

    sweep: Sweep
    base: Mapping[str, Any]
    generations: int
    seeds: int = 2
    approver: Approver = field(default_factory=Nobody)
    key: str = "FILE"
    space: Json = None
    proxies: Sequence[str] = ()
    train_on: bool = False
    signer: Signer | None = None
    watching: Callable[[], AbstractContextManager[Watch | None]] = nullcontext
    tell: Callable[[Event], None] = lambda _event: None
    log: Callable[[], list[str]] = list
    about: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run of the loop came to.

    Attributes:
        folder: of the run.
        ending: why it ended.
        champions: those of the lineage that stand, the base first.
        params: their parameters.
        artifact: file of the champion; None where there is none.
    """

    folder: Path
    ending: Ending
    champions: tuple[Standing, ...]
    params: tuple[int, ...]
    artifact: Path | None


def run_recursion(recursion: Recursion, *, resume: str | None = None) -> Outcome:
    """Run the loop to its end, or go on with a run of it that was stopped.

    Raises:
        SweepError: it can't run as asked for.
        SafetyError: the governor or its ledger is at fault; nothing runs on.
    """
    limits = recursion.sweep.checked_limits()
    limits = with_approver(limits, recursion.signer) if recursion.signer else limits
    sweep = replace(recursion.sweep, limits=limits)
    plan = sweep.checked_plan()
    with quiet_tune(), local_ray() as dashboard, terminated_as_interrupted():
        governor = governor_of(plan)
        storage = plan.folder.parent
        if plan.artifacts:
            plan.artifacts.check()
            if resume:
                bring_back(plan.artifacts, storage, Path(resume).name)
        folder = (
            run_folder(storage, resume, LOOP_FILE)
            if resume
            else new_folder(storage, sweep.name, time.localtime())
        )
        ledger = without_password(governor.ledger_url())
        text = f"Run {folder.name}, ledger {ledger}\n{dashboard_text(dashboard)}"
        recursion.tell(Event(kind="begun", text=text))
        patterns = of_loop(folder.name, sweep.lineage or folder.name)
        with nothing_empty(folder), mirrored(plan.artifacts, storage, patterns) as mirror:
            recursion = replace(recursion, tell=_telling(recursion.tell, mirror))
            loop = _begin(recursion, sweep, plan, folder, governor)
            first = _first_generation(folder, loop.next_generation(), recursion, loop.engine)
            ending = _run_to_its_end(recursion, loop, first)
        return _outcome(folder, loop.store, ending)


def _telling(tell: Callable[[Event], None], mirror: Mirror | None) -> Callable[[Event], None]:
    """The same; what was verified is in the store, if that works, before it may be promoted."""

    def telling(event: Event) -> None:
        tell(event)
        if mirror and event.kind == "verified":
            mirror.flush()

    return telling


def _begin(
    recursion: Recursion, sweep: Sweep, plan: Plan, folder: Path, governor: GovernorClient
) -> GovernedLoop:
    lineage = sweep.lineage or folder.name
    sweep = replace(sweep, name=folder.name, lineage=lineage)
    store = ChampionStore(plan.folder.parent / CHAMPIONS / lineage, governor)
    keep(plan.folder.parent / emergency.FOLDER, lineage, plan.alerts)
    standing = governor.standing_incident(lineage)
    if standing:  # of a process that died in the middle, or one that nobody has released yet
        _finish_shutdown(recursion, plan, governor, store, standing.reason)
        raise SweepError(
            f"lineage {lineage}: shut down ({standing.reason}); `rsi-ray incidents show {standing.number}` "
            "says what is left to do before it may go on"
        )
    # what the ledger has tightened binds whoever promotes as well
    limits = governor.open_sweep(folder.name, sweep.checked_limits(), lineage)
    governor.close_sweep(folder.name, {})
    return GovernedLoop(
        engine=ArchitectureSearchEngine(
            sweep=sweep, run=folder.name, train_on=recursion.train_on, watching=recursion.watching
        ),
        modifier=SelfModificationEngine(
            store,
            ledger=governor,
            approver=recursion.approver,
            sweep=folder.name,
            by=recursion.signer.name if recursion.signer else this_user(),
            limits=limits,
            key=recursion.key,
        ),
        store=store,
        governor=governor,
        limits=limits,
        seeds=recursion.seeds,
        space=recursion.space or describe(sweep.job().space),
        proxies=recursion.proxies,
        after_shutdown=lambda reason: _finish_shutdown(recursion, plan, governor, store, reason),
    )


def _run_to_its_end(recursion: Recursion, loop: GovernedLoop, first: int) -> Ending:
    """Run it, and complete a shutdown that came from elsewhere: a report, a rival, or an operator."""
    stopped: SafetyError | None = None
    try:
        ending = _run(recursion, loop, first)
    except KeyboardInterrupt:
        text = f"interrupted; `rsi-ray run --resume {loop.engine.run}` goes on"
        return _ended(recursion, loop, Why.STOPPED, text)
    except SafetyError as error:
        ending, stopped = Ending(why=Why.STOPPED, text=str(error)), error
    standing = loop.governor.standing_incident(loop.store.lineage)
    if standing and ending.why is not Why.SHUT_DOWN:
        loop.shut_down(standing.reason)
        return _ended(recursion, loop, Why.SHUT_DOWN, f"shut down: {standing.reason}")
    if stopped:
        raise stopped
    return ending


def _ended(recursion: Recursion, loop: GovernedLoop, why: Why, text: str) -> Ending:
    version = loop.store.current()
    recursion.tell(Event(kind="ended", champion=standing_of(version) if version else NOBODY, text=text))
    return Ending(why=why, text=text)


def _run(recursion: Recursion, loop: GovernedLoop, first: int) -> Ending:
    if loop.store.current() is None:
        recursion.tell(Event(kind="base", text="the base model is trained, and evaluated by itself"))
        searched = loop.engine.train_base(recursion.base)
        if searched.stopped or not searched.best_first:
            text = searched.stopped or "the base model could not be trained"
            return _ended(recursion, loop, Why.STOPPED, text)
        loop.adopt_base(searched.best_first[0])
    _require_comparable(loop)
    terms = Terms(
        # of a lineage that has had all its generations, nothing more is trained
        last_generation=min(first + recursion.generations - 1, loop.limits.max_generations),
        min_improvement=loop.limits.min_improvement,
        must_ask=loop.limits.require_approval,
    )
    return improve(loop, terms, recursion.tell)


def _require_comparable(loop: GovernedLoop) -> None:
    """Refuse to go on with a lineage on other data, or in a space that its champion is none of.

    Raises:
        SweepError: one line that says which.
    """
    champion, job = loop.store.champion(), loop.engine.sweep.job()
    if evidence_of(champion).task != job.digest():
        raise SweepError(
            f"lineage {loop.store.lineage}: its champion was evaluated on other data; "
            "expected the same task, or another lineage's name"
        )
    try:
        spec_from(job, champion.manifest.config)
    except ValueError as error:
        raise SweepError(f"space: lineage {loop.store.lineage}'s champion is none of it: {error}") from None


def _first_generation(
    folder: Path, following: int, recursion: Recursion, engine: ArchitectureSearchEngine
) -> int:
    """Number of the first generation that this run could promote; that and GPUs are as when it began."""
    path = folder / LOOP_FILE
    if path.is_file():
        told = read_about(folder, LOOP_FILE)
        engine.gpu_memory(found=int(told.get("gpu_memory", 0)))
        return int(told["first_generation"])
    gpus = {"gpu_memory": memory} if (memory := engine.gpu_memory()) else {}
    told = {"first_generation": following, **gpus, **(recursion.about or {})}
    write_durably(path, json.dumps(told, indent=2).encode())
    return following


def _finish_shutdown(
    recursion: Recursion, plan: Plan, governor: GovernorClient, store: ChampionStore, reason: str
) -> None:
    """Stop, save, revert and alert, whatever of it is left to do."""
    ports = ports_of(plan, governor, governor.ledger_url(), store, recursion.log)
    emergency.shut_down(ports, store.lineage, reason)


def _outcome(folder: Path, store: ChampionStore, ending: Ending) -> Outcome:
    version = store.current()
    line = [*reversed([*store.ancestors(version)]), version] if version else []
    return Outcome(
        folder=folder,
        ending=ending,
        champions=tuple(map(standing_of, line)),
        params=tuple(version.manifest.params for version in line),
        artifact=line[-1].path if line else None,
    )
