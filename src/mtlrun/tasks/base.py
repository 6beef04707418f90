"""Base class of the task kinds, what a task can do besides, and the meter that evaluates one over a split."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import Positive, checked
from mtlrun.tasks.resampling.base import ResampledMetrics

if TYPE_CHECKING:
    from torchmetrics import Metric

Direction = Literal["max", "min"]
#: {metric: direction}.
Directions = Mapping[str, Direction]
# (shape of one sample's features, shape of its prediction) -> head
HeadFactory = Callable[[tuple[int, ...], tuple[int, ...]], nn.Module]
#: A family of distributions; `categorical` is one of several classes, `bernoulli` yes or no.
Family = Literal["categorical", "bernoulli", "gaussian", "poisson"]
#: A number > 0, or `size`.
TaskWeight = Positive | Literal["size"]


# Numbers so many times larger than 1, or differences so many times smaller, are learned slowly.
_FAR_FROM_1 = 300


class TaskOptions(TypedDict, total=False):
    """Arguments that all task kinds take and pass on to `Task`, which has their defaults."""

    lr: Positive
    weight: TaskWeight
    head: HeadFactory | None


class Task(nn.Module, ABC):
    """One thing to predict. Subclasses define the loss, the metrics and which samples are labeled.

    Args:
        lr: learning rate of the task-specific parameters.
        weight: factor of this task's loss under `weighting=static`, or how much the task counts under a weighting with
            preferences; every other weighting refuses values other than 1.
            `size` is the fraction of the training samples that are labeled for this task: if all tasks use it, every
            label counts the same, instead of every task.
        head: builds this task's head from the shapes of one sample's features and of its prediction; in YAML a
            `_target_` with `_partial_: true`. None leaves the choice to the model.
    """

    #: The metric that checkpoints are selected by: a key of `metrics()`.
    main_metric: str
    #: {metric: direction}, equal to `higher_is_better` of `metrics()`; None to read it from these.
    metric_directions: ClassVar[Directions | None] = None
    #: {metric: value} of a perfect prediction, where it is not 1 for a metric to be maximized, 0 for one to minimize.
    perfect_values: ClassVar[Mapping[str, float]] = {}
    #: {metric: value} of a prediction that ignores the input, where no `ConstantPredictor` gives it.
    trivial_values: ClassVar[Mapping[str, float]] = {}
    #: True if the loss is never negative; some weightings divide by it or take its logarithm.
    nonnegative_loss = False
    #: True if the loss is a cross-entropy: that of a probability distribution over classes.
    categorical = False
    #: True if there is a prediction for each pixel: predictions are [batch, output_size, height, width].
    dense = False
    #: True if boxes in the image are predicted: predictions are [batch, locations, output_size + 9].
    boxes = False
    #: True if `fit` has to be called before training.
    needs_fit = False
    #: True if numbers may come as float64 targets; the numbers of a table then keep all their digits.
    takes_float64 = False

    @checked
    def __init__(self, *, lr: Positive = 1e-3, weight: TaskWeight = 1.0, head: HeadFactory | None = None) -> None:
        super().__init__()
        self.lr = lr
        self.weight = weight
        self.head = head

    @property
    @abstractmethod
    def output_size(self) -> int:
        """Number of values that the head predicts per sample, or per pixel for a dense task."""

    @abstractmethod
    def labeled(self, target: Tensor) -> Tensor:
        """Return a boolean mask of the labeled samples, [batch]."""

    @abstractmethod
    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss over the samples, all of which are labeled. Shape []."""

    def num_terms(self, target: Tensor) -> int | Tensor:
        """Return the number of terms that `loss` averages (samples, or labeled pixels), to combine means over batches.

        If the terms are weighted, this is the sum of their weights.
        """
        return len(target)

    def fit(self, targets: Iterable[Tensor]) -> None:
        """Learn what the loss needs to know about the training split; called once before training if `needs_fit`.

        The result may depend on the targets only, and is kept in buffers, so that it moves with the task.

        Args:
            targets: those of the whole training split, in chunks, so that large maps need not be in memory together.

        Raises:
            ValueError: the loss cannot be defined from these targets.
        """

    def learned(self) -> Mapping[str, Any]:
        """Return what `fit` learned, as plain data for `learned.json` of the run: what decodes predictions."""
        return {}

    def describe_learned(self) -> str:
        """Return in words what `fit` learned, for the log, such as `mean 3`; empty if there is nothing to know."""
        return ""

    @abstractmethod
    def metrics(self) -> "dict[str, Metric]":
        """Return fresh metrics by name, in the order in which they are shown.

        torchmetrics takes as long to import as PyTorch. Kinds with `metric_directions` import it here instead of at the
        top of their file, so that the first step does not wait for it.
        """

    def metric_inputs(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Convert the head's output and the targets to what the metrics take."""
        return prediction, target

    def check_targets(self, target: Tensor) -> None:
        """Raise ValueError if a label is not valid for this task. Called once per split, before training."""

    def doubt_targets(self, target: Tensor, key: str) -> list[str]:
        """Return sentences on what makes the targets for training unsuitable, for the log before the run.

        Args:
            target: of the labeled samples, one or more.
            key: of the task in the config, such as `tasks.price`.
        """
        return []

    def undefined_metrics(self, target: Tensor, names: Sequence[str] = ()) -> dict[str, str]:
        """Return {metric: why} of the metrics that are NaN on a split with these labels, whatever is predicted.

        The run then says so before it trains. The keys are in `metrics()`; the loss is always defined.

        Args:
            target: of the labeled samples of the split, one or more.
            names: of the classes or labels, in the order of their numbers, if the dataset knows them.
        """
        return {}

    def narrowed_metrics(self, target: Tensor, names: Sequence[str] = ()) -> dict[str, str]:
        """Return {metric: what it leaves out} of the metrics that are means over fewer labels than there are.

        Args:
            target, names: as for `undefined_metrics`.
        """
        return {}

    def resampled_metrics(self, prediction: Tensor, target: Tensor) -> ResampledMetrics | None:
        """Return the metrics as a function of how often each sample occurs; see `tasks.resampling`.

        Their intervals are computed by it. Metrics that it lacks, or all if this is None, are computed by `meter` on
        repeated samples, which takes a thousand times as long.

        Args:
            prediction: of labeled samples, as the head gives it, [n, ...].
            target: [n, ...].
        """
        return None

    def directions(self) -> dict[str, Direction]:
        """Return which way each metric is better, the loss included."""
        if self.metric_directions is not None:
            return {"loss": "min", **self.metric_directions}
        directions: dict[str, Direction] = {"loss": "min"}
        for name, metric in self.metrics().items():
            directions[name] = "max" if metric.higher_is_better else "min"
        return directions

    def meter(self) -> "Meter":
        """Return a fresh accumulator of this task's loss and metrics over a split."""
        return Meter(self)


@dataclass(frozen=True)
class Decoded:
    """Predictions as a user of them wants them.

    Args:
        prediction: numbers in the unit of the data, class indices, or 0 and 1; [n], or [n, values] for several numbers
            or labels.
        probabilities: of the classes, float64 [n, num_classes]; of yes, [n], or [n, num_labels] for several labels;
            None if the task has none.
    """

    prediction: Tensor
    probabilities: Tensor | None = None


class DecodesPredictions(ABC):
    """Mixin of tasks whose predictions mean something to a reader; those of the result are kept in a file."""

    @abstractmethod
    def decode(self, prediction: Tensor) -> Decoded:
        """Return what the head's output, [n, output_size], says of each sample."""


class DecodesMaps(ABC):
    """Mixin of tasks that predict at each pixel."""

    @abstractmethod
    def decode_map(self, prediction: Tensor) -> Tensor:
        """Return what the head's output, [n, output_size, height, width], says of each pixel, in the unit of targets.

        Classes, of an integer type, or numbers: [n, height, width], or [n, channels, height, width].
        """


class DecodesBoxes(ABC):
    """Mixin of tasks that detect objects."""

    @abstractmethod
    def decode_boxes(self, prediction: Tensor) -> tuple[Tensor, Tensor]:
        """Return the detected objects of each image, [n, objects, 6] as in targets, and their scores [n, objects].

        Best first; padded with entries of class -1.
        """


class MeasuresPerformance(ABC):
    """Mixin of tasks that can rate a batch of predictions; weightings that need this refuse all other tasks."""

    @abstractmethod
    def performance(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return how well a batch of labeled samples is predicted, in [0, 1], higher is better, shape []."""


class ConstantPredictor(ABC):
    """Mixin of tasks that can be predicted without the input: by the same prediction for all samples of a split.

    Its metrics are the zero of the skill scores that checkpoints are selected by.
    """

    @abstractmethod
    def target_sums(self, target: Tensor) -> Tensor:
        """Return what `constant_prediction` needs to know of a batch of labeled samples, as sums, which are added up.

        In float64 or int64, so that large splits lose nothing.
        """

    @abstractmethod
    def constant_prediction(self, sums: Tensor, target: Tensor) -> Tensor:
        """Return the constant prediction in the format of the head, once for each sample, [batch, ...].

        Args:
            sums: `target_sums` over the whole split.
            target: of the samples, for the shape of the prediction alone.
        """


class GeneralizedLinear(ABC):
    """Mixin of tasks that a generalized linear model can predict as well: the head predicts its natural parameters.

    These are the log-probabilities of the classes, up to a constant, for `categorical`; for the others each number that
    the head predicts is on its own: the log-odds of yes for `bernoulli`, the mean for `gaussian`, the logarithm of the
    rate for `poisson`.
    """

    #: The family of distributions of the observations.
    family: ClassVar[Family]

    @abstractmethod
    def observations(self, target: Tensor) -> Tensor:
        """Return what a model is fitted to, in the units of the head, given the targets of labeled samples, [batch].

        For `categorical` class indices [batch]; else float64 [batch, output_size], NaN where an output has none.
        """


def log_frequencies(counts: Tensor) -> Tensor:
    """Return the logarithms of frequencies, up to a constant, in float32; of none at all, that of half a label."""
    return counts.double().clamp(min=0.5).log().float()


def doubt_scale(numbers: Tensor, key: str) -> list[str]:
    """Return a sentence on numbers far from 1 that a task learns as they are, or none.

    Args:
        numbers: float64 [samples, num_outputs], one or more.
        key: of the task in the config.
    """
    size, spread = numbers.square().mean(dim=0).sqrt(), numbers.std(dim=0, correction=0)
    narrow = spread[(spread > 0) & (spread < 1 / _FAR_FROM_1)]
    if not (size > _FAR_FROM_1).any() and not len(narrow):
        return []
    found = f"of about {float(size.max()):.3g}" if (size > _FAR_FROM_1).any() else f"that differ by {narrow.min():.3g}"
    return [f"numbers {found} are learned as they are, which takes long or fails; set {key}.standardize=true"]


def describe_equal(target: Tensor, names: Sequence[str] = ()) -> str | None:
    """Return in words that all labels are the same, as the reason why a metric is not defined; None if they are not.

    Args:
        target: [samples], one or more.
        names: of classes, by their numbers.
    """
    lowest, highest = float(target.min()), float(target.max())
    if lowest != highest:
        return None
    label = repr(names[int(lowest)]) if names else f"{lowest:g}"
    return f"all {len(target)} labels are {label}" if len(target) > 1 else f"the only label is {label}"


#: What colors mean: (words, (red, green, blue) in [0, 1]).
Legend = list[tuple[str, tuple[float, float, float]]]


class DrawsPictures(ABC):
    """Mixin of tasks whose predictions and targets can be shown as images."""

    @abstractmethod
    def picture(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return predictions and targets of some samples as images [n, 3, height, width] in [0, 1]."""

    def legend(self) -> Legend:
        """Return what the colors of these images mean; by default nothing."""
        return []


class Meter:
    """Accumulator of a task's loss and metrics, pooled over all labeled samples of a split: no mean of batch means."""

    def __init__(self, task: Task) -> None:
        self._task = task
        metrics = task.metrics()
        self._metrics: Any = None
        if metrics:
            from torchmetrics import MetricCollection  # slow to import, and not needed before the first evaluation

            from mtlrun.tasks.metrics.shared import group_by_state

            self._metrics = MetricCollection(dict(metrics), compute_groups=group_by_state(metrics))
        self._losses: list[tuple[Tensor, int | Tensor]] = []  # of each batch: mean, number of terms

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
        """Return `{loss: ..., metric: ...}`; all NaN if no sample was labeled."""
        if not self._losses:
            return dict.fromkeys(self._task.directions(), float("nan"))
        losses = list(zip(*(to_floats(column) for column in zip(*self._losses, strict=True)), strict=True))
        total = sum(count for _, count in losses)  # a sum of weights may be below 1
        values: dict[str, Any] = {"loss": sum(loss * count for loss, count in losses if count) / (total or 1)}
        if self._metrics is not None:
            values |= self._metrics.compute()
        return dict(zip(values, to_floats(list(values.values())), strict=True))


def to_floats(numbers: Sequence[float | Tensor]) -> list[float]:
    """Return numbers and tensors of one element as floats; those on a GPU are waited for once."""
    on_gpu = [isinstance(number, Tensor) and not number.is_cpu for number in numbers]
    sent = list(compress(numbers, on_gpu))
    read = iter(torch.stack([torch.as_tensor(number).double() for number in sent]).tolist() if sent else ())
    return [next(read) if is_sent else float(number) for number, is_sent in zip(numbers, on_gpu, strict=True)]
