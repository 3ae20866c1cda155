"""What a transformer holds on a GPU while it is trained in mixed precision, in exact integers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search_spaces.transformer import FFN_MATRICES, is_tied

if TYPE_CHECKING:
    from search_spaces.transformer import TransformerSpace, TransformerSpec

# of each feed-forward unit and token, in bfloat16: what goes into the nonlinearity and what comes out of it
FFN_BYTES = {"gelu": 4, "swiglu": 8}
# RMSNorm that isn't fused keeps the normed values in float32 as well
NORM_BYTES = {"layernorm": 6, "rmsnorm": 10}
# of a norm and token, in float32: its mean and its deviation
STATISTICS_BYTES = 8


def mixed_memory_bytes(space: TransformerSpace, spec: TransformerSpec) -> int:
    """Price the memory of a training step under bfloat16 autocast, with weights and AdamW in float32.

    The most is held either at the end of the forward, beside the step before's gradients, or when the
    backward of the loss begins. Held are 12 bytes a parameter (weight, Adam's two moments), 4 of its
    gradient, 2 of each weight of a product, which autocast copies; what autograd keeps of every token and
    layer; and 12 bytes of each logit as the backward begins, 10 before. A fused attention keeps its inputs,
    its result, and a number of each query. Left out: workspaces, temporaries of the backward, what the
    allocator can't use.
    """
    cost = space.cost(spec)
    tokens = space.batch_size * sum(head.length for head in space.heads)
    places = [head.length if head.dense else 1 for head in space.heads]
    pairs = list(zip(space.heads, places, strict=True))
    logits = space.batch_size * sum(head.classes * places for head, places in pairs)
    kept = tokens * (spec.depth * _layer_bytes(spec) + _around_bytes(spec))
    kept += 2 * spec.width * space.batch_size * sum(places)
    held = 12 * cost.params + 2 * _product_weights(space, spec) + kept
    return held + max(4 * cost.params + 10 * logits, 12 * logits)


def _layer_bytes(spec: TransformerSpec) -> int:
    """Kept of one token by one layer."""
    norms = 2 * (NORM_BYTES[spec.norm] * spec.width + STATISTICS_BYTES)
    attention = _attention_bytes(spec) + 2 * spec.width + 4 * spec.heads
    dropped = 2 * 2 * spec.width if spec.dropout else 0
    return norms + attention + FFN_BYTES[spec.ffn_kind] * spec.ffn_width + dropped


def _attention_bytes(spec: TransformerSpec) -> int:
    """Queries, keys and values of one token, as attention keeps them, and what they are views of."""
    width, kv_width = spec.width, spec.head_size * spec.kv_heads
    views, rotated, repeated = 2 * (width + 2 * kv_width), spec.position == "rotary", 4 * width
    if spec.kv_heads < spec.heads:
        return repeated + (2 * width if rotated else views)
    return views + (2 * (width + kv_width) if rotated else 0)


def _around_bytes(spec: TransformerSpec) -> int:
    """Kept of one token before and after the layers: its id, and the last norm without its copy."""
    last = (NORM_BYTES[spec.norm] - 2) * spec.width + STATISTICS_BYTES
    return 8 + last + (4 * spec.width if spec.dropout else 0)


def _product_weights(space: TransformerSpace, spec: TransformerSpec) -> int:
    """Weights that are factors of products: those of the layers, and of each readout."""
    kv_width = spec.head_size * spec.kv_heads
    layer = spec.width * (2 * (spec.width + kv_width) + FFN_MATRICES[spec.ffn_kind] * spec.ffn_width)
    tied = any(is_tied(head, spec, space.vocab) for head in space.heads)
    own = sum(head.classes for head in space.heads if not is_tied(head, spec, space.vocab))
    return spec.depth * layer + spec.width * (own + (space.vocab if tied else 0))
