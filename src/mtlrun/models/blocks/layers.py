"""Layers that serve feature vectors [batch, channels] and feature maps [batch, channels, height, width] alike."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtlrun.models.backbones import Shape


def is_map(shape: Sequence[int]) -> bool:
    """Say whether features of this shape, (channels,) or (channels, height, width), are maps; ValueError if neither."""
    if len(shape) not in (1, 3):
        raise ValueError(f"features must have the shape (channels,) or (channels, height, width), found {tuple(shape)}")
    return len(shape) == 3


def conv1x1_or_linear(shape: Sequence[int], out_channels: int, *, bias: bool = True) -> nn.Module:
    """Return a linear layer over the channels, the same at each place: linear for vectors, a 1x1 convolution for maps.

    Args:
        shape: of one sample's features.
        out_channels: of the result.
        bias: with a bias.
    """
    if is_map(shape):
        return nn.Conv2d(shape[0], out_channels, 1, bias=bias)
    return nn.Linear(shape[0], out_channels, bias=bias)


def conv3x3_or_linear(shape: Sequence[int], out_channels: int, *, bias: bool = True) -> nn.Module:
    """Return a layer that sees the places around each: a 3x3 convolution for maps; `pointwise` for vectors."""
    if is_map(shape):
        return nn.Conv2d(shape[0], out_channels, 3, padding=1, bias=bias)
    return conv1x1_or_linear(shape, out_channels, bias=bias)


def batch_norm(shape: Sequence[int], channels: int | None = None) -> nn.Module:
    """Return a BatchNorm for features like those of `shape`, of `channels` channels if these are others."""
    return (nn.BatchNorm2d if is_map(shape) else nn.BatchNorm1d)(channels or shape[0])


def per_channel(weights: Tensor, features: Tensor) -> Tensor:
    """Return `features` with each channel multiplied by its weight; `weights` is [channels] or [1]."""
    return weights.view((1, -1) + (1,) * (features.dim() - 2)) * features


def pool(features: Tensor) -> Tensor:
    """Return the mean over all places, [batch, channels]; vectors stay as they are."""
    return features.flatten(2).mean(dim=2) if features.dim() > 2 else features


def resize(features: Tensor, size: Sequence[int]) -> Tensor:
    """Return maps in another size (height, width): means over areas where it shrinks, bilinear where it grows."""
    height, width = size
    if tuple(features.shape[2:]) == (height, width):
        return features
    if features.shape[2] >= height and features.shape[3] >= width:
        return nn.functional.adaptive_avg_pool2d(features, (height, width))
    return nn.functional.interpolate(features, (height, width), mode="bilinear", align_corners=False)


class Resize(nn.Module):
    """Gives features of one shape the size of another; the channels stay. Maps become vectors by their mean.

    Args:
        size: height and width of the result, empty for vectors.
    """

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__()
        self.size = tuple(size)

    def forward(self, features: Tensor) -> Tensor:
        if not self.size:
            return pool(features)
        if features.dim() == 2:
            return features[:, :, None, None].expand(-1, -1, *self.size)
        return resize(features, self.size)


def joined(shapes: Sequence[Shape]) -> Shape:
    """Return the shape of features that are joined along their channels; all must have one size."""
    if len({tuple(shape[1:]) for shape in shapes}) > 1:
        raise ValueError(f"features that are joined must have one size, found {', '.join(map(str, shapes))}")
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def mix(weights: Tensor, features: Sequence[Tensor]) -> Tensor:
    """Return sum_e weights[:, e] features[e], a weighted sum for each sample on its own.

    Args:
        weights: [batch, E].
        features: E tensors [batch, ...].
    """
    stacked = torch.stack(list(features), dim=1)
    return (weights.view(*weights.shape, *(1,) * (stacked.dim() - 2)) * stacked).sum(dim=1)
