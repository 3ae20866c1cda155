"""Mixed precision's memory against what autograd keeps under autocast, on a CPU."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.autograd.graph import saved_tensors_hooks

from search_spaces import Head, TransformerSpace, TransformerSpec
from search_spaces.transformer_memory import mixed_memory_bytes

BATCH = 2
HEADS = (
    Head(name="text", classes=96, length=64, dense=True),
    Head(name="parity", classes=2, length=32, dense=False),
)
SPACE = TransformerSpace(heads=HEADS, batch_size=BATCH, vocab=96)
VARIANTS = list(
    itertools.product(
        ("layernorm", "rmsnorm"), ("learned", "rotary"), (4, 1), ("gelu", "swiglu"), (True, False)
    )
)


def spec_of(norm, position, kv_heads, ffn_kind, tied):
    return TransformerSpec(
        depth=2, width=64, heads=4, kv_heads=kv_heads, ffn_width=192,
        ffn_kind=ffn_kind, norm=norm, position=position, tied=tied,
    )  # fmt: skip


def kept_bytes(spec):
    """What autograd saves of the forward and the loss, weights and buffers left out."""
    torch.manual_seed(0)
    model = SPACE.build(spec)
    own = {one.untyped_storage()._cdata for one in (*model.parameters(), *model.buffers())}
    saved = {}

    def keep(tensor):
        saved[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    tokens = {head.name: torch.randint(0, head.classes, (BATCH, head.length)) for head in HEADS}
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(tokens)
        losses = [
            F.cross_entropy(one.float().flatten(0, -2), one.argmax(-1).flatten()) for one in outputs.values()
        ]
    assert torch.stack(losses).isfinite().all()
    return sum(storage.nbytes() for key, storage in saved.items() if key not in own)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: "-".join(map(str, variant)))
def test_what_is_kept_for_the_backward_is_priced_to_within_two_in_a_hundred(variant):
    spec = spec_of(*variant)
    params = SPACE.cost(spec).params
    logits = BATCH * (96 * 64 + 2)
    # of the logits autograd keeps one copy in float32, and of their targets the ids
    priced = mixed_memory_bytes(SPACE, spec) - 12 * params - max(4 * params + 10 * logits, 12 * logits)
    found = kept_bytes(spec) - 4 * logits - 8 * BATCH * (64 + 1)
    assert found <= priced * 1.005
    assert priced <= found * 1.02


def test_a_large_model_takes_eighteen_bytes_a_parameter_and_not_sixteen():
    spec = spec_of("layernorm", "learned", 4, "gelu", True)
    large = TransformerSpec(
        depth=24, width=1792, heads=28, kv_heads=28, ffn_width=7168,
        ffn_kind="gelu", norm="layernorm", position="learned", tied=True,
    )  # fmt: skip
    assert mixed_memory_bytes(SPACE, large) > 17.9 * SPACE.cost(large).params
    assert mixed_memory_bytes(SPACE, spec) < SPACE.cost(spec).memory_bytes
