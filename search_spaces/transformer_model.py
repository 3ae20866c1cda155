"""The transformer that a spec describes: pre-norm, causal, grouped key-value heads, no biases in linears."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.heads import Head
from search_spaces.transformer import Norm, TransformerSpec, is_tied

EPSILON = 1e-5
READOUT_STD = 0.02
ROTARY_BASE = 10_000.0


def make_norm(kind: Norm, width: int) -> nn.Module:
    """A norm over the last dimension, with its gain (and, for layernorm, its bias)."""
    return nn.LayerNorm(width, eps=EPSILON) if kind == "layernorm" else nn.RMSNorm(width, eps=EPSILON)


def rotary_table(context: int, head_size: int) -> Tensor:
    """Cosines and signed sines for `rotate`, shape (2, context, 1, head_size)."""
    frequencies = ROTARY_BASE ** (-torch.arange(0, head_size, 2, dtype=torch.float32) / head_size)
    angles = torch.outer(torch.arange(context, dtype=torch.float32), frequencies)
    cos, sin = angles.cos(), angles.sin()
    return torch.stack((torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)))[:, :, None]


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate the channel pairs (i, i + head_size / 2) of x (B, L, heads, head_size) by their position."""
    cos, signed_sin = table[0, : x.size(1)], table[1, : x.size(1)]
    return torch.addcmul(x * cos, x.roll(x.size(-1) // 2, dims=-1), signed_sin)


class Attention(nn.Module):
    """Causal self-attention: (B, L, width) to (B, L, width)."""

    def __init__(self, spec: TransformerSpec) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_size = spec.heads, spec.kv_heads, spec.head_size
        self.qkv = nn.Linear(spec.width, (spec.heads + 2 * spec.kv_heads) * spec.head_size, bias=False)
        self.proj = nn.Linear(spec.width, spec.width, bias=False)

    def forward(self, x: Tensor, rotary: Tensor | None) -> Tensor:
        """Attend to this and earlier positions."""
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, self.heads + 2 * self.kv_heads, self.head_size)
        qk, v = qkv.split((self.heads + self.kv_heads, self.kv_heads), dim=2)
        if rotary is not None:
            qk = rotate(qk, rotary)
        q, k = qk.split((self.heads, self.kv_heads), dim=2)
        y = F.scaled_dot_product_attention(
            q.transpose(1, 2), self._for_every_query(k), self._for_every_query(v), is_causal=True
        )
        y = y.transpose(1, 2).reshape(batch, length, width)
        out: Tensor = self.proj(y)
        return out

    def _for_every_query(self, kv: Tensor) -> Tensor:
        """(B, L, kv_heads, d) to (B, heads, L, d)."""
        # Copied rather than enable_gqa: counted alike by every torch, and fused on every device.
        groups = self.heads // self.kv_heads
        return (kv if groups == 1 else kv.repeat_interleave(groups, dim=2)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two matrices around a gelu, or three for a gated silu: (B, L, width) to (B, L, width)."""

    def __init__(self, spec: TransformerSpec) -> None:
        super().__init__()
        self.gated = spec.ffn_kind == "swiglu"
        self.up = nn.Linear(spec.width, (2 if self.gated else 1) * spec.ffn_width, bias=False)
        self.proj = nn.Linear(spec.ffn_width, spec.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map every position alone."""
        hidden = self.up(x)
        if self.gated:
            gate, value = hidden.chunk(2, dim=-1)
            hidden = F.silu(gate) * value
        else:
            hidden = F.gelu(hidden, approximate="tanh")
        out: Tensor = self.proj(hidden)
        return out


class Block(nn.Module):
    """One layer of the residual stream."""

    def __init__(self, spec: TransformerSpec) -> None:
        super().__init__()
        self.attention_norm = make_norm(spec.norm, spec.width)
        self.attention = Attention(spec)
        self.ffn_norm = make_norm(spec.norm, spec.width)
        self.ffn = FeedForward(spec)
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, x: Tensor, rotary: Tensor | None) -> Tensor:
        """(B, L, width) to (B, L, width)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), rotary))
        out: Tensor = x + self.dropout(self.ffn(self.ffn_norm(x)))
        return out


class Transformer(nn.Module):
    """A shared backbone, and one readout per head."""

    rotary: Tensor | None

    def __init__(self, spec: TransformerSpec, *, heads: tuple[Head, ...], vocab: int) -> None:
        super().__init__()
        self.spec = spec
        self.heads = {head.name: head for head in heads}
        context = max(head.length for head in heads)
        self.embedding = nn.Embedding(vocab, spec.width)
        self.positions = nn.Embedding(context, spec.width) if spec.position == "learned" else None
        self.dropout = nn.Dropout(spec.dropout)
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.depth))
        self.norm = make_norm(spec.norm, spec.width)
        # The prefix keeps a task called "keys" or "items" from shadowing the dict's own methods.
        self.readouts = nn.ModuleDict(
            {
                f"to_{head.name}": nn.Linear(spec.width, head.classes, bias=False)
                for head in heads
                if not is_tied(head, spec, vocab)
            }
        )
        rotary = rotary_table(context, spec.head_size) if spec.position == "rotary" else None
        self.register_buffer("rotary", rotary, persistent=False)
        self.init_weights()

    def init_weights(self) -> None:
        """Fill every weight and table; also after `to_empty` of a model made on the meta device."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=self._initial_std(name, module))
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=1 / math.sqrt(self.spec.width))
            elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
                module.reset_parameters()
        if self.rotary is not None:
            with torch.device(self.rotary.device):
                self.rotary.copy_(rotary_table(self.rotary.size(1), self.spec.head_size))

    def _initial_std(self, name: str, linear: nn.Linear) -> float:
        if name.startswith("readouts."):
            return READOUT_STD
        # Every layer adds two branches to the stream; scaled, their sum keeps its variance at any depth.
        branches = 2 * self.spec.depth if name.endswith(".proj") else 1
        return 1 / math.sqrt(branches * linear.in_features)

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Token ids (B, length) of any of the heads to their logits: (B, length, classes) or (B, classes)."""
        return {name: self.read(self.heads[name], self.stream(tokens)) for name, tokens in inputs.items()}

    def stream(self, tokens: Tensor) -> Tensor:
        """Token ids (B, L) to the normed residual stream (B, L, width)."""
        x: Tensor = self.embedding(tokens)
        if self.positions is not None:
            x = x + self.positions.weight[: tokens.size(1)]
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, self.rotary)
        out: Tensor = self.norm(x)
        return out

    def read(self, head: Head, x: Tensor) -> Tensor:
        """The head's logits from the stream (B, L, width)."""
        x = x if head.dense else x[:, -1]
        if is_tied(head, self.spec, self.embedding.num_embeddings):
            return F.linear(x, self.embedding.weight)
        logits: Tensor = self.readouts[f"to_{head.name}"](x)
        return logits
