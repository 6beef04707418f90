"""The head for object detection: a feature pyramid from one map, and FCOS on each of its levels."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import PartsOrZero, Positive, Width, checked
from mtlrun.models.blocks.checkpointed import Checkpointed
from mtlrun.models.blocks.layers import is_map

_NUM_GROUPS = 32  # of GroupNorm in torchvision's FCOSHead
_FINEST = 8  # stride in pixels of FCOS's finest level, for images that are large enough
_CELLS = 16  # the least number of cells that the finest level should have along the shorter side
_MOST = 16  # largest factor by which a level may be larger or smaller than the feature map


class DetectionHead(Checkpointed):
    """An anchor-free detector: predictions of objects at each cell of a feature pyramid that is made from one map.

    The pyramid is that of Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection" (ECCV 2022),
    section 3: all levels come from the last feature map, by transposed convolutions, identity or max pooling, followed
    by a 3x3 convolution. Departures: channels are reduced before and not after, since a ResNet's are 2048, and the norm
    is GroupNorm. Predictions are those of Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection" (ICCV
    2019), by torchvision's FCOSHead, whose layers all levels share: four convolutions for the classes and four for the
    boxes.

    Maps [batch, channels, h, w], of any size, to [batch, locations, num_classes + 9]. Locations are the cells of the
    levels, finest level first, row by row. For each location:

    - num_classes logits, for independent classes;
    - 4 distances >= 0 from the center of the cell to the left, upper, right and lower side of the object, in units of
      the cell's sides;
    - 1 logit of the centerness: how close the center of the cell is to that of the object;
    - the cell itself: x1, y1, x2, y2 in pixels of the image. Its sides are the level's stride.

    Cells tile the image from its upper left corner, so that locations are the centers of cells as in the paper;
    torchvision's are their corners. As predictions include their cell, they can be decoded without the head; see
    `mtlrun.tasks.Detection`.

    Args:
        feature_shape: (channels, h, w) of one sample's features; filled in by the model.
        output_shape: (num_classes, height, width), the last two of the image in pixels; filled in by the model.
        channels: of the levels, a multiple of 32. Paper: 256.
        num_convs: convolutions before each of the two predictions. Paper: 4.
        scales: size of each level relative to the feature map: decreasing powers of two. None for cells of about 8
            pixels, or of 1/16 of the image's shorter side if that is less, and further levels with cells twice as large
            as long as the image has room for the objects that the level is for: 8, 16 and 32 for images of 320 pixels,
            4 and 8 for 64.
    """

    @checked
    def __init__(
        self,
        feature_shape: Sequence[int],
        output_shape: Sequence[int],
        channels: Width = 256,
        num_convs: PartsOrZero = 4,
        scales: Sequence[Positive] | None = None,
    ) -> None:
        if channels % _NUM_GROUPS:
            raise ValueError(f"channels must be a multiple of {_NUM_GROUPS}, found {channels}")
        if not is_map(feature_shape):
            raise ValueError(
                f"DetectionHead predicts at each place and needs feature maps, found vectors of {feature_shape[0]} "
                "features; use a backbone whose last stage gives maps, such as resnet18"
            )
        if len(output_shape) != 3:
            raise ValueError(
                f"DetectionHead predicts boxes in an image, and the task wants {output_shape[0]} numbers for a whole "
                "sample; use mtlrun.models.heads.MLPHead"
            )
        from torchvision.models.detection.fcos import FCOSHead  # slow to import, and most models have no such head

        super().__init__()
        num_classes, *size = output_shape
        #: Height and width of the feature map's cells in pixels.
        self.stride = tuple(side / places for side, places in zip(size, feature_shape[1:], strict=True))
        self.scales = _choose_scales(max(self.stride), size) if scales is None else _check_scales(scales)
        self.entry = nn.Sequential(nn.Conv2d(feature_shape[0], channels, 1, bias=False), _norm(channels))
        self.levels = nn.ModuleList(_level(channels, scale) for scale in self.scales)
        self.head = FCOSHead(channels, num_anchors=1, num_classes=num_classes, num_convs=num_convs)

    def forward(self, features: Tensor) -> Tensor:
        return self.checkpointed(self._predict, features)

    def _predict(self, features: Tensor) -> Tensor:
        reduced = self.entry(features)
        maps = [level(reduced) for level in self.levels]
        outputs = self.head(maps)
        cells = torch.cat([self._cells(level, scale) for level, scale in zip(maps, self.scales, strict=True)])
        parts = [outputs["cls_logits"], outputs["bbox_regression"], outputs["bbox_ctrness"]]
        return torch.cat([*parts, cells.expand(len(features), -1, -1)], dim=2)

    def _cells(self, level: Tensor, scale: float) -> Tensor:
        """Return the cells of a level as boxes [h * w, 4] in pixels."""
        height, width = (side / scale for side in self.stride)
        rows, columns = (
            torch.arange(count, device=level.device, dtype=level.dtype) * side
            for count, side in zip(level.shape[2:], (height, width), strict=True)
        )
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        return torch.stack([x, y, x + width, y + height], dim=2).flatten(0, 1)


def _choose_scales(stride: float, size: Sequence[int]) -> list[float]:
    """Return the scales of the levels for a feature map of this stride and an image of this height and width."""
    finest = min(_FINEST, min(size) / _CELLS)
    power = max(-4, min(4, round(math.log2(stride / finest))))
    scales = [2.0**power]
    # A level is for locations with a side of their object more than 4 cells away; these lie within 1.5 cells of the
    # object's center, so half of the object's side is longer than 2.5 cells.
    while scales[-1] > 1 / _MOST and 5 * 2 * stride / scales[-1] < max(size):
        scales.append(scales[-1] / 2)
    return scales


def _check_scales(scales: Sequence[float]) -> list[float]:
    powers = {2.0**power for power in range(-4, 5)}
    if not scales or not powers.issuperset(scales) or sorted(set(scales), reverse=True) != list(scales):
        raise ValueError(f"scales must be falling powers of two from 16 to 0.0625, as in [4, 2, 1], found {scales}")
    return [float(scale) for scale in scales]


def _level(channels: int, scale: float) -> nn.Sequential:
    """Return layers that make a map `scale` times as large."""
    layers: list[nn.Module] = []
    while scale > 1:
        layers += [nn.ConvTranspose2d(channels, channels, 2, stride=2, bias=False), _norm(channels), nn.GELU()]
        scale /= 2
    while scale < 1:
        layers.append(nn.MaxPool2d(2, ceil_mode=True))  # keeps a map that is one cell high or wide
        scale *= 2
    return nn.Sequential(*layers, nn.Conv2d(channels, channels, 3, padding=1, bias=False), _norm(channels))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(_NUM_GROUPS, channels)
