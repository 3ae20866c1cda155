"""The guide's system under its own names, for scripts and notebooks; `rsi-ray run` does the same."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from rsi_ray import emergency
from rsi_ray.api import Sweep
from rsi_ray.approvers import Approver, local_signer, with_approver
from rsi_ray.champion import FOLDER as CHAMPIONS
from rsi_ray.champion import ChampionStore
from rsi_ray.emergency_ports import ports_of
from rsi_ray.errors import SweepError
from rsi_ray.loop import Event, Why
from rsi_ray.loop_view import lines_of, whoever_is_here
from rsi_ray.modification import Modification
from rsi_ray.oversight import this_user
from rsi_ray.recursion import Outcome, Recursion, run_recursion
from rsi_ray.search_engine import ArchitectureSearchEngine
from rsi_ray.self_modification import SelfModificationEngine
from rsi_ray.tasks import built_in_task
from rsi_ray.training import Training
from safety import Ledger, LedgerError, Promotion, limits_from_dict
from safety.improvement import improvement, is_runaway
from search_spaces.parameters import parameters_of
from search_spaces.transformer import TransformerSpace

if TYPE_CHECKING:
    from torch import nn

_log = logging.getLogger(__name__)


class RecursiveSelfImprovement:
    """A model that is replaced by better versions of itself, generation after generation, under limits.

    Args:
        base_model: what it begins with: a model or a spec of the space, or parameters of it. It is trained on
            the task before the first generation.
        safety_config: the guide's configuration as it stands, or any limits.
        space: what may be searched; small transformers for the built-in task if left out.
        task: what is learned, or a function that gives it; the built-in task if left out.
        generations: champions that one run may promote; `max_generations` of the limits if left out.
        seeds: further trainings by which a candidate is verified.
        approver: decides of promotions; whoever sits at the terminal if left out, and nobody where there is
            none.
        sweep: what else a `Sweep` takes; its trials are those of one generation.

    Raises:
        SweepError: the base model is none of the space's.
        DocumentError: the limits don't fit.
    """

    def __init__(
        self,
        base_model: Any,
        safety_config: Mapping[str, Any],
        *,
        space: Any = None,
        task: Any = built_in_task,
        generations: int | None = None,
        seeds: int = 2,
        approver: Approver | None = None,
        **sweep: Any,
    ) -> None:
        limits = limits_from_dict(safety_config)
        name = str(sweep.pop("name", "recursion"))
        storage = Path(sweep.pop("storage", "rsi_results")).expanduser()
        signer = local_signer(storage, this_user())
        self.safety_config = safety_config
        self.limits = with_approver(limits, signer)
        self.max_generations = generations or limits.max_generations
        self.improvement_threshold = limits.min_improvement
        self.require_human_approval = limits.require_approval
        space = space or TransformerSpace(heads=_loaded(task).heads, batch_size=_batch_size(sweep))
        lineage = sweep.pop("lineage", None) or f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        template = Sweep(
            space, task, self.limits, name=name, storage=storage, lineage=lineage, **{"trials": 8, **sweep}
        )
        self.recursion = Recursion(
            sweep=template,
            base=_parameters(template, base_model),
            generations=self.max_generations,
            seeds=seeds,
            approver=approver or whoever_is_here(signer, Console()),
            signer=signer,
            tell=_told,
        )
        self.search_engine = ArchitectureSearchEngine(sweep=template, run=name)
        self._ledger = Ledger(template.checked_plan().ledger_url)
        self._store = ChampionStore(storage / CHAMPIONS / lineage, self._ledger)
        self.modification_engine = SelfModificationEngine(
            self._store,
            ledger=self._ledger,
            approver=self.recursion.approver,
            sweep=name,
            by=this_user(),
            limits=self.limits,
        )

    def run(self) -> nn.Module:
        """Run the loop to its end; the champion, in evaluation mode.

        Raises:
            SweepError: it can't run as asked for, or was shut down.
            SafetyError: the governor or its ledger is at fault.
        """
        if self.max_generations < 1:
            raise SweepError("max_generations: 0, an emergency shutdown has frozen this system")
        self.outcome: Outcome = run_recursion(self.recursion)
        if self.outcome.ending.why in (Why.SHUT_DOWN, Why.STOPPED):
            raise SweepError(f"the loop was {self.outcome.ending.why}: {self.outcome.ending.text}")
        self.modification_engine.modification_history = [*self._store.history()]
        return self.modification_engine.current_model

    def _calculate_improvement(self, old: float, new: float) -> float | None:
        """Relative improvement; None where it is undefined. Taken before anything is updated."""
        return improvement(old=old, new=new)

    def _detect_runaway(self) -> bool:
        """Whether the last modifications gain faster and faster.

        The ledger asks itself the same before every promotion, and forgets nothing at a restart.
        """
        gains = [_gain(one) for one in self.modification_engine.modification_history]
        return is_runaway(self.limits, gains)

    def _emergency_shutdown(self) -> None:
        """Freeze, revoke, stop, save, revert, alert; refuse everything until people release the lineage."""
        self.max_generations = 0
        lineage = self._store.lineage
        with suppress(LedgerError):  # it is in the ledger, and frozen already
            self._ledger.open_sweep(lineage, self.limits, lineage)
        plan = self.recursion.sweep.checked_plan()
        ports = ports_of(plan, self._ledger, plan.ledger_url, self._store, self.recursion.log)
        emergency.shut_down(ports, lineage, "runaway: the last modifications gain faster and faster")


def _gain(modification: Modification | Mapping[str, Any]) -> Promotion:
    """A modification as the detector reads it: by how much its score is better."""
    if isinstance(modification, Modification):
        delta = modification.performance_delta
    else:
        delta = modification["performance_delta"]
    return Promotion(lineage="", key="", at_ms=0, old=0.0, new=float(delta))


def _parameters(sweep: Sweep, base_model: Any) -> Mapping[str, Any]:
    if isinstance(base_model, Mapping):
        return base_model
    try:
        return parameters_of(sweep.space, getattr(base_model, "spec", base_model))
    except ValueError as error:
        raise SweepError(f"base_model: {error}") from None


def _loaded(task: Any) -> Any:
    return task() if callable(task) else task


def _batch_size(sweep: Mapping[str, Any]) -> int:
    training: Training = sweep.get("training", Training())
    return training.batch_size


def _told(event: Event) -> None:
    for line, _ in lines_of(event):
        _log.info("%s", line)
