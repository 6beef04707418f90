"""Surface normals: the direction that the surface at each pixel faces."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from mtlrun.config.checks import check_one_of
from mtlrun.tasks.base import HeadFactory, Task, TaskWeight
from mtlrun.tasks.dense import at, check_same_pixels, find_pixel

Criterion = Literal["cosine", "l1", "angle"]

# Angles are counted in bins of 1/256 degree. A power of two: the thresholds of the metrics lie on edges, exactly.
_BINS_PER_DEGREE = 256
_NUM_BINS = 180 * _BINS_PER_DEGREE + 1  # the last one for 180 degrees itself


def _has_normal(target: Tensor) -> Tensor:
    """Return which pixels [batch, 1, height, width] have a normal: neither a zero vector nor one with a NaN."""
    return target.abs().sum(dim=1, keepdim=True) > 0  # false of a NaN


def _directions(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return unit vectors of prediction and target, equal at the pixels without a normal, and which pixels have one."""
    check_same_pixels(prediction, target)
    valid = _has_normal(target)
    # Masked before any arithmetic: a NaN that is multiplied by zero afterwards is still one. A prediction of zero has
    # no direction; eps keeps its gradient from being infinite.
    predicted = nn.functional.normalize(torch.where(valid, prediction, 1.0), dim=1, eps=1e-6)
    wanted = nn.functional.normalize(torch.where(valid, target.to(prediction.dtype), 1.0), dim=1, eps=1e-6)
    return predicted, wanted, valid


def _angles(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Return the angles between unit vectors [batch, 3, height, width] in radians, [batch, height, width].

    Precise for all angles, where the arc cosine in float32 is not for those below a tenth of a degree. The gradient has
    the length 1, and is 0 at the angles 0 and pi, where there is none.
    """
    return 2 * torch.atan2((predicted - wanted).norm(dim=1), (predicted + wanted).norm(dim=1))


class _Angles(Metric):
    """Counts and sums the angles between predicted and true normals; subclasses compute a number of them.

    All have the same state, so that torchmetrics updates one for all of them. How many pixels a split has does not
    change how much memory that takes.
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
        predicted, wanted, valid = _directions(prediction, target)
        angles = (_angles(predicted, wanted) * (180 / math.pi)).clamp(max=180)  # 0 at the pixels without a normal
        bins = torch.where(valid.squeeze(1), (angles * _BINS_PER_DEGREE).long(), _NUM_BINS)
        self.histogram += torch.bincount(bins.flatten(), minlength=_NUM_BINS + 1)[:_NUM_BINS]
        self.total += angles.sum(dtype=torch.float64)


class _MeanAngle(_Angles):
    def compute(self) -> Tensor:
        return self.total / self.histogram.sum()


class _MedianAngle(_Angles):
    def compute(self) -> Tensor:
        ends = self.histogram.cumsum(dim=0)
        count = ends[-1]
        middle = torch.stack([(count - 1) // 2, count // 2])  # one pixel, or the two in the middle
        index = torch.searchsorted(ends, middle, right=True)
        inside = self.histogram[index]
        # Within a bin the pixels are taken to be spread evenly.
        share = (middle - (ends[index] - inside) + 0.5).double() / inside
        return ((index + share) / _BINS_PER_DEGREE).mean()


class _ShareWithin(_Angles):
    higher_is_better = True

    def __init__(self, degrees: float) -> None:
        super().__init__()
        self._bins = int(degrees * _BINS_PER_DEGREE)

    def compute(self) -> Tensor:
        return self.histogram[: self._bins].sum() / self.histogram.sum()


class SurfaceNormals(Task):
    """The unit normal of the surface at each pixel; 1 - cosine by default; angles between prediction and target.

    Predictions are vectors [batch, 3, height, width] of any length, of which the direction counts; so are targets. A
    pixel whose target is the zero vector (as in NYUv2) or holds a NaN has no label; a sample counts as labeled if any
    of its pixels is.

    Metrics, over all labeled pixels of the split:
        mean_angle, median_angle: of the angle between prediction and target, in degrees. The median is taken from a
            histogram with bins of 1/256 degree, and is off by no more than that.
        within_11, within_22, within_30: share of the pixels whose angle is below 11.25, 22.5 and 30 degrees. (There is
            no dot in the names, so that `trainer.monitor` and TensorBoard take them as they are.)

    Source: `cosine` and the metrics of Liu et al., "End-to-End Multi-Task Learning with Attention" (CVPR 2019);
    thresholds of Eigen & Fergus (ICCV 2015). The authors' code averages per batch first; here each pixel of the split
    counts the same.

    Args:
        criterion: of the unit vectors p and t of prediction and target, as a mean over the labeled pixels: `cosine` is
            1 - p.t, written as |p - t|^2 / 2, which cannot be negative by rounding; `l1` the mean of |p - t| over the
            three components; `angle` the angle in radians.
        lr, weight, head: see `Task`.
    """

    main_metric = "mean_angle"
    nonnegative_loss = True
    dense = True

    def __init__(
        self,
        criterion: Criterion = "cosine",
        *,
        lr: float = 1e-3,
        weight: TaskWeight = 1.0,
        head: HeadFactory | None = None,
    ) -> None:
        super().__init__(lr=lr, weight=weight, head=head)
        check_one_of("criterion", criterion, Criterion)
        self.criterion = criterion

    @property
    def output_size(self) -> int:
        return 3

    def labeled(self, target: Tensor) -> Tensor:
        return _has_normal(target).flatten(1).any(dim=1)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        predicted, wanted, valid = _directions(prediction, target)
        if self.criterion == "l1":
            total = (predicted - wanted).abs().sum() / 3
        elif self.criterion == "angle":
            total = _angles(predicted, wanted).sum()
        else:
            total = (predicted - wanted).square().sum() / 2
        return total / valid.sum()

    def num_terms(self, target: Tensor) -> Tensor:
        return _has_normal(target).sum()

    def picture(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        true = target.nan_to_num()
        seen = true.norm(dim=1, keepdim=True) > 0
        return (nn.functional.normalize(prediction, dim=1) + 1) / 2, torch.where(seen, (true + 1) / 2, 0.0)

    def metrics(self) -> dict[str, Metric]:
        return {
            "mean_angle": _MeanAngle(),
            "median_angle": _MedianAngle(),
            "within_11": _ShareWithin(11.25),
            "within_22": _ShareWithin(22.5),
            "within_30": _ShareWithin(30.0),
        }

    def check_targets(self, target: Tensor) -> None:
        if not target.is_floating_point():
            raise ValueError(f"targets must be floating-point numbers, found {target.dtype}")
        if target.dim() != 4 or target.shape[1] != 3:
            raise ValueError(f"targets must be of shape [samples, 3, height, width], found {tuple(target.shape)}")
        # Normals that are kept as colors, or in another unit, would pass for directions. Resized ones are shorter.
        place = find_pixel(target, lambda part: part.norm(dim=1, keepdim=True) > 1.01)
        if place is not None:
            sample, row, column = place
            vector = ", ".join(f"{number:g}" for number in target[sample, :, row, column].tolist())
            raise ValueError(
                "targets must be vectors of length 1, or 0 or NaN where a pixel has no normal, "
                f"found ({vector}) {at(place)}"
            )
