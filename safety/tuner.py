"""Ray shell: governs any Tuner that somebody has, by one line."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import ray
from ray.train.base_trainer import BaseTrainer
from ray.train.constants import DEFAULT_STORAGE_PATH
from ray.tune import ResultGrid, Trainable, Tuner
from ray.tune.experiment import Experiment
from ray.tune.registry import get_trainable_cls
from ray.tune.trainable.function_trainable import wrap_function

from safety.actor import GovernorClient, connect, connect_to_any
from safety.claim import GPU_MS, TRAIN_GFLOP, WALL_MS
from safety.device_memory import found_device_memories
from safety.environment import environment
from safety.errors import SafetyError
from safety.first_price import try_price
from safety.governance import Governance, Heard
from safety.lease import object_digest
from safety.limits import Limits, limits_from_dict, limits_from_yaml
from safety.meter import Meter, found_meters
from safety.names import MOST_OF_A_RUN, plain_name
from safety.patience import Patient
from safety.pricing import Cost, Pricing
from safety.resources import DeviceMemory
from safety.trainable import Terms, leased
from safety.watch import watched
from safety.wiring import governed, governed_stop, metric_of

LEDGER = "ledger.db"
# a trial that is refused reports no metric, which Tune would take for a fault
_LENIENT = {"TUNE_DISABLE_STRICT_METRIC_CHECKING": "1"}

logger = logging.getLogger(__name__)


def govern(
    tuner: Tuner,
    limits: Limits | Mapping[str, Any] | str | Path,
    cost: Cost | None = None,
    *,
    ledger: str | None = None,
    governor_key: str = "",
    checkpoints: Sequence[str | Path] = (),
    sweep: str | None = None,
    lineage: str | None = None,
    trial_seconds: int | None = None,
    reports: int | None = None,
    meter: Meter | Literal["auto"] | None = "auto",
    device_memory: DeviceMemory | Literal["auto"] | None = "auto",
) -> GovernedTuner:
    """The same Tuner, whose trials run only within limits.

    Every trial is priced before it starts, runs under a lease that ends it when it is lost, and has each
    report judged; all of it is in the ledger's audit. The Tuner's own search, scheduler, callbacks and
    results stay what they are.

    A trial that is paused claims its whole price again before it goes on: leave room in a budget for one
    price more per trial. One whose worker is lost, or whose report comes after its lease was over, fails:
    Tune tries it again where its `FailureConfig` says so. Runs of one name come one after another: of two at
    once, the one that began last closes what is left of both.

    Args:
        tuner: any Tuner, new or restored. It is not changed.
        limits: an object, a mapping, or the path of a YAML file.
        cost: gives the claim of a configuration, or a mapping of some of its fields; one that is left out
            is taken at its ceiling. A model whose FLOPs can't be counted runs only where forward_flops is
            told, and under the ceiling. A trial whose memory_bytes is told, and under the ceiling, dies
            where its process grows by more than that and 256 MiB; one with GPUs where what it takes of
            them does, and the host's memory is not looked at then.
        ledger: SQLAlchemy URL; None for the ledger that the cluster's governor keeps, or, where there is
            none, one beside the run.
        governor_key: public key that the governor must prove; "" for the one beside the ledger, or else the
            first that it shows.
        checkpoints: folders on the governor's host, of another disk or a mounted share, that the signed ends
            of the audit are written to as well, for good.
        sweep: name in the ledger; the run's where it is None. Runs of one name share its budgets.
        lineage: line of champions that its improvement is judged in, together with every other sweep of that
            name on the ledger; None for one of its own.
        trial_seconds: longest time of one trial; a worker that takes longer dies.
        reports: that a trial makes. Where nobody tells, its whole claim is charged when it has begun.
        meter: counts the models that run and refuses those over a ceiling or over their price; None for
            nobody, "auto" for the installed ones.
        device_memory: tells what a trial's own process takes of its GPUs; "auto" for what is installed,
            which is of torch's tensors. With None nobody looks at the memory of a trial with GPUs.

    Raises:
        ValueError: the tuner can't be governed.
        PriceError: a budget counts what nobody tells.
        DocumentError: the limits are malformed.
    """
    if tuner._is_ray_client:
        raise ValueError("tuner: a Tuner of a Ray client runs elsewhere; govern it on the cluster itself")
    limits = _limits(limits)
    pricing = Pricing(
        bounds=limits.bounds,
        cost=cost,
        trial_seconds=trial_seconds,
        reports=reports,
        counted=_counted(limits),
    )
    internal: Any = tuner._local_tuner
    try_price(pricing, internal.param_space)
    folders = tuple(Path(folder).expanduser().absolute() for folder in checkpoints)
    home = Home(ledger=ledger, key=governor_key, checkpoints=folders)
    watch: dict[str, Any] = {"meter": meter, "device_memory": device_memory}
    return GovernedTuner(
        tuner, pricing=pricing, limits=limits, home=home, sweep=sweep, lineage=lineage, **watch
    )


@dataclass(frozen=True, kw_only=True)
class Home:
    """Which governor binds a Tuner.

    Attributes:
        ledger: the ledger that it must keep; None for any.
        key: the public key that it must prove; "" for any.
        checkpoints: folders that it signs the audit into from now on.
    """

    ledger: str | None
    key: str
    checkpoints: tuple[Path, ...] = ()

    def connect(self, storage: Path) -> GovernorClient:
        """The governor; where nobody names a ledger and there is none, one with a ledger in this folder."""
        reach = connect if self.ledger else connect_to_any
        url = self.ledger or f"sqlite:///{storage / LEDGER}"
        return reach(url, state=storage, key=self.key, checkpoints=self.checkpoints)


class GovernedTuner(Tuner):
    """A Tuner whose trials run under limits; see `govern`.

    Attributes:
        sweep: its name in the ledger.
        lineage: that its improvement is judged in; None for one of its own.
    """

    def __init__(
        self,
        tuner: Tuner,
        *,
        pricing: Pricing,
        limits: Limits,
        home: Home,
        sweep: str | None,
        lineage: str | None = None,
        meter: Meter | Literal["auto"] | None,
        device_memory: DeviceMemory | Literal["auto"] | None,
    ) -> None:
        self._internal = _copied(tuner._local_tuner)
        super().__init__(_tuner_internal=self._internal)
        self._pricing, self._limits = pricing, limits
        self._meter, self._device_memory = meter, device_memory
        self._home = home
        self._trained = _class_of(self._internal.converted_trainable)
        self._trained_name = Experiment.get_trainable_name(self._internal.converted_trainable)
        self.sweep = _plain("sweep", sweep or str(self._internal.get_run_config().name))
        self.lineage = None if lineage is None else _plain("lineage", lineage)

    def fit(self) -> ResultGrid:
        """Open the sweep, run it, close it.

        Raises:
            SafetyError: the governor or its ledger is at fault, or a cap is above the cluster's.
            PriceError: another sweep's limits count what nobody tells of this one.
        """
        if not ray.is_initialized():
            ray.init()
        governor = self.governor()
        in_force = governor.open_sweep(self.sweep, self._limits, self.lineage)
        heard = Heard()
        try:
            governance = self._governance(governor, in_force, heard)
            return self._fit(governor, governance, in_force)
        finally:
            self._close(governor, heard)

    def governor(self) -> GovernorClient:
        """The cluster's governor, as this tuner reaches it.

        Raises:
            LedgerError: it keeps another ledger than the one that is asked for.
        """
        return self._home.connect(self._storage())

    def _storage(self) -> Path:
        storage = str(self._internal.get_run_config().storage_path or DEFAULT_STORAGE_PATH)
        local = DEFAULT_STORAGE_PATH if "://" in storage else storage
        return Path(local).expanduser().absolute()

    def _governance(self, governor: GovernorClient, in_force: Limits, heard: Heard) -> Governance:
        budgets = governor.status(self.sweep).budgets
        counted = frozenset(budget.resource for budget in budgets if budget.limited)
        pricing = replace(self._pricing, bounds=in_force.bounds, counted=counted)
        if pricing.cost is None:
            pricing({})
        patient = Patient(governor, lambda: False)
        return Governance(
            authority=patient, sweep=self.sweep, price=pricing, digest=object_digest, heard=heard
        )

    def _fit(self, governor: GovernorClient, governance: Governance, in_force: Limits) -> ResultGrid:
        internal = _copied(self._internal)
        run = copy.copy(internal.get_run_config())
        metric = metric_of(internal._tune_config)
        stopping = governed_stop(run.stop, governance, metric)
        with stopping as stop, environment(_LENIENT), watched(governance):
            run.stop = stop
            internal._run_config = run
            internal._tune_config = governed(internal._tune_config, governance, internal.param_space)
            terms = self._terms(governor, in_force)
            internal.trainable = leased(self._trained, self._trained_name, terms)
            grid: ResultGrid = internal.fit()
        self._internal._experiment_analysis = internal._experiment_analysis
        return grid

    def _terms(self, governor: GovernorClient, in_force: Limits) -> Terms:
        device_memory = self._device_memory
        return Terms(
            authority=governor,
            sweep=self.sweep,
            digest=object_digest,
            meters=found_meters() if self._meter == "auto" else self._meter,
            max_memory=in_force.bounds.max_memory,
            device_memory=found_device_memories() if device_memory == "auto" else device_memory,
        )

    def _close(self, governor: GovernorClient, heard: Heard) -> None:
        try:
            governor.close_sweep(self.sweep, heard.usage)
        except SafetyError as error:  # what led here says more
            logger.error("sweep %s: not closed, its leases end by themselves: %s", self.sweep, error)


def _plain(what: str, name: str) -> str:
    try:
        return plain_name(name, MOST_OF_A_RUN)
    except ValueError as error:
        raise ValueError(f"{what}: {name!r:.80}: {error}") from None


def _copied(internal: Any) -> Any:
    # its own copying leaves the trainable out
    copied = object.__new__(type(internal))
    vars(copied).update(vars(internal))
    return copied


def _limits(given: Limits | Mapping[str, Any] | str | Path) -> Limits:
    if isinstance(given, Limits):
        return given
    return limits_from_yaml(Path(given)) if isinstance(given, str | Path) else limits_from_dict(given)


def _counted(limits: Limits) -> frozenset[str]:
    """Resources that these limits put a budget on and whose amounts must be told."""
    names = {"train_flops": TRAIN_GFLOP, "wall_seconds": WALL_MS, "gpu_seconds": GPU_MS}
    budgets = (limits.cluster, limits.sweep)
    return frozenset(
        resource
        for name, resource in names.items()
        if any(getattr(budget, name) is not None for budget in budgets)
    )


def _class_of(trainable: Any) -> type[Trainable]:
    if isinstance(trainable, str):
        trainable = get_trainable_cls(trainable)
    if isinstance(trainable, BaseTrainer):
        raise ValueError("tuner: a trainer of Ray Train computes in processes that hold no lease")
    if isinstance(trainable, type) and issubclass(trainable, Trainable):
        return trainable
    return wrap_function(trainable)
