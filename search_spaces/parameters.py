"""The parameters by which a space would suggest a spec that is there already."""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch
from typing import Any

from search_spaces.convnet_spec import ConvSpec
from search_spaces.given_trial import GivenTrial
from search_spaces.mlp import MLPSpec
from search_spaces.space import Choice, Suggests
from search_spaces.transformer import TransformerSpec


def parameters_of(space: Suggests[Any], spec: Any) -> dict[str, Choice]:
    """The parameters of a spec, by full name.

    Raises:
        ValueError: the space doesn't have it, or it is of a kind whose parameters only its space knows.
    """
    trial = GivenTrial(_values(spec))
    if space.suggest(trial) != spec:
        raise ValueError(f"spec {spec!r:.200}: not one of this space")
    return trial.params


@singledispatch
def _values(spec: object) -> Mapping[str, object]:
    """Everything that a space may ask of a spec."""
    raise ValueError(
        f"{type(spec).__name__}: expected a spec of a space of this project, or its parameters as a mapping"
    )


@_values.register
def _(spec: TransformerSpec) -> Mapping[str, object]:
    named = ("depth", "width", "ffn_kind", "norm", "position", "tied", "dropout")
    return {
        **{name: getattr(spec, name) for name in named},
        "head_size": spec.head_size,
        "kv_groups": spec.heads // spec.kv_heads,
        "ffn_ratio": spec.ffn_width // spec.width,
    }


@_values.register
def _(spec: ConvSpec) -> Mapping[str, object]:
    named = ("depth", "width", "kernel_size", "expansion", "groups", "squeeze_excite", "downsample")
    values: dict[str, object] = {"stages": len(spec.stages), "dropout": spec.dropout}
    for index, stage in enumerate(spec.stages):
        values |= {f"{name}_{index}": getattr(stage, name) for name in named}
        values[f"depthwise_{index}"] = stage.groups == stage.hidden
    return values


@_values.register
def _(spec: MLPSpec) -> Mapping[str, object]:
    named = ("activation", "norm", "residual", "dropout")
    widths = {f"width_{index}": width for index, width in enumerate(spec.widths)}
    return {"depth": len(spec.widths), **widths, **{name: getattr(spec, name) for name in named}}
