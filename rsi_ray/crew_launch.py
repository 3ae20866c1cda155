"""Ray shell: starts the workers of a candidate as a Ray Train `TorchTrainer`."""

from __future__ import annotations

import tempfile
import threading
from functools import partial

from ray.train import FailureConfig, RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchConfig, TorchTrainer

from rsi_ray.crew import Assignment
from rsi_ray.crew_worker import work
from safety.cluster import SAYS
from safety.environment import environment
from safety.governance import marker

# read by Ray Train's controller, which has its own process
_QUICK = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
_START_SECONDS = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
# of a collective call, whose other processes may have died; a dead one mostly shows at once
COLLECTIVE_SECONDS = 600


class Training:
    """A `TorchTrainer` in a thread of this process, which owns it: what it starts ends with this process.

    Ray Train asks for the workers' cores and GPUs in a placement group of its own, all or none, and waits for
    them as long as the lease may last.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._trouble = ""
        self._thread = threading.Thread(target=self._fit, args=(assignment,), name="ray-train", daemon=True)
        self._thread.start()

    def trouble(self) -> str:
        """Why the workers don't run, or no longer."""
        return self._trouble or ("" if self._thread.is_alive() else "Ray Train has ended")

    def wait(self, seconds: float) -> None:
        """Wait until Ray Train has shut its workers down."""
        self._thread.join(seconds)

    def _fit(self, assignment: Assignment) -> None:
        seconds = {_START_SECONDS: str(max(1, assignment.grant.claim.wall_ms // 1000))}
        try:
            with tempfile.TemporaryDirectory() as folder, environment({**_QUICK, **seconds}):
                trainer_of(assignment, folder).fit()
        except Exception as error:  # of any kind: whoever waits for the workers tells it
            self._trouble = f"{type(error).__name__}: {error}".strip().splitlines()[0]


def trainer_of(assignment: Assignment, folder: str) -> TorchTrainer:
    """The trainer whose workers do what they are assigned; a worker that fails ends it.

    Args:
        assignment: what each does.
        folder: of this host, for what Ray Train notes down.
    """
    placement = assignment.placement
    says = marker(assignment.sweep, assignment.trial)
    return TorchTrainer(
        partial(_work, assignment),
        torch_config=TorchConfig(timeout_s=COLLECTIVE_SECONDS),
        scaling_config=ScalingConfig(
            num_workers=placement.workers,
            use_gpu=placement.gpus > 0,
            resources_per_worker=placement.bundle,
        ),
        # both are typed as those of the former version, which took less
        run_config=RunConfig(  # type: ignore[call-arg]
            name=f"{assignment.trial}-{assignment.grant.lease}",
            storage_path=folder,
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),  # type: ignore[call-arg]
            worker_runtime_env={"env_vars": {SAYS: says}},
        ),
    )


def _work(assignment: Assignment) -> None:
    work(assignment, get_context().get_world_rank())
