"""Count regression: how often something happens."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import torch
from torch import Tensor

from mtlrun.tasks.averaging import AveragesPredictions, log
from mtlrun.tasks.base import (
    ConstantPredictor,
    Decoded,
    DecodesPredictions,
    Directions,
    Family,
    GeneralizedLinear,
    Task,
    TaskOptions,
    describe_equal,
    doubt_scale,
)
from mtlrun.tasks.resampling.base import ResampledMetrics, join
from mtlrun.tasks.resampling.correlations import rank_correlation
from mtlrun.tasks.resampling.means import errors, means

if TYPE_CHECKING:
    from torchmetrics import Metric


class Count(Task, ConstantPredictor, DecodesPredictions, AveragesPredictions, GeneralizedLinear):
    """A number of events: Poisson regression by the exact negative log-likelihood; errors of the rate.

    Predictions are the logarithm z of the rate, [batch, 1]; targets are whole numbers >= 0, integers or floating-point
    numbers, [batch]. A target of -1 or NaN is a missing label. The loss is the mean of exp(z) - y z + log y!, which is
    never negative, since it is minus the logarithm of a probability.

    With `standardize`, the head predicts z - log m, where m is the mean count in training, and the loss is divided by m
    if m is above 1, so that a task learns counts of thousands as it learns small ones, beside other tasks.

    Metrics of the rate, over all labeled samples of the split:
        mae, rmse: mean absolute error, and root mean squared error.
        poisson_deviance: twice the mean of y log(y / rate) - y + rate: how far the loss, undivided, is from the least.
        spearman: rank correlation; NaN if all counts are the same, 0 if all predictions are.

    Args:
        standardize: whether predictions are relative to the mean count; `fit` has to be called before training then.
        common: see `Task`.
    """

    main_metric = "mae"
    metric_directions: ClassVar[Directions] = {
        "mae": "min",
        "rmse": "min",
        "poisson_deviance": "min",
        "spearman": "max",
    }
    family: ClassVar[Family] = "poisson"
    nonnegative_loss = True
    takes_float64 = True
    #: The logarithm of the mean count of training, float64 []; 0 if predictions are not relative to it.
    log_mean: Tensor

    def __init__(self, standardize: bool = False, **common: Unpack[TaskOptions]) -> None:
        super().__init__(**common)
        self.standardize = self.needs_fit = standardize
        self.register_buffer("log_mean", torch.zeros((), dtype=torch.float64))

    def fit(self, targets: Iterable[Tensor]) -> None:
        sums = torch.zeros(2, dtype=torch.float64)
        for target in targets:
            sums += self.target_sums(target[self.labeled(target)]).cpu()  # of whole numbers, and so exact
        if sums[0]:
            self.log_mean = _log_mean(sums).to(self.log_mean.device)

    def learned(self) -> Mapping[str, Any]:
        """Return the `mean` count of training, if predictions are relative to it."""
        return {"mean": float(self.log_mean.exp())} if self.standardize else {}

    def describe_learned(self) -> str:
        return f"learned relative to its mean, {self.log_mean.exp():.6g}" if self.standardize else ""

    def log_rate(self, prediction: Tensor) -> Tensor:
        """Return the logarithms of the rates that the head predicts, float64 [batch]."""
        return prediction.squeeze(1).double() + self.log_mean

    @property
    def output_size(self) -> int:
        return 1

    def labeled(self, target: Tensor) -> Tensor:
        return target.reshape(len(target)) >= 0  # false for NaN

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        log_rate, count = self.log_rate(prediction), target.reshape(len(target)).double()
        losses = log_rate.exp() - count * log_rate + torch.lgamma(count + 1)  # in float64: differences of large numbers
        return (losses.mean() / self.log_mean.exp().clamp(min=1)).to(prediction.dtype)

    def metrics(self) -> "dict[str, Metric]":
        from mtlrun.tasks.metrics.errors import MAE, RMSE, PoissonDeviance
        from mtlrun.tasks.metrics.ranks import Spearman

        return {"mae": MAE(), "rmse": RMSE(), "poisson_deviance": PoissonDeviance(), "spearman": Spearman()}

    def metric_inputs(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return self.log_rate(prediction).exp(), target.reshape(len(target)).double()

    def doubt_targets(self, target: Tensor, key: str) -> list[str]:
        return [] if self.standardize else doubt_scale(target.reshape(len(target), 1).double(), key)

    def undefined_metrics(self, target: Tensor, names: Sequence[str] = ()) -> dict[str, str]:
        why = describe_equal(target.reshape(len(target)))
        return {} if why is None else {"spearman": why}

    def resampled_metrics(self, prediction: Tensor, target: Tensor) -> ResampledMetrics:
        rate, count = self.metric_inputs(prediction, target)
        deviance = 2 * (torch.xlogy(count, count / rate) - count + rate)
        return join(errors(rate, count), means({"poisson_deviance": deviance}), rank_correlation(rate, count))

    def target_sums(self, target: Tensor) -> Tensor:
        """Return the number of samples and the sum of their counts, [2]."""
        count = target.reshape(len(target)).double()
        return torch.stack([torch.ones_like(count).sum(), count.sum()])

    def constant_prediction(self, sums: Tensor, target: Tensor) -> Tensor:
        return (_log_mean(sums) - self.log_mean).float().expand(len(target), 1)

    def decode(self, prediction: Tensor) -> Decoded:
        return Decoded(self.log_rate(prediction).exp())

    def to_average(self, prediction: Tensor) -> Tensor:
        """Return the rates, [n, 1]."""
        return self.log_rate(prediction).exp()[:, None]

    def from_average(self, average: Tensor) -> Tensor:
        return (log(average) - self.log_mean).float()

    def observed(self, target: Tensor) -> Tensor:
        return target.reshape(len(target), 1).double()

    def observations(self, target: Tensor) -> Tensor:
        return target.reshape(len(target), 1).double() / self.log_mean.exp()

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


def _log_mean(sums: Tensor) -> Tensor:
    """Return the logarithm of the mean of counts, float64 [], from `Count.target_sums`; of half an event if all are 0.

    See `log_frequencies`.
    """
    logarithms = sums.double().clamp(min=0.5).log()
    return logarithms[1] - logarithms[0]
