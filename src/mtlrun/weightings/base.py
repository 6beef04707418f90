"""What a weighting is: how K task losses, or their gradients, become one update.

A weighting declares by its base class what it needs, and gets no more:

    LossWeighting       the losses [K]                    one backward pass
    GradientWeighting   the Gram matrix [K, K]            K backward passes; inner products of the task gradients
    JacobianWeighting   every entry of the rows [K, P]    K backward passes

All are nn.Modules: learnable state, buffers and random generators are in `state_dict`, so that a run that is continued
equals one that never stopped.
"""

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mtlrun.checks import check_one_of

GradSource = Literal["shared", "representation", "last_layer"]
HeadTraining = Literal["own", "weighted"]
Reduction = Literal["sum", "mean"]


class Weighting(nn.Module, ABC):
    """Base of the three kinds; subclass one of those."""

    #: Fewest tasks that the method makes sense for.
    minimum_tasks = 1
    #: True if the method reads `tasks.<t>.weight`.
    uses_task_weights = False
    #: Backward passes per step as a function of the number of tasks.
    backward_passes: Literal["one", "one per task"] = "one"

    def __init__(self, *, lr: float | None = None) -> None:
        super().__init__()
        if lr is not None and not lr > 0:
            raise ValueError(f"lr must be > 0, or null for optimizer.lr, found {lr}")
        #: Learning rate of the weighting's own parameters; None for `optimizer.lr`.
        self.lr = lr
        self.num_tasks = 0
        #: Which of the K tasks have a loss in this step. State of length K is to be indexed with it.
        self.active: slice | Tensor = slice(None)
        self._seed = 0
        self._generators: dict[str, torch.Generator] = {}

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        """Learn how many tasks there are; called once, before training. Subclasses make their state here."""
        self.num_tasks = num_tasks
        self._seed = seed

    def epoch_ended(self) -> None:
        """Called after the last step of each pass over the training data."""

    @property
    def fallbacks(self) -> int:
        """How often a solver failed and something else was done in its place."""
        return 0

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """Return the method's own random generator on `device`, so that no other random number depends on it."""
        name = str(device)
        if name not in self._generators:
            self._generators[name] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[name]

    def get_extra_state(self) -> dict[str, Tensor]:
        return {device: generator.get_state() for device, generator in self._generators.items()}

    def set_extra_state(self, state: Any) -> None:
        for device, generator_state in state.items():
            self.generator(device).set_state(generator_state.cpu())


class LossWeighting(Weighting):
    """Makes one scalar of the losses; one backward pass."""

    @abstractmethod
    def objective(self, losses: Tensor) -> Tensor:
        """Return the scalar to be minimised, differentiable in `losses` [K].

        Its gradient by the losses is what is reported as effective weights.
        """


class _RowWeighting(Weighting):
    """What the two kinds have in common that look at the tasks' gradients."""

    minimum_tasks = 2
    backward_passes = "one per task"

    def __init__(self, *, grad_source: GradSource = "shared", lr: float | None = None) -> None:
        super().__init__(lr=lr)
        #: Where the gradients are compared: by all shared parameters (exact), or, cheaper and approximate, by the
        #: shared representation or the last shared layer.
        check_one_of("grad_source", grad_source, GradSource)
        self.grad_source: GradSource = grad_source


class GradientWeighting(_RowWeighting):
    """Makes weights from inner products of the task gradients; K backward passes.

    Args:
        heads: how what belongs to a task alone is trained: by its own loss, or by its loss times the task's weight.
        grad_source: `shared` (exact), `representation` or `last_layer` (cheaper, approximate).
        lr: of the method's own parameters, if it has any.
    """

    def __init__(
        self, *, heads: HeadTraining = "own", grad_source: GradSource = "shared", lr: float | None = None
    ) -> None:
        super().__init__(grad_source=grad_source, lr=lr)
        check_one_of("heads", heads, HeadTraining)
        self.heads: HeadTraining = heads

    @abstractmethod
    def weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """Return the weights [K] of the task gradients in the update.

        `gram` [K, K] and `losses` [K] are float64 on the CPU, without graph; so is what is returned. Called without
        gradient tracking. A method with parameters sets their `.grad` itself.
        """


class JacobianWeighting(_RowWeighting):
    """Makes the update from every entry of the task gradients; K backward passes. Heads are trained by their own loss.

    Args:
        grad_source: `shared` (exact) or `representation` (cheaper, approximate).
        lr: of the method's own parameters, if it has any.
    """

    def __init__(self, *, grad_source: Literal["shared", "representation"] = "shared", lr: float | None = None) -> None:
        super().__init__(grad_source=grad_source, lr=lr)

    @abstractmethod
    def combine(self, jacobian: Tensor, losses: Tensor) -> Tensor:
        """Return the direction [P] made of the task gradients `jacobian` [K, P], on its device; `losses` is [K].

        Called without gradient tracking.
        """
