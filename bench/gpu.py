"""What candidates get out of a GPU: speed, memory against its estimate, and how many pass it in an hour.

`python -m bench.gpu [--full]` where a GPU is; elsewhere it says so. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import optuna
import ray
import torch

from bench.tokens import TokensTask
from rsi_ray.api import Sweep
from rsi_ray.compilation import Compile
from rsi_ray.cuda_memory import CudaMemory, begin_cuda, give_back
from rsi_ray.examination import gpus
from rsi_ray.hyperparameters import TrainingChoices
from rsi_ray.placement import AUTO, Gpus, Resources
from rsi_ray.training import Training
from rsi_ray.training_job import TrainingJob
from safety.governor_process import NAME, NAMESPACE
from safety.resources import resident_bytes
from search_spaces import TransformerSpace

CLASSES, LENGTH = 8192, 1024
SQUARE = 8192
LIMITS = {"bounds": {"max_params": 1e11, "max_flops": 1e18, "max_memory": 1e12}}


@dataclass(frozen=True, kw_only=True)
class Size:
    """A transformer of about so many parameters.

    Attributes:
        name: how many.
        depth, width, head_size: of it.
        batch_size: sequences of a step.
        length, classes: of a sequence, and of its tokens.
    """

    name: str
    depth: int
    width: int
    head_size: int
    batch_size: int
    length: int = LENGTH
    classes: int = CLASSES

    @property
    def config(self) -> dict[str, Any]:
        """What a sampler would have proposed."""
        return {"depth": self.depth, "ffn_ratio": 4}

    @property
    def task(self) -> TokensTask:
        """What it learns: one step's sequences are the hold-out."""
        return TokensTask(classes=self.classes, length=self.length, holdout_size=self.batch_size)

    @property
    def space(self) -> TransformerSpace:
        """The one that has it alone."""
        return TransformerSpace(
            heads=self.task.heads,
            batch_size=self.batch_size,
            vocab=self.classes,
            depth=(self.depth, self.depth),
            widths=(self.width,),
            head_sizes=(self.head_size,),
            kv_groups=(1,),
            ffn_ratio=(4, 4),
            ffn_kinds=("gelu",),
            norms=("layernorm",),
            positions=("learned",),
            tied=(True,),
        )

    def job(self, training: Training) -> TrainingJob:
        """What trains it."""
        task, training = self.task, replace(training, batch_size=self.batch_size)
        return TrainingJob(
            space=self.space,
            load_task=lambda: task,
            training=training,
            seed=0,
            trial_seconds=3600,
            resources=Resources(gpus=1.0),
        )


SIZES = (
    Size(name="10M", depth=10, width=256, head_size=64, batch_size=64),
    Size(name="100M", depth=13, width=768, head_size=64, batch_size=32),
    Size(name="1B", depth=26, width=1792, head_size=128, batch_size=8),
)
PACKED = Size(name="2M", depth=4, width=128, head_size=32, batch_size=16, length=256, classes=1024)


def main() -> None:
    """Measure all of it on the first GPU; where there is none, say so."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="more steps, and 64 candidates rather than 16")
    full = parser.parse_args().full
    if not torch.cuda.is_available():
        print("no GPU: there is nothing to measure here")
        print(json.dumps({"gpu": None, "rows": []}))
        return
    device = torch.device("cuda")
    used, resident = _used_bytes(), resident_bytes()
    begin_cuda(device)
    begun = {"context_bytes": _used_bytes() - used, "host_bytes": resident_bytes() - resident}
    peak = peak_flops(device, rounds=50 if full else 20)
    name = torch.cuda.get_device_name(device)
    print(f"{name}: {peak / 1e12:.0f} TFLOP/s in products of bfloat16 matrices of {SQUARE}; {begun}")
    rows = [speed(size, peak, steps=100 if full else 30) for size in SIZES]
    rates = packing(trials=64 if full else 16)
    print(json.dumps({"gpu": name, "peak_tflops": round(peak / 1e12, 1), **begun, "rows": rows, **rates}))


def _used_bytes() -> int:
    return gpus()[0].used_bytes


def peak_flops(device: torch.device, *, rounds: int, square: int = SQUARE) -> float:
    """FLOP/s of products of large bfloat16 matrices, the best of five turns."""
    a = torch.randn(square, square, device=device, dtype=torch.bfloat16)

    def multiply() -> None:
        for _ in range(rounds):
            a @ a
        _wait(device)

    return 2 * square**3 * rounds / min(_seconds(multiply) for _ in range(5))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def speed(size: Size, peak: float, *, steps: int) -> dict[str, Any]:
    """Tokens a second and share of the peak, eager and compiled; memory taken against memory claimed."""
    plain, compiled = (within_claim(size, steps, choice) for choice in ("never", "always"))
    row = {
        "size": size.name,
        **plain,
        "compiled_within_claim": compiled["within_claim"],
        "share_of_peak": round(plain["flops_per_s"] / peak, 4),
        "compiled_tokens_per_s": compiled["tokens_per_s"],
        "compiled_share_of_peak": round(compiled["flops_per_s"] / peak, 4),
        "compiled_taken_bytes": compiled["taken_bytes"],
        "compile_s": round(compiled["first_s"] - plain["first_s"], 1),
        "estimate_of_taken": round(plain["claimed_bytes"] / max(1, plain["taken_bytes"]), 3),
    }
    print(
        f"{size.name}: {row['params']:,} parameters, {row['tokens_per_s']:,.0f} tokens/s, "
        f"{row['share_of_peak']:.1%} of the peak (compiled {row['compiled_tokens_per_s']:,.0f}, "
        f"{row['compiled_share_of_peak']:.1%}, after {row['compile_s']} s); estimate of memory "
        f"{row['estimate_of_taken']} of the measured {row['taken_bytes']:,} bytes"
    )
    return row


def within_claim(size: Size, steps: int, compile_: Compile) -> dict[str, Any]:
    """What `trained` finds; without a limit where it doesn't fit into its claim, which is told."""
    try:
        return {"within_claim": True, **trained(size, steps, compile_=compile_)}
    except torch.OutOfMemoryError as error:
        print(f"{size.name}: not within its claim: {error}")
    give_back()
    return {"within_claim": False, **trained(size, steps, compile_=compile_, limited=False)}


