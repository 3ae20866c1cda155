"""The convolutional network that a spec describes: stem, stages of inverted bottlenecks, pooled readouts."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.convnet_spec import NORM_GROUP, STEM_SIZE, ConvSpec, ConvStage
from search_spaces.heads import ImageHead


def make_norm(channels: int) -> nn.GroupNorm:
    """A norm within each image, of a few channels together: it needs no batch."""
    return nn.GroupNorm(channels // NORM_GROUP, channels)


def convolution(channels: int, out_channels: int, *, size: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution that keeps the image's size, without biases: (B, C, H, W) to (B, C', H, W)."""
    return nn.Conv2d(channels, out_channels, size, padding=size // 2, groups=groups, bias=False)


def make_downsample(stage: ConvStage, channels: int) -> nn.Sequential:
    """Halve the image: (B, channels, H, W) to (B, width, H // 2, W // 2)."""
    norm, pool = make_norm(channels), nn.MaxPool2d(2) if stage.downsample == "max" else nn.AvgPool2d(2)
    if stage.downsample == "conv":
        return nn.Sequential(norm, nn.Conv2d(channels, stage.width, 2, stride=2, bias=False))
    return nn.Sequential(norm, pool, convolution(channels, stage.width))


class SqueezeExcite(nn.Module):
    """Weigh every channel by what the whole image shows: (B, C, H, W) to the same.

    Source: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, squeezed)
        self.excite = nn.Linear(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply each channel by its weight, from 0 to 1."""
        weights: Tensor = self.excite(F.relu(self.squeeze(x.mean((2, 3))))).sigmoid()
        return x * weights[:, :, None, None]


class Block(nn.Module):
    """Widen, filter, weigh, narrow, and add to the input: (B, width, H, W) to the same.

    Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018.
    """

    def __init__(self, stage: ConvStage) -> None:
        super().__init__()
        hidden, layers = stage.hidden, nn.Sequential()
        if stage.expansion > 1:
            layers.extend([convolution(stage.width, hidden), make_norm(hidden), nn.ReLU()])
        filters = convolution(hidden, hidden, size=stage.kernel_size, groups=stage.groups)
        layers.extend([filters, make_norm(hidden), nn.ReLU()])
        if stage.squeeze_excite:
            layers.append(SqueezeExcite(hidden, stage.squeezed))
        layers.extend([convolution(hidden, stage.width), make_norm(stage.width)])
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        """Change the image by what the block finds."""
        out: Tensor = x + self.layers(x)
        return out


class ConvNet(nn.Module):
    """A shared backbone for images of any size, and one readout per head."""

    def __init__(self, spec: ConvSpec, *, heads: tuple[ImageHead, ...]) -> None:
        super().__init__()
        first, last = spec.stages[0].width, spec.stages[-1].width
        layers: list[nn.Module] = [convolution(heads[0].channels, first, size=STEM_SIZE)]
        width = first
        for stage in spec.stages:
            if stage.downsample:
                layers.append(make_downsample(stage, width))
            layers += [Block(stage) for _ in range(stage.depth)]
            width = stage.width
        self.backbone = nn.Sequential(*layers, make_norm(last), nn.ReLU())
        self.dropout = nn.Dropout(spec.dropout)
        # The prefix keeps a task called "keys" or "items" from shadowing the dict's own methods.
        self.readouts = nn.ModuleDict({f"to_{head.name}": nn.Linear(last, head.classes) for head in heads})
        self.init_weights()

    def init_weights(self) -> None:
        """Fill every weight; also after `to_empty` of a model made on the meta device."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.Linear | nn.GroupNorm):
                module.reset_parameters()

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Images (B, channels, height, width) of any of the heads to their logits (B, classes)."""
        return {name: self.readouts[f"to_{name}"](self.features(images)) for name, images in inputs.items()}

    def features(self, images: Tensor) -> Tensor:
        """Images (B, channels, height, width) to what their pixels show on average (B, width of the last)."""
        pooled: Tensor = self.dropout(self.backbone(images).mean((2, 3)))
        return pooled
