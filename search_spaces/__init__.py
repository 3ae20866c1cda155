"""What can be built, and what it costs."""

from search_spaces.cost import Cost
from search_spaces.random_trial import RandomTrial
from search_spaces.space import Choice, Sample, SearchSpace, Suggest
from search_spaces.transformer import GPT2_SMALL, Head, TransformerSpace, TransformerSpec, gpt2_space

__all__ = [
    "GPT2_SMALL",
    "Choice",
    "Cost",
    "Head",
    "RandomTrial",
    "Sample",
    "SearchSpace",
    "Suggest",
    "TransformerSpace",
    "TransformerSpec",
    "gpt2_space",
]