def trained(size: Size, steps: int, *, compile_: Compile, limited: bool = True) -> dict[str, Any]:
    """Two epochs to warm up and a timed one, under the allocator's limit as in a sweep, unless told not to.

    The evaluation of one batch at the end of an epoch is in the time, and in the FLOPs.
    """
    training = Training(epochs=3, steps_per_epoch=steps, warmup_steps=0, compile=compile_)
    job, memory, resident = size.job(training), CudaMemory(), resident_bytes()
    claim = job.price(size.config)
    memory.begin()
    trainer = job.trainer(size.config)
    if not limited:
        torch.cuda.set_per_process_memory_fraction(1.0)
    first = _seconds(trainer.run_epoch)
    before = trainer.run_epoch()
    started = time.perf_counter()
    after = trainer.run_epoch()
    seconds = time.perf_counter() - started
    taken = memory.grown_bytes()
    del trainer
    give_back()
    return {
        "params": claim.params,
        "batch_size": size.batch_size,
        "tokens_per_s": round((after.samples - before.samples) * size.length / seconds),
        "flops_per_s": (after.flops - before.flops) / seconds,
        "first_s": round(first, 2),
        "claimed_bytes": claim.memory_bytes,
        "taken_bytes": taken,
        "host_growth_bytes": resident_bytes() - resident,
    }


def packing(*, trials: int, gpu_memory: int | None = None, size: Size = PACKED) -> dict[str, Any]:
    """Candidates an hour that ask for the share they need, against one at a time on a whole GPU.

    Args:
        trials: candidates of each sweep.
        gpu_memory: bytes of the GPU, where no driver tells.
        size: of the candidates.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    if not ray.is_initialized():
        ray.init(address="local", log_to_driver=False, logging_level=logging.ERROR)
    alone, packed = (candidates_per_hour(size, trials, gpu, gpu_memory) for gpu in (1.0, AUTO))
    memory = gpu_memory or min(gpu.total_bytes for gpu in gpus())
    claimed = size.job(Training()).price(size.config).memory_bytes
    share = Resources(gpus=AUTO, gpu_memory=memory).placement(claimed).gpus
    print(f"candidates an hour: {alone:.0f} one at a time, {packed:.0f} on shares of {share}")
    times = round(packed / alone, 2)
    return {"alone_per_hour": round(alone), "packed_per_hour": round(packed), "packed_times": times}


def candidates_per_hour(size: Size, trials: int, gpu: Gpus, gpu_memory: int | None) -> float:
    """Of a sweep of candidates of one size; the start of its workers is in it."""
    training = Training(epochs=4, steps_per_epoch=100, batch_size=size.batch_size, compile="never")
    with tempfile.TemporaryDirectory() as folder:
        sweep = Sweep(
            size.space,
            size.task,
            LIMITS,
            training=training,
            # a candidate that was measured isn't trained again
            hyperparameters=TrainingChoices(learning_rate=(1e-4, 1e-3)),
            sampler="random",
            scheduler="fifo",
            trials=trials,
            gpus=gpu,
            gpu_memory=gpu_memory,
            keep_weights=0,
            storage=folder,
        )
        try:
            seconds = _seconds(sweep.run)
        finally:
            ray.kill(ray.get_actor(NAME, namespace=NAMESPACE))
    return trials / seconds * 3600


if __name__ == "__main__":
    main()
