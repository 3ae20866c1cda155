"""Uniform draws."""

from __future__ import annotations

from optuna.samplers import BaseSampler, RandomSampler

from rsi_ray.samplers.guarded import Guarded


def random(seed: int) -> BaseSampler:
    """Random search without repeats."""
    return Guarded(RandomSampler(seed=seed), seed=seed)
