"""What can be built, and what it costs."""

from search_spaces.convnet import ConvSpace, ConvSpec, ConvStage
from search_spaces.cost import Cost
from search_spaces.heads import Head, ImageHead, TableHead
from search_spaces.mlp import MLPSpace, MLPSpec
from search_spaces.random_trial import RandomTrial
from search_spaces.space import Choice, Sample, SearchSpace, Suggest
from search_spaces.transformer import GPT2_SMALL, TransformerSpace, TransformerSpec, gpt2_space

__all__ = [
    "GPT2_SMALL",
    "Choice",
    "ConvSpace",
    "ConvSpec",
    "ConvStage",
    "Cost",
    "Head",
    "ImageHead",
    "MLPSpace",
    "MLPSpec",
    "RandomTrial",
    "Sample",
    "SearchSpace",
    "Suggest",
    "TableHead",
    "TransformerSpace",
    "TransformerSpec",
    "gpt2_space",
]
