"""Regression: one or several real numbers."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Unpack

import numpy
import torch
from torch import Tensor, nn

from mtlrun.config.bounds import Width, checked
from mtlrun.config.checks import check_one_of
from mtlrun.tasks.averaging import AveragesPredictions
from mtlrun.tasks.base import (
    ConstantPredictor,
    Decoded,
    DecodesPredictions,
    Direction,
    Family,
    GeneralizedLinear,
    Task,
    TaskOptions,
    describe_equal,
    doubt_scale,
)
from mtlrun.tasks.resampling.base import ResampledMetrics, join
from mtlrun.tasks.resampling.correlations import determination, rank_correlation
from mtlrun.tasks.resampling.means import errors

if TYPE_CHECKING:
    from torchmetrics import Metric

Criterion = Literal["mse", "l1", "huber"]

_LISTED = 4  # numbers at most in a line

# Numbers whose spreads differ by more are hardly seen together in one error.
_UNLIKE = 10

_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": nn.functional.mse_loss,
    "l1": nn.functional.l1_loss,
    "huber": nn.functional.huber_loss,
}


class Regression(Task, ConstantPredictor, DecodesPredictions, AveragesPredictions, GeneralizedLinear):
    """`num_outputs` real numbers per sample: mean squared error by default; RMSE, MAE, R2, and rank correlation.

    Predictions are [batch, num_outputs]; targets are of the same shape, or [batch] for one number, float32 or float64.
    NaN is a missing label; a sample is labeled if none of its numbers is NaN.

    With `standardize`, predictions and the loss are in standard deviations: the head predicts (y - mean) / std, with
    mean and standard deviation of each number over the labeled samples of training, so that it learns as fast in any
    unit. The standard deviation of a number that is constant there counts as 1. Metrics are in the unit of the targets
    in any case; `to_own_unit` converts predictions.

    Metrics, over all labeled samples of the split:
        rmse, mae: root mean squared error, and mean absolute error, pooled over all numbers.
        r2: 1 - sum of squared errors / sum of squared deviations from the mean; of several numbers the mean over them,
            without those that are the same in all targets; NaN if that leaves none.
        spearman: rank correlation, only for one number; NaN if all targets are the same, 0 if all predictions are.

    Args:
        num_outputs: how many numbers are predicted, 1 or more.
        criterion: `mse`, `l1` or `huber`.
        standardize: whether the head predicts standardized numbers; `fit` has to be called before training then.
        common: see `Task`.
    """

    main_metric = "rmse"
    family: ClassVar[Family] = "gaussian"
    nonnegative_loss = True
    takes_float64 = True
    #: Of training, float64 [num_outputs]; 0 and 1 if targets are not standardized.
    target_mean: Tensor
    target_std: Tensor

    @checked
    def __init__(
        self,
        num_outputs: Width = 1,
        criterion: Criterion = "mse",
        standardize: bool = False,
        **common: Unpack[TaskOptions],
    ) -> None:
        super().__init__(**common)
        check_one_of("criterion", criterion, Criterion)
        self.num_outputs = num_outputs
        self.criterion = criterion
        self.standardize = self.needs_fit = standardize
        self.register_buffer("target_mean", torch.zeros(num_outputs, dtype=torch.float64))
        self.register_buffer("target_std", torch.ones(num_outputs, dtype=torch.float64))

    def fit(self, targets: Iterable[Tensor]) -> None:
        labeled = [self._numbers(target)[self.labeled(target)].cpu().numpy() for target in targets]
        mean, std = _mean_and_std(numpy.concatenate(labeled))
        self.target_mean = torch.from_numpy(mean).to(self.target_mean.device)
        self.target_std = torch.from_numpy(std).to(self.target_std.device)

    def learned(self) -> Mapping[str, Any]:
        """Return the `means` and `stds` of the targets of training, a number for each output, if they are used."""
        return {"means": self.target_mean.tolist(), "stds": self.target_std.tolist()} if self.standardize else {}

    def describe_learned(self) -> str:
        if not self.standardize:
            return ""
        pairs = zip(self.target_mean.tolist(), self.target_std.tolist(), strict=True)
        listing = [f"mean {_write_mean(mean, std)}, standard deviation {std:.6g}" for mean, std in pairs]
        more = f"; and {len(listing) - _LISTED} more" if len(listing) > _LISTED else ""
        return f"learned in standard deviations ({'; '.join(listing[:_LISTED])}{more}), evaluated in its own unit"

    def to_own_unit(self, prediction: Tensor) -> Tensor:
        """Return predictions of the head in the unit of the targets, float64 [batch, num_outputs]."""
        return prediction.double() * self.target_std + self.target_mean

    def from_own_unit(self, numbers: Tensor) -> Tensor:
        """Return numbers in the unit of the targets as the head predicts them, float64 [batch, num_outputs]."""
        return (self._numbers(numbers) - self.target_mean) / self.target_std

    def _numbers(self, target: Tensor) -> Tensor:
        """Return targets as float64 [batch, num_outputs]."""
        return target.reshape(-1, self.num_outputs).double()

    @property
    def output_size(self) -> int:
        return self.num_outputs

    def labeled(self, target: Tensor) -> Tensor:
        return ~torch.isnan(target).reshape(len(target), -1).any(dim=1)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return _LOSSES[self.criterion](prediction, self.from_own_unit(target).to(prediction.dtype))

    def directions(self) -> dict[str, Direction]:
        directions: dict[str, Direction] = {"loss": "min", "rmse": "min", "mae": "min", "r2": "max"}
        return directions | ({"spearman": "max"} if self.num_outputs == 1 else {})

    def metrics(self) -> "dict[str, Metric]":
        from mtlrun.tasks.metrics.errors import MAE, R2, RMSE
        from mtlrun.tasks.metrics.ranks import Spearman

        metrics: dict[str, Metric] = {metric.__name__.lower(): metric(self.num_outputs) for metric in (RMSE, MAE, R2)}
        return metrics | ({"spearman": Spearman()} if self.num_outputs == 1 else {})

    def metric_inputs(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        found, numbers = self.to_own_unit(prediction), self._numbers(target)
        return (found.squeeze(1), numbers.squeeze(1)) if self.num_outputs == 1 else (found, numbers)

    def resampled_metrics(self, prediction: Tensor, target: Tensor) -> ResampledMetrics:
        found, numbers = self.metric_inputs(prediction, target)
        of_numbers = join(errors(found, numbers), determination(found, numbers))
        return of_numbers if self.num_outputs > 1 else join(of_numbers, rank_correlation(found, numbers))

    def doubt_targets(self, target: Tensor, key: str) -> list[str]:
        numbers = self._numbers(target)
        equal = [str(index) for index, column in enumerate(numbers.T) if describe_equal(column) is not None]
        where = f"number {', '.join(equal)}: " if self.num_outputs > 1 else ""
        doubts = [f"{where}all labels for training are the same, so there is nothing to learn"] if equal else []
        doubts += self._doubt_pooling(numbers, key)
        return doubts if self.standardize else doubts + doubt_scale(numbers, key)

    def _doubt_pooling(self, numbers: Tensor, key: str) -> list[str]:
        """Return a sentence if the errors of the number with the largest spread hide those of others, or none."""
        spread = numbers.std(dim=0, correction=0)
        spread = spread[spread > 0]
        if len(spread) < 2 or spread.max() <= _UNLIKE * spread.min():
            return []
        low, high, task = float(spread.min()), float(spread.max()), key.removeprefix("tasks.")
        return [
            f"its numbers spread from {low:.3g} to {high:.3g}, so rmse and mae, which are over all of them, are "
            f"about the largest; r2 weighs them alike (trainer.monitor={task}/r2), and so do tasks of their own"
        ]

    def undefined_metrics(self, target: Tensor, names: Sequence[str] = ()) -> dict[str, str]:
        equal = [describe_equal(numbers) for numbers in self._numbers(target).T]
        if None in equal:
            return {}
        if self.num_outputs == 1:
            return dict.fromkeys(["r2", "spearman"], str(equal[0]))
        return {"r2": "each number is the same in all labels"}

    def narrowed_metrics(self, target: Tensor, names: Sequence[str] = ()) -> dict[str, str]:
        numbers = self._numbers(target).T
        equal = [str(index) for index, column in enumerate(numbers) if describe_equal(column) is not None]
        return {"r2": f"number {', '.join(equal)}"} if 0 < len(equal) < self.num_outputs else {}

    def target_sums(self, target: Tensor) -> Tensor:
        """Return the number of samples and the sum of each of their numbers, [1 + num_outputs]."""
        numbers = self._numbers(target)
        return torch.cat([numbers.new_tensor([len(numbers)]), numbers.sum(dim=0)])

    def constant_prediction(self, sums: Tensor, target: Tensor) -> Tensor:
        return self.from_own_unit(sums[1:] / sums[0]).to(target.dtype).expand(len(target), -1)

    def decode(self, prediction: Tensor) -> Decoded:
        numbers = self.to_own_unit(prediction)
        return Decoded(numbers.squeeze(1) if self.num_outputs == 1 else numbers)

    def to_average(self, prediction: Tensor) -> Tensor:
        """Return the numbers in the unit of the targets, [n, num_outputs]."""
        return self.to_own_unit(prediction)

    def from_average(self, average: Tensor) -> Tensor:
        return self.from_own_unit(average).float()

    def observed(self, target: Tensor) -> Tensor:
        return self._numbers(target)

    def observations(self, target: Tensor) -> Tensor:
        return self.from_own_unit(target)

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


def _mean_and_std(numbers: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return mean and standard deviation of each column; 0 and 1 without rows, and 1 for a column that is constant.

    NumPy's sums do not depend on the number of threads. The first row is subtracted first, so that numbers that are
    close to each other, and far from 0, keep all their digits; and deviations are divided by the largest, so that no
    square overflows, or vanishes.

    Args:
        numbers: float64 [rows, columns].
    """
    if not len(numbers):
        return numpy.zeros(numbers.shape[1]), numpy.ones(numbers.shape[1])
    deviations = numbers - numbers[0]
    mean = deviations.mean(axis=0)
    deviations -= mean
    largest = numpy.abs(deviations).max(axis=0)
    constant = (numbers == numbers[0]).all(axis=0)
    largest[constant] = 1.0
    std = largest * numpy.sqrt(numpy.square(deviations / largest).mean(axis=0))
    return numbers[0] + mean, numpy.where(constant, 1.0, std)


def _write_mean(mean: float, std: float) -> str:
    """Return a mean with six digits, or with more where the standard deviation is far smaller."""
    more = math.floor(math.log10(abs(mean) / std)) if mean and 0 < std < abs(mean) else 0
    return f"{mean:.{min(17, max(6, more + 4))}g}"
