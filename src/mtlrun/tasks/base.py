"""What a task is: a loss, metrics with a direction, and the shape of what its head must give."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

Direction = Literal["max", "min"]
# (shape of one sample's features, shape of its prediction) -> head
HeadFactory = Callable[[tuple[int, ...], tuple[int, ...]], nn.Module]
#: A number > 0, or `size`.
TaskWeight = float | Literal["size"]


class Task(nn.Module, ABC):
    """One thing to predict. Subclasses give the loss, the metrics and which labels are there.

    Args:
        lr: learning rate of the parameters that belong to this task alone.
        weight: the factor of this task's loss under `weighting=static`; every other weighting refuses one that is not
            1. `size` is the share of the training samples that carry the task's label: with it for all tasks each label
            counts the same, and not each task.
        head: makes this task's head from the shapes of one sample's features and of its prediction; in YAML a
            `_target_` with `_partial_: true`. None leaves the choice to the model.
    """

    #: The metric by which the task is judged when checkpoints are selected: a key of `metrics()`.
    main_metric: str
    #: True if the loss is never negative; some weightings divide by it or take its logarithm.
    nonnegative_loss = False
    #: True if something is predicted at each pixel: predictions are [batch, output_size, height, width].
    dense = False
    #: True if boxes in the image are predicted: predictions are [batch, locations, output_size + 9].
    boxes = False
    #: True if `fit` has to be called before training.
    needs_fit = False

    def __init__(self, *, lr: float = 1e-3, weight: TaskWeight = 1.0, head: HeadFactory | None = None) -> None:
        super().__init__()
        if not lr > 0:
            raise ValueError(f"lr must be > 0, found {lr}")
        if weight != "size" and not weight > 0:
            raise ValueError(f"weight must be > 0, or size, found {weight}")
        self.lr = lr
        self.weight = weight
        self.head = head

    @property
    @abstractmethod
    def output_size(self) -> int:
        """Number of values that the head gives per sample, or per pixel where the task is dense."""

    @abstractmethod
    def labeled(self, target: Tensor) -> Tensor:
        """Return a boolean mask over the batch, shape [batch]: which samples carry a label."""

    @abstractmethod
    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss over the samples; all of them are labeled. Shape []."""

    def num_terms(self, target: Tensor) -> int | Tensor:
        """Return over how many terms `loss` takes its mean, for means over several batches; samples, if not pixels.

        Where the terms have weights, this is the sum of those.
        """
        return len(target)

    def fit(self, targets: Iterable[Tensor]) -> None:
        """Learn what the loss has to know of the training split; called once before training where `needs_fit`.

        What is learnt may depend on the targets alone, and is kept in buffers, so that it moves with the task.

        Args:
            targets: of the whole training split, in parts, so that those of many maps need not be in memory together.

        Raises:
            ValueError: the loss cannot be made from these targets.
        """

    @abstractmethod
    def metrics(self) -> dict[str, Metric]:
        """Return fresh metrics by name; each says by `higher_is_better` which way is better."""

    def performance(self, prediction: Tensor, target: Tensor) -> Tensor | None:
        """Return how well a batch of labeled samples is predicted, in [0, 1], higher is better, shape [].

        None, as here, for a task that has no such number; weightings that need one then refuse the task.
        """
        return None

    def metric_inputs(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Turn the head's output and the targets into what the metrics take."""
        return prediction, target

    def check_targets(self, target: Tensor) -> None:
        """Raise ValueError where a label cannot be one of this task's. Called once per split, before training."""

    def picture(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return predictions and targets of some samples as images [n, 3, height, width] in [0, 1]; None for none."""
        return None

    def directions(self) -> dict[str, Direction]:
        """Return which way each metric is better, the loss included."""
        found: dict[str, Direction] = {"loss": "min"}
        for name, metric in self.metrics().items():
            found[name] = "max" if metric.higher_is_better else "min"
        return found

    def meter(self) -> "Meter":
        """Return a fresh accumulator of this task's loss and metrics over a split."""
        return Meter(self)


class Meter:
    """Pools a task's loss and metrics over all labeled samples of a split; never a mean of batch means."""

    def __init__(self, task: Task) -> None:
        self._task = task
        metrics = task.metrics()
        self._metrics = MetricCollection(dict(metrics)) if metrics else None
        self._losses: list[tuple[Tensor, int | Tensor]] = []  # (mean over the batch, of how many), for compute()

    def to(self, device: torch.device) -> "Meter":
        """Move the metrics' states to `device`."""
        if self._metrics is not None:
            self._metrics = self._metrics.to(device)
        return self

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add the labeled samples of a batch; the caller has removed the others."""
        if len(target) == 0:
            return
        self._losses.append((self._task.loss(prediction, target).detach(), self._task.num_terms(target)))
        if self._metrics is not None:
            self._metrics.update(*self._task.metric_inputs(prediction, target))

    def compute(self) -> dict[str, float]:
        """Return `{loss: ..., metric: ...}`; NaN everywhere where no sample was labeled."""
        if not self._losses:
            return dict.fromkeys(self._task.directions(), float("nan"))
        counted = [(float(loss), float(count)) for loss, count in self._losses]
        total = sum(count for _, count in counted)  # a sum of weights may be below 1
        values: dict[str, Any] = {"loss": sum(loss * count for loss, count in counted if count) / (total or 1)}
        if self._metrics is not None:
            values |= self._metrics.compute()
        return {name: float(value) for name, value in values.items()}
