"""Surface normals: the direction that the surface at each pixel faces."""

import math
from typing import Literal, Unpack

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from mtlrun.config.checks import check_one_of
from mtlrun.tasks.averaging import AveragesPredictions
from mtlrun.tasks.base import ConstantPredictor, DecodesMaps, DrawsPictures, Legend, Task, TaskOptions
from mtlrun.tasks.counting import count_numbers
from mtlrun.tasks.dense import check_same_pixels, describe_pixel, find_pixel

Criterion = Literal["cosine", "l1", "angle"]

# Angles are counted in bins of 1/256 degree. With a power of two, the metrics' thresholds are exactly bin edges.
_BINS_PER_DEGREE = 256
_NUM_BINS = 180 * _BINS_PER_DEGREE + 1  # the last one for exactly 180 degrees


def _has_normal(target: Tensor) -> Tensor:
    """Return a mask of the pixels whose normal is neither zero nor has a NaN, [batch, 1, height, width]."""
    return target.abs().sum(dim=1, keepdim=True) > 0  # false for NaN


def _directions(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return unit vectors of prediction and target, equal at pixels without a normal, and a mask of the others."""
    check_same_pixels(prediction, target)
    valid = _has_normal(target)
    # NaN times zero is NaN, so both are masked before any arithmetic. A prediction of zero has no direction; eps keeps
    # its gradient finite.
    predicted = nn.functional.normalize(torch.where(valid, prediction, 1.0), dim=1, eps=1e-6)
    true = nn.functional.normalize(torch.where(valid, target.to(prediction.dtype), 1.0), dim=1, eps=1e-6)
    return predicted, true, valid


def _angles(predicted: Tensor, true: Tensor) -> Tensor:
    """Return the angles between unit vectors [batch, 3, height, width] in radians, [batch, height, width].

    Precise for all angles, unlike the arc cosine in float32, which is not below a tenth of a degree. The gradient has
    length 1; it is set to 0 at the angles 0 and pi, where it is not defined.
    """
    return 2 * torch.atan2((predicted - true).norm(dim=1), (predicted + true).norm(dim=1))


class _Angles(Metric):
    """Histogram and sum of the angles between predicted and true normals; each subclass computes one statistic.

    All subclasses have the same state, so that torchmetrics updates it once for all. It takes the same memory however
    many pixels a split has.
    """

    higher_is_better = False
    full_state_update = False
    histogram: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("histogram", torch.zeros(_NUM_BINS, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        predicted, true, valid = _directions(prediction, target)
        angles = (_angles(predicted, true) * (180 / math.pi)).clamp(max=180)  # 0 at the pixels without a normal
        bins = torch.where(valid.squeeze(1), (angles * _BINS_PER_DEGREE).long(), _NUM_BINS)
        self.histogram += count_numbers(bins, _NUM_BINS + 1)[:_NUM_BINS]
        self.total += angles.sum(dtype=torch.float64)


class _MeanAngle(_Angles):
    def compute(self) -> Tensor:
        return self.total / self.histogram.sum()


class _MedianAngle(_Angles):
    def compute(self) -> Tensor:
        ends = self.histogram.cumsum(dim=0)
        count = ends[-1]
        ranks = torch.stack([(count - 1) // 2, count // 2])  # the middle pixel twice, or the two middle ones
        index = torch.searchsorted(ends, ranks, right=True)
        inside = self.histogram[index]
        # Within a bin the angles are assumed to be spread evenly.
        fraction = (ranks - (ends[index] - inside) + 0.5).double() / inside
        return ((index + fraction) / _BINS_PER_DEGREE).mean()


class _FractionWithin(_Angles):
    higher_is_better = True

    def __init__(self, degrees: float) -> None:
        super().__init__()
        self._bins = int(degrees * _BINS_PER_DEGREE)

    def compute(self) -> Tensor:
        return self.histogram[: self._bins].sum() / self.histogram.sum()


class SurfaceNormals(Task, ConstantPredictor, AveragesPredictions, DecodesMaps, DrawsPictures):
    """The unit normal of the surface at each pixel: 1 - cosine by default; angles between prediction and target.

    Predictions and targets are vectors [batch, 3, height, width] of which only the direction counts. A pixel whose
    target is the zero vector (as in NYUv2) or has a NaN has no label; a sample is labeled if any of its pixels is.

    Metrics, over all labeled pixels of the split:
        mean_angle, median_angle: of the angle between prediction and target, in degrees. The median is taken from a
            histogram with bins of 1/256 degree, and is off by no more than that.
        within_11, within_22, within_30: fraction of the pixels whose angle is below 11.25, 22.5 and 30 degrees. (The
            names have no dot, so that `trainer.monitor` and TensorBoard accept them.)

    Source: `cosine` and the metrics of Liu et al., "End-to-End Multi-Task Learning with Attention" (CVPR 2019);
    thresholds of Eigen & Fergus (ICCV 2015). The authors' code averages per batch first; here each pixel of the split
    counts the same.

    Args:
        criterion: mean over the labeled pixels, with p and t the unit vectors of prediction and target, of: `cosine`,
            1 - p.t, computed as |p - t|^2 / 2, which rounding cannot make negative; `l1`, the mean of |p - t| over the
            three components; or `angle`, the angle in radians.
        common: see `Task`.
    """

    main_metric = "mean_angle"
    nonnegative_loss = True
    dense = True

    def __init__(self, criterion: Criterion = "cosine", **common: Unpack[TaskOptions]) -> None:
        super().__init__(**common)
        check_one_of("criterion", criterion, Criterion)
        self.criterion = criterion

    @property
    def output_size(self) -> int:
        return 3

    def labeled(self, target: Tensor) -> Tensor:
        return _has_normal(target).flatten(1).any(dim=1)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        predicted, true, valid = _directions(prediction, target)
        if self.criterion == "l1":
            total = (predicted - true).abs().sum() / 3
        elif self.criterion == "angle":
            total = _angles(predicted, true).sum()
        else:
            total = (predicted - true).square().sum() / 2
        return total / valid.sum()

    def num_terms(self, target: Tensor) -> Tensor:
        return _has_normal(target).sum()

    def picture(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        true = target.nan_to_num()
        valid = true.norm(dim=1, keepdim=True) > 0
        return (nn.functional.normalize(prediction, dim=1) + 1) / 2, torch.where(valid, (true + 1) / 2, 0.0)

    def legend(self) -> Legend:
        axes = [("along x", (1.0, 0.5, 0.5)), ("along y", (0.5, 1.0, 0.5)), ("along z", (0.5, 0.5, 1.0))]
        return [*axes, ("no label", (0.0, 0.0, 0.0))]

    def metrics(self) -> dict[str, Metric]:
        return {
            "mean_angle": _MeanAngle(),
            "median_angle": _MedianAngle(),
            "within_11": _FractionWithin(11.25),
            "within_22": _FractionWithin(22.5),
            "within_30": _FractionWithin(30.0),
        }

    def decode_map(self, prediction: Tensor) -> Tensor:
        return nn.functional.normalize(prediction, dim=1)

    def target_sums(self, target: Tensor) -> Tensor:
        """Return the sum of the unit normals over the labeled pixels, [3]."""
        _, true, valid = _directions(target, target)
        return torch.where(valid, true, 0.0).sum(dim=(0, 2, 3), dtype=torch.float64)

    def constant_prediction(self, sums: Tensor, target: Tensor) -> Tensor:
        direction = nn.functional.normalize(sums, dim=0).to(target.dtype)
        return direction[:, None, None].expand(len(target), -1, *target.shape[-2:])

    def to_average(self, prediction: Tensor) -> Tensor:
        """Return the directions, as vectors of length 1, [n, 3, height, width]."""
        return nn.functional.normalize(prediction.double(), dim=1)

    def from_average(self, average: Tensor) -> Tensor:
        return average.float()

    def check_targets(self, target: Tensor) -> None:
        if not target.is_floating_point():
            raise ValueError(f"targets must be floating-point numbers, found {target.dtype}")
        if target.dim() != 4 or target.shape[1] != 3:
            raise ValueError(f"targets must be of shape [samples, 3, height, width], found {tuple(target.shape)}")
        # Normals stored as colors, or in another unit, would otherwise pass as directions. Resized ones are shorter.
        pixel = find_pixel(target, lambda normals: normals.norm(dim=1, keepdim=True) > 1.01)
        if pixel is not None:
            sample, row, column = pixel
            vector = ", ".join(f"{number:g}" for number in target[sample, :, row, column].tolist())
            raise ValueError(
                "targets must be vectors of length 1, or 0 or NaN where a pixel has no normal, "
                f"found ({vector}) {describe_pixel(pixel)}"
            )
