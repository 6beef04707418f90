"""Count regression: how often something happens."""

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from mtlrun.tasks.base import ConstantPredictor, Directions, Task, log_frequencies

if TYPE_CHECKING:
    from torchmetrics import Metric


class Count(Task, ConstantPredictor):
    """A number of events: Poisson regression by the exact negative log-likelihood; MAE and RMSE of the rate.

    Predictions are the logarithm z of the rate, [batch, 1]; targets are whole numbers >= 0, integers or floating-point
    numbers, [batch]. A target of -1 or NaN is a missing label. The loss is the mean of exp(z) - y z + log y!, which is
    never negative, since it is minus the logarithm of a probability.

    Args: see `Task`.
    """

    main_metric = "mae"
    metric_directions: ClassVar[Directions] = {"mae": "min", "rmse": "min"}
    nonnegative_loss = True

    @property
    def output_size(self) -> int:
        return 1

    def labeled(self, target: Tensor) -> Tensor:
        return target.reshape(len(target)) >= 0  # false for NaN

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        log_rate = prediction.squeeze(1)
        count = target.reshape(len(target)).to(log_rate.dtype)
        return (log_rate.exp() - count * log_rate + torch.lgamma(count + 1)).mean()

    def metrics(self) -> "dict[str, Metric]":
        from torchmetrics import MeanAbsoluteError, MeanSquaredError

        return {"mae": MeanAbsoluteError(), "rmse": MeanSquaredError(squared=False)}

    def metric_inputs(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return prediction.squeeze(1).double().exp(), target.reshape(len(target)).double()

    def target_sums(self, target: Tensor) -> Tensor:
        """Return the number of samples and the sum of their counts, [2]."""
        count = target.reshape(len(target)).double()
        return torch.stack([torch.ones_like(count).sum(), count.sum()])

    def constant_prediction(self, sums: Tensor, target: Tensor) -> Tensor:
        samples, events = log_frequencies(sums)
        log_rate: Tensor = events - samples
        return log_rate.expand(len(target), 1)

    def check_targets(self, target: Tensor) -> None:
        if target.numel() != len(target):
            raise ValueError(f"targets must be one number per sample, found shape {tuple(target.shape)}")
        number = target.reshape(len(target)).double()
        valid = number.isnan() | (number == -1) | ((number >= 0) & (number == number.round()) & ~number.isinf())
        wrong = (~valid).nonzero()
        if len(wrong):
            sample = int(wrong[0])
            raise ValueError(
                "targets must be whole numbers >= 0, or -1 or NaN where a label is missing, "
                f"found {float(number[sample]):g} at sample {sample}"
            )
