"""What a training step holds and computes, from what one sample needs."""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces.cost import Cost

# Float32: the weight, its gradient, and Adam's two moments.
BYTES_PER_PARAM = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class PerSample:
    """One candidate, one sample of every head.

    Attributes:
        params: trainable parameters.
        forward_flops: FLOPs of the forward (1 multiply-accumulate = 2 FLOPs).
        kept_bytes: bytes that the forward keeps for the backward.
        buffer_bytes: bytes of what is not trained and is there once, whatever the batch.
    """

    params: int
    forward_flops: int
    kept_bytes: int
    buffer_bytes: int = 0


def training_cost(one: PerSample, batch_size: int) -> Cost:
    """Price the training at a batch size.

    `train_step_flops` is 3 x batch_size x forward_flops: the backward of a product is two products of its
    size. The first layer's is only one, so that this is a little over what a counter sees, except where the
    backward computes parts of the forward again: checkpointing (at most one forward more) and fused
    attention (at most a sixth of attention's part more) are not charged.
    `memory_bytes` is, in float32 with Adam, 16 bytes a parameter, the buffers, and what the forward of the
    batch keeps. The backward's own temporaries are not charged.
    """
    return Cost(
        params=one.params,
        forward_flops=one.forward_flops,
        train_step_flops=3 * batch_size * one.forward_flops,
        memory_bytes=BYTES_PER_PARAM * one.params + one.buffer_bytes + batch_size * one.kept_bytes,
    )
