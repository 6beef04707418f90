"""Regression: one or several real numbers."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, Unpack

import torch
from torch import Tensor, nn

from mtlrun.config.checks import check_one_of
from mtlrun.tasks.base import ConstantPredictor, Direction, Task, TaskOptions, describe_equal

if TYPE_CHECKING:
    from torchmetrics import Metric

Criterion = Literal["mse", "l1", "huber"]

_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": nn.functional.mse_loss,
    "l1": nn.functional.l1_loss,
    "huber": nn.functional.huber_loss,
}


class Regression(Task, ConstantPredictor):
    """`num_outputs` real numbers per sample: mean squared error by default; RMSE, MAE and, for one number, R2.

    Predictions are [batch, num_outputs]; targets are of the same shape, or [batch] for one number. NaN is a missing
    label; a sample is labeled if none of its numbers is NaN. R2 is NaN if all targets of the split are the same.

    Args:
        num_outputs: how many numbers are predicted, 1 or more.
        criterion: `mse`, `l1` or `huber`.
        common: see `Task`.
    """

    main_metric = "rmse"
    nonnegative_loss = True

    def __init__(self, num_outputs: int = 1, criterion: Criterion = "mse", **common: Unpack[TaskOptions]) -> None:
        super().__init__(**common)
        if num_outputs < 1:
            raise ValueError(f"num_outputs must be >= 1, found {num_outputs}")
        check_one_of("criterion", criterion, Criterion)
        self.num_outputs = num_outputs
        self.criterion = criterion

    @property
    def output_size(self) -> int:
        return self.num_outputs

    def labeled(self, target: Tensor) -> Tensor:
        return ~torch.isnan(target).reshape(len(target), -1).any(dim=1)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return _LOSSES[self.criterion](prediction, target.reshape(prediction.shape))

    def directions(self) -> dict[str, Direction]:
        directions: dict[str, Direction] = {"loss": "min", "rmse": "min", "mae": "min"}
        return directions | ({"r2": "max"} if self.num_outputs == 1 else {})

    def metrics(self) -> "dict[str, Metric]":
        from torchmetrics import MeanAbsoluteError, MeanSquaredError

        from mtlrun.tasks.metrics.determination import R2

        metrics: dict[str, Metric] = {"rmse": MeanSquaredError(squared=False), "mae": MeanAbsoluteError()}
        if self.num_outputs == 1:
            metrics["r2"] = R2()
        return metrics

    def metric_inputs(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        # In float64, since R2 subtracts sums of squares.
        if self.num_outputs == 1:
            return prediction.squeeze(1).double(), target.reshape(len(target)).double()
        return prediction.double(), target.double()

    def undefined_metrics(self, target: Tensor, names: Sequence[str] = ()) -> dict[str, str]:
        why = describe_equal(target.reshape(len(target), -1)[:, 0]) if self.num_outputs == 1 else None
        return {} if why is None else {"r2": why}

    def target_sums(self, target: Tensor) -> Tensor:
        """Return the number of samples and the sum of each of their numbers, [1 + num_outputs]."""
        numbers = target.reshape(len(target), self.num_outputs).double()
        return torch.cat([numbers.new_tensor([len(numbers)]), numbers.sum(dim=0)])

    def constant_prediction(self, sums: Tensor, target: Tensor) -> Tensor:
        return (sums[1:] / sums[0]).to(target.dtype).expand(len(target), -1)

    def check_targets(self, target: Tensor) -> None:
        if not target.is_floating_point():
            raise ValueError(f"targets must be floating-point numbers, found {target.dtype}")
        if target.numel() != len(target) * self.num_outputs:
            raise ValueError(
                f"targets must hold {self.num_outputs} numbers per sample, found shape {tuple(target.shape)}; set "
                f"num_outputs to {target.numel() // max(1, len(target))}, or correct the targets"
            )
        numbers = target.reshape(len(target), self.num_outputs)
        wrong = numbers.isinf().nonzero()
        if len(wrong):
            sample, number = wrong[0].tolist()
            raise ValueError(
                f"targets must be finite, or NaN where a label is missing, found {float(numbers[sample, number]):g} "
                f"at sample {sample}" + (f", number {number}" if self.num_outputs > 1 else "")
            )
