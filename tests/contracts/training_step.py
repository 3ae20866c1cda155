"""One training step of a space's model, counted on the meta device: what its price promises."""

from math import prod

import torch
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode


def _convolution_backward(gradient, image, weight, *sizes, out_val=None, **_):
    """Two products of the forward's size; torch's own formula forgets that groups divide the second."""
    output_mask = sizes[-1]
    forward = 2 * gradient.size(0) * prod(gradient.shape[2:]) * weight.numel()
    return (output_mask[0] + output_mask[1]) * forward


_convolution_backward._get_raw = True
GROUPED = {torch.ops.aten.convolution_backward: _convolution_backward}


def forward_and_backward(space, spec, formulas=None):
    """FLOPs by torch's own counter, and the bytes kept for the backward, of one training step."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with torch.device("meta"):
        model = space.build(spec)
        inputs = {
            name: torch.zeros((space.batch_size, *sample.shape), dtype=getattr(torch, sample.dtype))
            for name, sample in space.samples().items()
        }
        with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                losses = []
                for logits in model(inputs).values():
                    rows = logits.flatten(0, -2)
                    losses.append(cross_entropy(rows, torch.zeros(len(rows), dtype=torch.long)))
            sum(losses).backward()
        weights = {p.untyped_storage()._cdata for p in model.parameters()}
    kept_bytes = sum(storage.nbytes() for key, storage in kept.items() if key not in weights)
    return counter.get_total_flops(), kept_bytes
