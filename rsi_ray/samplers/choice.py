"""The choice of a sampler: one of ours by name, or a user's own class."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from optuna.samplers import BaseSampler

from rsi_ray.own import own_class
from rsi_ray.samplers.cmaes import cmaes
from rsi_ray.samplers.evolution import evolution
from rsi_ray.samplers.gp import gp
from rsi_ray.samplers.guarded import Guarded
from rsi_ray.samplers.linear import linear
from rsi_ray.samplers.meta import meta
from rsi_ray.samplers.nsga2 import nsga2
from rsi_ray.samplers.random import random
from rsi_ray.samplers.tpe import tpe

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": tpe,
    "random": random,
    "gp": gp,
    "nsga2": nsga2,
    "cmaes": cmaes,
    "evolution": evolution,
    "linear": linear,
    "meta": meta,
}


def sampler_of(name: str, seed: int) -> BaseSampler:
    """Make a sampler.

    Args:
        name: one of `SAMPLERS`, or `module:Class` of an Optuna sampler, which is called with `seed=seed`
            where it takes a seed.
        seed: of its draws.

    Raises:
        ValueError: there is no such sampler; the message is one line.
    """
    if name in SAMPLERS:
        return SAMPLERS[name](seed)
    if ":" not in name:
        raise ValueError(f"{name!r}, expected one of {', '.join(SAMPLERS)}, or module:Class")
    own = own_class(name)
    if not (inspect.isclass(own) and issubclass(own, BaseSampler)):
        raise ValueError(f"{name!r}, expected a class of Optuna's samplers, found {own!r}")
    seeded = {"seed": seed} if "seed" in inspect.signature(own).parameters else {}
    try:
        return Guarded(own(**seeded), seed=seed)
    except Exception as error:  # it may want arguments that a name can't give
        raise ValueError(f"{name!r}, can't be made: {type(error).__name__}: {error}") from None
