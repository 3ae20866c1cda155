"""Samplers by name, each of them fast at any length of a study and told of refusals."""

from rsi_ray.samplers.choice import SAMPLERS, sampler_of
from rsi_ray.samplers.evolution import EvolutionSampler
from rsi_ray.samplers.guarded import Guarded

__all__ = ["SAMPLERS", "EvolutionSampler", "Guarded", "sampler_of"]
