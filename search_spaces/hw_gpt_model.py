"""The language model of HW-GPT-Bench: attention and gated feed-forward side by side in every layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.heads import Head
from search_spaces.hw_gpt import HEAD_SIZE, GptSpec
from search_spaces.transformer_model import rotary_table, rotate

ROTATED = HEAD_SIZE // 2
INITIAL_STD = 0.02


class Attention(nn.Module):
    """Causal self-attention whose heads have one size, whatever the width: (B, L, embed) to the same."""

    def __init__(self, embed: int, heads: int, *, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(embed, 3 * heads * HEAD_SIZE, bias=bias)
        self.proj = nn.Linear(heads * HEAD_SIZE, embed, bias=bias)

    def forward(self, x: Tensor, rotary: Tensor) -> Tensor:
        """Attend to this and earlier positions; half of a head's channels are rotated."""
        batch, length, _ = x.shape
        qk, v = (
            self.qkv(x)
            .view(batch, length, 3 * self.heads, HEAD_SIZE)
            .split((2 * self.heads, self.heads), dim=2)
        )
        qk = torch.cat((rotate(qk[..., :ROTATED], rotary), qk[..., ROTATED:]), dim=-1)
        q, k = qk.transpose(1, 2).chunk(2, dim=1)
        y = F.scaled_dot_product_attention(q, k, v.transpose(1, 2), is_causal=True)
        out: Tensor = self.proj(y.transpose(1, 2).reshape(batch, length, self.heads * HEAD_SIZE))
        return out


class FeedForward(nn.Module):
    """Three matrices around a gated silu: (B, L, embed) to the same."""

    def __init__(self, embed: int, hidden: int, *, bias: bool) -> None:
        super().__init__()
        self.gate = nn.Linear(embed, hidden, bias=bias)
        self.up = nn.Linear(embed, hidden, bias=bias)
        self.proj = nn.Linear(hidden, embed, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map every position alone."""
        out: Tensor = self.proj(F.silu(self.gate(x)) * self.up(x))
        return out


class Layer(nn.Module):
    """Attention and feed-forward of the same input, each behind its own norm: (B, L, embed) to the same."""

    def __init__(self, spec: GptSpec, index: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(spec.embed)
        self.attention = Attention(spec.embed, spec.heads[index], bias=spec.bias)
        self.ffn_norm = nn.LayerNorm(spec.embed)
        self.ffn = FeedForward(spec.embed, spec.embed * spec.mlp_ratios[index], bias=spec.bias)

    def forward(self, x: Tensor, rotary: Tensor) -> Tensor:
        """Add both to the stream."""
        out: Tensor = x + self.attention(self.attention_norm(x), rotary) + self.ffn(self.ffn_norm(x))
        return out


class Gpt(nn.Module):
    """The language model that a spec describes; embedding and readout are two matrices."""

    rotary: Tensor

    def __init__(self, spec: GptSpec, *, head: Head) -> None:
        super().__init__()
        self.name = head.name
        self.embedding = nn.Embedding(head.classes, spec.embed)
        self.layers = nn.ModuleList(Layer(spec, index) for index in range(spec.n_layer))
        self.norm = nn.LayerNorm(spec.embed)
        self.readout = nn.Linear(spec.embed, head.classes, bias=False)
        self.register_buffer("rotary", rotary_table(head.length, ROTATED), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=INITIAL_STD)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Token ids (B, L) to next-token logits (B, L, classes)."""
        x: Tensor = self.embedding(inputs[self.name])
        for layer in self.layers:
            x = layer(x, self.rotary)
        return {self.name: self.readout(self.norm(x))}
