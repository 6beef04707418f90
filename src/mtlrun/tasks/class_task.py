"""What the tasks with classes have in common: smoothed labels, the focal loss, and weights of classes."""

from torch import Tensor

from mtlrun.tasks.base import HeadFactory, Task, TaskWeight
from mtlrun.tasks.losses.class_weights import ClassWeights, first_weights
from mtlrun.tasks.losses.focal import Criterion, check_criterion


class ClassTask(Task):
    """Base of the tasks whose labels are classes; their docstrings say what the arguments mean there.

    Args:
        num_classes: how many classes `class_weights` are for.
        label_smoothing: in [0, 1), and 0 with `focal`.
        class_weights: `none`, `balanced`, or a number > 0 for each class.
        criterion, focal_gamma: see `mtlrun.tasks.losses.focal`.
        lr, weight, head: see `Task`.
    """

    nonnegative_loss = True
    #: [num_classes]; None where all classes count the same.
    class_weights: Tensor | None

    def __init__(
        self,
        num_classes: int,
        *,
        label_smoothing: float,
        criterion: Criterion,
        focal_gamma: float,
        class_weights: ClassWeights = "none",
        lr: float,
        weight: TaskWeight,
        head: HeadFactory | None,
    ) -> None:
        super().__init__(lr=lr, weight=weight, head=head)
        check_criterion(criterion, focal_gamma, label_smoothing)
        self.label_smoothing = label_smoothing
        self.criterion = criterion
        self.focal_gamma = focal_gamma
        self.register_buffer("class_weights", first_weights(class_weights, num_classes))
        self.needs_fit = class_weights == "balanced"

    def weights_for(self, prediction: Tensor) -> Tensor | None:
        """Return the class weights in the type that a loss of these predictions needs."""
        return None if self.class_weights is None else self.class_weights.to(prediction.dtype)
