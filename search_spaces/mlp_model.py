"""The multilayer perceptron that a spec describes: hidden layers, and readouts of the last one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.heads import TableHead
from search_spaces.mlp import Activation, MLPNorm, MLPSpec


def gated_silu(hidden: Tensor) -> Tensor:
    """The silu of one half times the other: (B, 2 x units) to (B, units)."""
    gate, value = hidden.chunk(2, dim=-1)
    return F.silu(gate) * value


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "swiglu": gated_silu,
}


def make_norm(kind: MLPNorm, width: int) -> nn.Module:
    """A norm over the units of each row, or nothing."""
    return nn.LayerNorm(width) if kind == "layernorm" else nn.Identity()


class Layer(nn.Module):
    """One hidden layer: (B, before) to (B, width); the first reads the table as it is."""

    def __init__(self, spec: MLPSpec, before: int, width: int, *, is_first: bool) -> None:
        super().__init__()
        self.is_residual = spec.residual and before == width and not is_first
        self.norm = nn.Identity() if is_first else make_norm(spec.norm, before)
        self.linear = nn.Linear(before, (2 if spec.activation == "swiglu" else 1) * width)
        self.activation = ACTIVATIONS[spec.activation]
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map every row alone."""
        out: Tensor = self.dropout(self.activation(self.linear(self.norm(x))))
        return x + out if self.is_residual else out


class MLP(nn.Module):
    """A shared backbone, and one readout per head."""

    def __init__(self, spec: MLPSpec, *, heads: tuple[TableHead, ...]) -> None:
        super().__init__()
        widths, last = (heads[0].features, *spec.widths), spec.widths[-1]
        layers = [
            Layer(spec, before, width, is_first=index == 0)
            for index, (before, width) in enumerate(pairwise(widths))
        ]
        self.backbone = nn.Sequential(*layers, make_norm(spec.norm, last))
        # The prefix keeps a task called "keys" or "items" from shadowing the dict's own methods.
        self.readouts = nn.ModuleDict({f"to_{head.name}": nn.Linear(last, head.outputs) for head in heads})
        self.init_weights()

    def init_weights(self) -> None:
        """Fill every weight; also after `to_empty` of a model made on the meta device."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.LayerNorm):
                module.reset_parameters()
            if isinstance(module, nn.Linear) and not name.startswith("readouts."):
                # So that a signal keeps its size through layers that have no norm.
                nn.init.kaiming_normal_(module.weight)

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rows (B, features) of any of the heads to their logits or numbers, (B, outputs)."""
        return {name: self.readouts[f"to_{name}"](self.backbone(rows)) for name, rows in inputs.items()}
