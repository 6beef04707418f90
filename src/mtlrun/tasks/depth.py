"""Depth estimation: the distance of what each pixel shows."""

from collections.abc import Callable
from typing import Literal, Unpack

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from mtlrun.config.checks import check_one_of
from mtlrun.tasks.averaging import AveragesPredictions
from mtlrun.tasks.base import ConstantPredictor, DecodesMaps, DrawsPictures, Legend, Task, TaskOptions
from mtlrun.tasks.dense import check_same_pixels, describe_pixel, find_pixel

Criterion = Literal["l1", "mse", "huber"]

_LOSSES: dict[str, Callable[..., Tensor]] = {
    "l1": nn.functional.l1_loss,
    "mse": nn.functional.mse_loss,
    "huber": nn.functional.huber_loss,
}


class _DepthError(Metric):
    """Sums of absolute and relative errors over the labeled pixels; each subclass computes one of the means.

    Both subclasses have the same state, so that torchmetrics updates it once for both.
    """

    higher_is_better = False
    full_state_update = False
    absolute: Tensor
    relative: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        # The 24 bits of a float32 sum would lose pixels of a large split, from some 16 million on.
        self.add_state("absolute", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("relative", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        valid = target > 0
        error = (torch.where(valid, prediction, 0.0) - torch.where(valid, target, 0.0)).abs()
        self.absolute += error.sum(dtype=torch.float64)
        self.relative += (error / torch.where(valid, target, 1.0)).sum(dtype=torch.float64)
        self.count += valid.sum()


class _AbsoluteError(_DepthError):
    def compute(self) -> Tensor:
        return self.absolute / self.count


class _RelativeError(_DepthError):
    def compute(self) -> Tensor:
        return self.relative / self.count


class Depth(Task, ConstantPredictor, AveragesPredictions, DecodesMaps, DrawsPictures):
    """The depth at each pixel: mean absolute error as the loss by default; absolute and relative error.

    Predictions are [batch, 1, height, width]; targets are [batch, height, width] or [batch, 1, height, width]. A pixel
    whose target is 0 (as in NYUv2) or NaN has no label; a sample is labeled if any of its pixels is.

    Metrics, over all labeled pixels of the split:
        abs_err: mean of |prediction - target|.
        rel_err: mean of |prediction - target| / target.

    Source: loss and metrics of Liu et al., "End-to-End Multi-Task Learning with Attention" (CVPR 2019). The authors'
    code averages per batch first; here each pixel of the split counts the same.

    Args:
        criterion: `l1`, `mse` or `huber`.
        common: see `Task`.
    """

    main_metric = "abs_err"
    nonnegative_loss = True
    dense = True

    def __init__(self, criterion: Criterion = "l1", **common: Unpack[TaskOptions]) -> None:
        super().__init__(**common)
        check_one_of("criterion", criterion, Criterion)
        self.criterion = criterion

    @property
    def output_size(self) -> int:
        return 1

    def labeled(self, target: Tensor) -> Tensor:
        return (target > 0).flatten(1).any(dim=1)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        prediction, target = self.metric_inputs(prediction, target)
        valid = target > 0
        # NaN times zero is NaN, so both are masked before any arithmetic.
        prediction, target = torch.where(valid, prediction, 0.0), torch.where(valid, target, 0.0)
        return _LOSSES[self.criterion](prediction, target, reduction="sum") / valid.sum()

    def num_terms(self, target: Tensor) -> Tensor:
        return (target > 0).sum()

    def picture(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        target = target.reshape(prediction.shape)
        deepest = target.nan_to_num().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
        # Near is bright; pixels without a label are black in the target.
        return tuple(  # type: ignore[return-value]
            torch.where(depth > 0, 1 - depth / deepest, 0.0).clamp(0, 1).expand(-1, 3, -1, -1)
            for depth in (prediction, target)
        )

    def legend(self) -> Legend:
        return [
            ("near", (1, 1, 1)),
            ("halfway to the deepest label", (0.5, 0.5, 0.5)),
            ("deepest, or no label", (0, 0, 0)),
        ]

    def metrics(self) -> dict[str, Metric]:
        return {"abs_err": _AbsoluteError(), "rel_err": _RelativeError()}

    def decode_map(self, prediction: Tensor) -> Tensor:
        return prediction.squeeze(1)

    def metric_inputs(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        check_same_pixels(prediction, target)
        return prediction, target.reshape(prediction.shape).to(prediction.dtype)

    def target_sums(self, target: Tensor) -> Tensor:
        """Return the number of labeled pixels and the sum of their depths, [2]."""
        valid = target > 0
        return torch.stack([valid.sum().double(), torch.where(valid, target, 0.0).sum(dtype=torch.float64)])

    def constant_prediction(self, sums: Tensor, target: Tensor) -> Tensor:
        return (sums[1] / sums[0]).to(target.dtype).expand(len(target), 1, *target.shape[-2:])

    def to_average(self, prediction: Tensor) -> Tensor:
        """Return the depths, [n, 1, height, width]."""
        return prediction.double()

    def from_average(self, average: Tensor) -> Tensor:
        return average.float()

    def check_targets(self, target: Tensor) -> None:
        if not target.is_floating_point():
            raise ValueError(f"targets must be floating-point numbers, found {target.dtype}")
        if target.dim() != 3 and not (target.dim() == 4 and target.shape[1] == 1):
            raise ValueError(
                "targets must be of shape [samples, height, width] or [samples, 1, height, width], "
                f"found {tuple(target.shape)}"
            )
        pixel = find_pixel(target, lambda depths: (depths < 0) | depths.isinf())
        if pixel is not None:
            sample, row, column = pixel
            raise ValueError(
                "targets must be finite and > 0, or 0 or NaN where a pixel has no depth, "
                f"found {float(target[sample, ..., row, column].squeeze()):g} {describe_pixel(pixel)}"
            )
