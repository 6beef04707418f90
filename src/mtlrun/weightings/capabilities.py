"""Capabilities of weightings: what some need of a training step besides losses and gradients.

They are mixins, asked for by isinstance; the trainer calls the hooks of each weighting that has the capability. A
method derives from one of the kinds in `base` as well: `class FAMO(ObservesLossesAfterStep, LossWeighting)`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from mtlrun.config.bounds import LearningRate, checked
from mtlrun.config.checks import check_one_of
from mtlrun.weightings.state.learner import LearnedOptimizer


class Lookahead(Protocol):
    """The losses of two batches at the current values of the model's parameters, which may be changed for a trial.

    They are those of the tasks that have a label in the batch; in this step's batch these are the weighting's `active`.
    """

    parameters: list[nn.Parameter]
    #: Learning rate of the step that is about to be made.
    lr: float

    def losses(self, *, meta: bool = False) -> Tensor:
        """Return the losses, with their graph, of this step's batch or of the meta batch."""


class LearnsWeights:
    """Mixin of methods with parameters, for the keys of their optimizer.

    Whatever parameters a weighting registers are learned, by an optimizer apart from the run's; see `Weighting.learn`.

    Args:
        optimizer: `adam` or `sgd`, at a constant rate.
        lr: learning rate; None for `optimizer.lr`.
        common: see the kind of weighting.
    """

    @checked
    def __init__(self, *, optimizer: LearnedOptimizer = "adam", lr: LearningRate | None = None, **common: Any) -> None:
        super().__init__(**common)
        check_one_of("optimizer", optimizer, LearnedOptimizer)
        self.optimizer = optimizer
        self.lr = lr


class UsesTaskWeights:
    """Mixin of methods that read the config keys `tasks.<t>.weight`."""

    @property
    def reads_task_weights(self) -> bool:
        """False if this instance is set up not to."""
        return True


class UsesLabelFractions(UsesTaskWeights, ABC):
    """Mixin of methods that weigh tasks by how many labels they have, where a task's weight is `size`."""

    #: True if `set_label_fractions` must be called before training.
    needs_label_fractions: bool

    @abstractmethod
    def set_label_fractions(self, fractions: Sequence[float]) -> None:
        """Set the fraction of the training samples that carry each task's label; called once, after `setup`."""


class UsesTaskKinds(ABC):
    """Mixin of methods whose formula is another one for classification than for regression."""

    @abstractmethod
    def set_categorical(self, categorical: Sequence[bool]) -> None:
        """Take in for each task whether its loss is a cross-entropy over classes; called once, after `setup`."""


class UsesTaskNames(ABC):
    """Mixin of methods in whose config a task is named."""

    @abstractmethod
    def set_task_names(self, names: Sequence[str]) -> None:
        """Take in the names of all tasks, in their order; called once, after `setup`."""


class ObservesPerformance(ABC):
    """Mixin of methods that weigh tasks by how well they do on each batch."""

    @abstractmethod
    def observe_performance(self, performance: Tensor) -> None:
        """Take in the performances [K] in [0, 1], higher is better, without graph; called before each update."""


class ObservesLossesAfterStep(ABC):
    """Mixin of methods that compare a batch's losses before and after the optimizer step: one more forward pass."""

    @abstractmethod
    def observe_losses_after_step(self, losses: Tensor) -> None:
        """Take in the losses [K] of the same batch, not transformed; called after each step, before `learn`."""


class SeesRepresentation(ABC):
    """Mixin of methods that combine gradients with respect to the representation, and look at its values as well."""

    @abstractmethod
    def observe_representation(self, representation: Tensor) -> None:
        """Take in the representation [batch, ...], without graph; called before the gradients are combined."""


class SeesSampleNorms(ABC):
    """Mixin of methods that combine gradients with respect to the representation by their lengths in each sample."""

    #: False if this instance is set up to do without.
    needs_sample_norms: bool

    @abstractmethod
    def observe_sample_norms(self, norms: Tensor) -> None:
        """Take in the lengths [K, batch], in float64 on the CPU; called before the gradients are combined."""


class SeesTensorSizes(ABC):
    """Mixin of methods that treat each parameter tensor by itself."""

    @abstractmethod
    def observe_tensor_sizes(self, sizes: Sequence[int]) -> None:
        """Take in the sizes of the tensors that each row of the Jacobian consists of; called before `combine`."""


class ClipsSharedGradient:
    """Mixin of methods whose published code clips the gradient of the shared parameters, and of no others."""

    #: Largest norm of the shared parameters' `.grad`; None for no limit.
    max_norm: float | None


class LooksAhead(ABC):
    """Mixin of methods that try out each step before it is made, on two batches."""

    @abstractmethod
    def look_ahead(self, lookahead: Lookahead) -> None:
        """Evaluate losses at trial parameters, and put the parameters back; called before each step."""


class RotatesRepresentation(ABC):
    """Mixin of methods that learn a rotation of the shared representation in front of each task's head."""

    @abstractmethod
    def attach_rotations(self, rotations: Tensor) -> None:
        """Take the model's rotations [K, d, d], to be written to in `learn`; called once, after `setup`."""
