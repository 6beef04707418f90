"""Capabilities of weightings: what some need of a training step besides losses and gradients.

They are mixins, asked for by isinstance; the trainer calls the hooks of each weighting that has the capability. A
method derives from one of the kinds in `base` as well: `class FAMO(ObservesLossesAfterStep, LossWeighting)`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn


class Lookahead(Protocol):
    """The losses of two batches at the current values of the model's parameters, which may be changed for a trial."""

    parameters: list[nn.Parameter]
    #: Learning rate of the step that is about to be made.
    lr: float

    def losses(self, *, meta: bool = False) -> Tensor:
        """Return the losses [K], with their graph, of this step's batch or of the meta batch."""
        ...


class UsesTaskWeights:
    """Mixin of methods that read the config keys `tasks.<t>.weight`."""


class UsesLabelFractions(UsesTaskWeights, ABC):
    """Mixin of methods that weigh tasks by how many labels they have, where a task's weight is `size`."""

    #: True if `set_label_fractions` must be called before training.
    needs_label_fractions: bool

    @abstractmethod
    def set_label_fractions(self, fractions: Sequence[float]) -> None:
        """Set the fraction of the training samples that carry each task's label; called once, after `setup`."""


class ObservesPerformance(ABC):
    """Mixin of methods that weigh tasks by how well they do on each batch."""

    @abstractmethod
    def observe_performance(self, performance: Tensor) -> None:
        """Take in the performances [K] in [0, 1], higher is better, without graph; called before each update."""


class ObservesLossesAfterStep(ABC):
    """Mixin of methods that compare a batch's losses before and after the optimizer step: one more forward pass."""

    @abstractmethod
    def observe_losses_after_step(self, losses: Tensor) -> None:
        """Take in the losses [K] of the same batch, not transformed; called after each optimizer step."""


class LooksAhead(ABC):
    """Mixin of methods that try out each step before it is made, on two batches."""

    @abstractmethod
    def look_ahead(self, lookahead: Lookahead) -> None:
        """Evaluate losses at trial parameters, and put the parameters back; called before each step with all tasks."""


class RotatesRepresentation(ABC):
    """Mixin of methods that learn a rotation of the shared representation in front of each task's head."""

    @abstractmethod
    def attach_rotations(self, rotations: Tensor) -> None:
        """Take the model's rotations [K, d, d], to be written to; called once, after `setup`."""

    @abstractmethod
    def on_optimizer_step(self) -> None:
        """Update the rotations; called after each optimizer step."""
