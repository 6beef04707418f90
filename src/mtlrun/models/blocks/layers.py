"""Layers for both feature vectors [batch, channels] and feature maps [batch, channels, height, width]."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtlrun.models.backbones import Shape


def is_map(shape: Sequence[int]) -> bool:
    """Return True for the shape of maps, (channels, height, width), False for that of vectors, (channels,).

    Raises:
        ValueError: the shape is neither.
    """
    if len(shape) not in (1, 3):
        raise ValueError(f"features must have the shape (channels,) or (channels, height, width), found {tuple(shape)}")
    return len(shape) == 3


def conv1x1_or_linear(shape: Sequence[int], out_channels: int, *, bias: bool = True) -> nn.Module:
    """Return a 1x1 convolution for maps, a linear layer for vectors.

    Args:
        shape: shape of one sample's features.
        out_channels: channels of the result.
        bias: with a bias.
    """
    if is_map(shape):
        return nn.Conv2d(shape[0], out_channels, 1, bias=bias)
    return nn.Linear(shape[0], out_channels, bias=bias)


def conv3x3_or_linear(shape: Sequence[int], out_channels: int, *, bias: bool = True) -> nn.Module:
    """Return a 3x3 convolution that keeps the size for maps, a linear layer for vectors; see `conv1x1_or_linear`."""
    if is_map(shape):
        return nn.Conv2d(shape[0], out_channels, 3, padding=1, bias=bias)
    return conv1x1_or_linear(shape, out_channels, bias=bias)


def batch_norm(shape: Sequence[int], channels: int | None = None) -> nn.Module:
    """Return a BatchNorm layer for features of this shape, or with another number of channels."""
    return (nn.BatchNorm2d if is_map(shape) else nn.BatchNorm1d)(channels or shape[0])


def per_channel(weights: Tensor, features: Tensor) -> Tensor:
    """Return `features` with each channel multiplied by its weight.

    Args:
        weights: [channels], [batch, channels] or [1].
        features: [batch, channels, ...].
    """
    return weights.view(*weights.shape, *(1,) * (features.dim() - 2)) * features


def pool(features: Tensor) -> Tensor:
    """Return the mean over all positions, [batch, channels]; vectors are returned unchanged."""
    return features.flatten(2).mean(dim=2) if features.dim() > 2 else features


def resize(features: Tensor, size: Sequence[int]) -> Tensor:
    """Return maps resized to (height, width): by averages over areas if both sides shrink, else bilinearly.

    Where only deterministic algorithms are allowed, both are products with a matrix for each axis, and the same up to
    rounding: on a GPU, the gradient of PyTorch's average is refused then, and that of its interpolation slow.
    """
    height, width = size
    before = tuple(features.shape[2:])
    if before == (height, width):
        return features
    shrinks = before[0] >= height and before[1] >= width
    if shrinks and before[0] % height == 0 and before[1] % width == 0:
        return nn.functional.avg_pool2d(features, (before[0] // height, before[1] // width))
    if torch.are_deterministic_algorithms_enabled():
        make = averaging if shrinks else interpolation
        of_rows, of_columns = (
            make(*sides, features.device).to(features.dtype) for sides in zip(before, size, strict=True)
        )
        return of_rows @ features @ of_columns.T
    if shrinks:
        return nn.functional.adaptive_avg_pool2d(features, (height, width))
    return nn.functional.interpolate(features, (height, width), mode="bilinear", align_corners=False)


def averaging(before: int, after: int, device: torch.device) -> Tensor:
    """Return the matrix that averages numbers in a row over `after` areas, as `adaptive_avg_pool2d` does.

    Float32 [after, before], after <= before.
    """
    area, place = torch.arange(after, device=device)[:, None], torch.arange(before, device=device)
    inside = (place >= area * before // after) & (place * after < (area + 1) * before)
    return inside / inside.sum(dim=1, keepdim=True)


def interpolation(before: int, after: int, device: torch.device) -> Tensor:
    """Return the matrix that interpolates numbers in a row at the centers of `after` places, as `interpolate` does.

    Float64 [after, before].
    """
    place = torch.arange(after, dtype=torch.float64, device=device)
    centers = (place[:, None] + 0.5) * (before / after) - 0.5
    return (1 - (torch.arange(before, device=device) - centers.clamp(0, before - 1)).abs()).clamp(min=0)


class Resize(nn.Module):
    """Resizing of vectors or maps to one size, with the same channels.

    Maps become vectors by their mean; vectors become constant maps; see `resize` for maps to maps.

    Args:
        size: (height, width) of the result, empty for vectors.
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


def concatenated_shape(shapes: Sequence[Shape]) -> Shape:
    """Return the shape of features that are concatenated along their channels; ValueError if their sizes differ."""
    if len({tuple(shape[1:]) for shape in shapes}) > 1:
        raise ValueError(f"features that are joined must have one size, found {', '.join(map(str, shapes))}")
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])
