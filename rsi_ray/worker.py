"""Ray shell: the Trainable. Gate 3, lease, train, report."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from ray.tune import Trainable

from rsi_ray.artifact_store import Place
from rsi_ray.crew import Assignment, Crew, ray_train
from rsi_ray.cuda_memory import CudaMemory, OutOfMemory, give_back
from rsi_ray.cuda_memory import told as told_out_of_memory
from rsi_ray.device_metrics import ToldMemory
from rsi_ray.errors import ArtifactStoreError, WorkerLost
from rsi_ray.job import Job, Run
from rsi_ray.spec_text import MOST_CHARACTERS, spec_text
from rsi_ray.states import States
from rsi_ray.stored_weights import export_weights
from rsi_ray.training_job import TrainingJob
from safety import (
    Authority,
    Grant,
    LeaseLost,
    SafetyError,
    Usage,
    request_digest,
)
from safety.governance import REFUSED, marker, tellable, told
from safety.resources import resident_bytes
from safety.trainable import is_own_process, keeper_of_this_process

log = logging.getLogger(__name__)

STATE_FILE = "state.safetensors"


class Candidate(Trainable):
    """Trains one candidate after the other in one process; each under a lease of its own."""

    def setup(  # type: ignore[override]  # tune.with_parameters passes the keywords
        self,
        config: dict[str, Any],
        *,
        job: Job,
        authority: Authority,
        sweep: str,
        weights: Place,
        states: Place,
        state_seconds: float | None = None,
        threads: int = 1,
        run: str = "",
    ) -> None:
        """Take what all candidates of the sweep share.

        Args:
            config: the first candidate's configuration; Tune keeps it in `self.config`.
            job: what a candidate does.
            authority: the governor.
            sweep: name of the sweep.
            weights: where the weights of candidates go that were trained to the end.
            states: where that goes which another node goes on from where this one is lost.
            state_seconds: between two such states of a candidate; None for none.
            threads: of torch on the CPU, in each process that trains.
            run: its name, a generation's where the sweep is a loop's.
        """
        del config
        self._job, self._authority, self._sweep, self._weights = job, authority, sweep, weights
        self._named, self._threads, self._crew = run, threads, Crew()
        device = ToldMemory(CudaMemory(), lambda: self._keeper.grant.claim.memory_bytes, sweep)
        self._keeper = keeper_of_this_process(authority, memory=resident_bytes, device=device)
        self._states = States(states, state_seconds)
        self._run: Run | None = None
        self._reports, self._refused = 0, ""
        torch.set_num_threads(threads)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Make room for the next candidate."""
        del new_config
        self._close()
        return True

    def step(self) -> dict[str, Any]:
        """Train to the next report; before the first one, gate 3."""
        try:
            if self._run is None:
                self._begin()
                self._go_on_from_state()
            return self._train_on(self._keeper.grant)
        except LeaseLost as error:
            return {"done": True, REFUSED: str(error), **self._lease_if_begun()}
        except torch.OutOfMemoryError as error:
            full = self._told_full(error)
            self._settle_cut_short()
        except WorkerLost:
            # it may compute until its own deadline: the lease is left to be reaped, as a dead process's is
            self._crew.abandon()
            self._close()
            raise
        except Exception:
            self._settle_cut_short()
            raise
        # outside of the handler no traceback holds the candidate's tensors any more
        give_back()
        raise OutOfMemory(full)

    def _told_full(self, error: torch.OutOfMemoryError) -> str:
        try:
            return told_out_of_memory(error, self._keeper.grant.claim.memory_bytes)
        except LeaseLost:
            return str(error)

    def _lease_if_begun(self) -> dict[str, Any]:
        try:
            grant = self._keeper.grant
            return told(grant, self._cut_short(grant))
        except LeaseLost:
            return {}
        finally:
            self._close()

    def _train_on(self, grant: Grant) -> dict[str, Any]:
        # of the whole training, of which this lease may be a part
        done = self.training_iteration + 1 >= grant.claim.reports
        with self._keeper.computing():
            if self._reports:  # since it is asked for another one, the last was judged
                self._states.keep(self._digest, self.training_iteration, self._required_run().save)
            report = tellable(self._required_run().next_report())
            if done:
                self._export()
        self._reports += 1
        usage = grant.used(reports=self._reports, elapsed_ms=self._keeper.elapsed_ms())
        result = {**report, **told(grant, usage), "done": done}
        if done:
            # its state stays until it is known to have ended: this report may be lost on its way
            self._close()
        return result

    def _begin(self) -> None:
        if self._refused:
            raise LeaseLost(self._refused)
        # measured before the lease: counting on the meta device allocates and trains nothing
        measured = self._job.measure(self.config)
        key, self._digest = f"{self._sweep}/{self.trial_id}", request_digest(self.config)
        holder = f"{os.getpid()}@{self._local_ip}"
        self._keeper.begin(key, self._digest, holder, measured)
        with self._keeper.computing():
            self._build()

    def _begun_by_crew(self) -> Crew | None:
        """The candidate in training by several workers; None where this process trains it alone."""
        if not isinstance(self._job, TrainingJob) or self._job.resources.workers == 1:
            return None
        placement = self._job.placement(self.config)
        if placement.workers == 1:
            return None
        assignment = Assignment(
            job=self._job,
            config=self.config,
            authority=self._authority,
            grant=self._keeper.grant,
            placement=placement,
            sweep=self._sweep,
            trial=self.trial_id,
        )
        host, elapsed_ms = self._local_ip, self._keeper.elapsed_ms
        self._crew.begin(ray_train(), assignment, host=host, elapsed_ms=elapsed_ms)
        return self._crew

    def _go_on_from_state(self) -> None:
        """Where the candidate was in training on a node that is lost, it doesn't begin anew."""
        kept = self._states.begin(self._digest)
        if kept is None:
            return
        with self._keeper.computing():
            try:
                self._states.read(kept, self._required_run().restore)
                self._iteration = kept.reports
            except WorkerLost:
                raise
            except Exception as error:  # torn, exchanged, of another version, or its storage stays away
                log.warning("%s: begins anew, its state can't be read: %s", self.trial_id, error)
                if not isinstance(error, OSError | ArtifactStoreError):
                    self._states.forget()
                self._build()

    def _build(self) -> None:
        self._crew.end()
        self._crew = Crew()
        self._run = self._begun_by_crew() or self._job.begin(self.config)

    def _cut_short(self, grant: Grant) -> Usage:
        reports = grant.next_report(self._reports)
        return grant.used(reports=reports, elapsed_ms=self._keeper.elapsed_ms())

    def _settle_cut_short(self) -> None:
        self._crew.abandon()
        # what the failed step computed is not known, so all of it is charged
        with suppress(SafetyError):  # unsettled, its hold is spent in the end
            grant = self._keeper.grant
            self._authority.settle(grant.lease, grant.fence, self._cut_short(grant))
        self._close()

    def _export(self) -> None:
        export_weights(self._weights, self.trial_id, self._required_run().export)

    def _required_run(self) -> Run:
        if self._run is None:
            raise LeaseLost("no candidate is in training")
        return self._run

    def _close(self) -> None:
        self._crew.end()
        self._crew = Crew()
        self._keeper.end()
        self._run = None
        self._reports, self._refused = 0, ""

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the candidate's state as safetensors."""
        self._required_run().save(Path(checkpoint_dir) / STATE_FILE)

    def load_checkpoint(self, checkpoint: dict[str, Any] | str | None) -> None:
        """Continue from a saved state, under a lease as ever; a refusal shows in the next step."""
        try:
            if self._run is None:
                self._begin()
            self._states.begin(self._digest)
            with self._keeper.computing():
                self._required_run().restore(Path(str(checkpoint)) / STATE_FILE)
        except LeaseLost as error:
            self._close()
            self._refused = str(error)

    def cleanup(self) -> None:
        """End the lease's renewal, and the process: Tune calls this once, last of all."""
        self._close()
        if is_own_process():
            self._keeper.leave()

    def __repr__(self) -> str:
        """Shown by Ray, which asks once; by this it is known as governed while it holds no lease."""
        if not hasattr(self, "_sweep"):
            return "Candidate"
        names = marker(self._sweep, self.trial_id), self._named, spec_text(self.config)[:MOST_CHARACTERS]
        return " ".join(filter(None, names))
