"""The learner of architectures: a controller that writes them, a predictor that screens them, its memory."""

from rsi_ray.samplers.meta_learner.learner import MetaLearner
from rsi_ray.samplers.meta_learner.screen import Prediction

__all__ = ["MetaLearner", "Prediction"]
