"""What a candidate costs, in exact integers, before anything is built."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Price of one candidate.

    Attributes:
        params: trainable parameters, tied tensors counted once.
        forward_flops: FLOPs of one forward pass of one sample (1 multiply-accumulate = 2 FLOPs).
        train_step_flops: FLOPs of one training step (forward and backward) at the space's batch size.
        memory_bytes: bytes held while training: weights, gradients, optimizer state, activations.
    """

    params: int
    forward_flops: int
    train_step_flops: int
    memory_bytes: int
