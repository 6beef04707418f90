"""Bases of the tasks whose labels are classes: label smoothing, the focal loss, and class weights."""

from collections.abc import Iterable
from typing import Unpack

from torch import Tensor

from mtlrun.config.bounds import Exponent, FractionBelowOne, checked
from mtlrun.tasks.base import ConstantPredictor, MeasuresPerformance, Task, TaskOptions
from mtlrun.tasks.losses.class_weights import ClassWeights, balanced_weights, count_classes, initial_class_weights
from mtlrun.tasks.losses.focal import Criterion, check_criterion


class ClassTaskOptions(TaskOptions, total=False):
    """Arguments that all tasks with classes take and pass on to `ClassTask`, which has their defaults."""

    label_smoothing: FractionBelowOne
    criterion: Criterion
    focal_gamma: Exponent


class ClassTask(Task, MeasuresPerformance, ConstantPredictor):
    """Base of the tasks whose labels are classes, two (yes or no) or more.

    Source of `focal`: Lin et al., "Focal Loss for Dense Object Detection" (ICCV 2017). The factors (1 - p)^focal_gamma
    are not divided by their sum.

    Args:
        label_smoothing: fraction of the target's mass that is spread evenly over all classes, in [0, 1).
        criterion: `cross_entropy`, or `focal`, in which a label counts (1 - p)^focal_gamma times, p being the
            probability predicted for it; without label smoothing.
        focal_gamma: >= 0, used by `focal`; 0 is cross-entropy.
        common: see `Task`.
    """

    nonnegative_loss = True
    categorical = True

    @checked
    def __init__(
        self,
        *,
        label_smoothing: FractionBelowOne = 0.0,
        criterion: Criterion = "cross_entropy",
        focal_gamma: Exponent = 2.0,
        **common: Unpack[TaskOptions],
    ) -> None:
        super().__init__(**common)
        check_criterion(criterion, label_smoothing)
        self.label_smoothing = label_smoothing
        self.criterion = criterion
        self.focal_gamma = focal_gamma


class ClassWeightedTask(ClassTask):
    """Base of the tasks with classes whose labels can be weighted by class; constructors call `set_classes`.

    With class weights, loss and `performance` are weighted means, divided by the sum of the labels' weights. Metrics
    are not weighted.
    """

    num_classes: int
    #: Target value of a missing label.
    ignore_index: int
    #: [num_classes]; None if all classes count the same.
    class_weights: Tensor | None

    def set_classes(self, num_classes: int, class_weights: ClassWeights, ignore_index: int = -1) -> None:
        """Set the number of classes and their weights; ValueError if the weights are not valid."""
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.register_buffer("class_weights", initial_class_weights(class_weights, num_classes))
        self.needs_fit = class_weights == "balanced"

    def fit(self, targets: Iterable[Tensor]) -> None:
        self.class_weights = balanced_weights(targets, self.num_classes, self.ignore_index)

    def target_sums(self, target: Tensor) -> Tensor:
        """Return the number of labels of each class, [num_classes]."""
        return count_classes(target, self.num_classes, self.ignore_index)

    def class_weights_like(self, prediction: Tensor) -> Tensor | None:
        """Return the class weights in the floating-point type of `prediction`, None for none."""
        return None if self.class_weights is None else self.class_weights.to(prediction.dtype)
