"""The learner of architectures: a controller that writes them, a predictor that screens them, and a memory."""

from rsi_ray.meta_learner.learner import MetaLearner, Prediction

__all__ = ["MetaLearner", "Prediction"]
