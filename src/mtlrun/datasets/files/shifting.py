"""Light augmentation of images whose labels are no maps: random shifts and, on demand, mirror images."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from mtlrun.config.checks import check_one_of
from mtlrun.datasets.batches.copying import send

Change = Literal["shift", "flip"]

# A shift is at most this part of a side: 4 pixels of 32, as is usual on CIFAR.
_LARGEST_SHIFT = 8


class Augmentation:
    """A random change of each image of a batch, drawn from PyTorch's global generator.

    Pixels that a shift uncovers repeat the edge, which gives no hint of how far an image was moved, as black would.

    Args:
        changes: `shift`: along both axes, by up to an eighth of the side, uniformly; `flip`: left and right are swapped
            with probability 1/2.
    """

    def __init__(self, changes: Sequence[Change]) -> None:
        for change in changes:
            check_one_of("augment", change, Change)
        self._shift, self._flip = "shift" in changes, "flip" in changes

    def __bool__(self) -> bool:
        return self._shift or self._flip

    def describe(self, size: int) -> list[str]:
        """Return a sentence on what is done to images of `size` x `size` pixels; nothing if nothing is."""
        pixels = size // _LARGEST_SHIFT
        done = [f"shifted by up to {_count(pixels)}"] * (self._shift and pixels > 0) + ["mirrored"] * self._flip
        if not done:
            return []
        return [
            f"training images are {' and '.join(done)} at random; where labels depend on the place of things or on "
            "left and right: dataset.augment=[]"
        ]

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the changed images; pixels: [batch, channels, height, width] of any type."""
        count, _, height, width = pixels.shape
        # The draws of an image stand together, so that a batch is changed as its images would be one by one.
        draws = send(torch.rand(count, 3), pixels.device)
        rows = torch.arange(height, device=pixels.device).expand(count, -1)
        columns = torch.arange(width, device=pixels.device).expand(count, -1)
        if self._flip:
            columns = torch.where(draws[:, :1] < 0.5, columns.flip(1), columns)
        if self._shift:
            rows = (rows + _uniform(draws[:, 1:2], height // _LARGEST_SHIFT)).clamp(0, height - 1)
            place = torch.arange(width, device=pixels.device) + _uniform(draws[:, 2:], width // _LARGEST_SHIFT)
            columns = columns.gather(1, place.clamp(0, width - 1))
        samples = torch.arange(count, device=pixels.device)
        moved = pixels.permute(0, 2, 3, 1)[samples[:, None, None], rows[:, :, None], columns[:, None, :]]
        # With one channel, `contiguous` would keep strides with which convolutions round otherwise.
        return moved.permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)


def _count(pixels: int) -> str:
    return f"{pixels} pixel{'s' * (pixels != 1)}"


def _uniform(draws: Tensor, largest: int) -> Tensor:
    """Return whole numbers from -`largest` to `largest`; draws: uniform in [0, 1)."""
    return (draws * (2 * largest + 1)).long().clamp(max=2 * largest) - largest
