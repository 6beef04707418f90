"""What a weighting is: how K task losses, or their gradients, become one update.

A weighting declares by its base class what it needs, and gets no more:

    LossWeighting       the losses [K]                    one backward pass
    GradientWeighting   the Gram matrix [K, K]            K backward passes; inner products of the task gradients
    JacobianWeighting   every entry of the rows [K, P]    K backward passes

All are nn.Modules: learnable state, buffers and random generators are in `state_dict`, so that a run that is continued
equals one that never stopped.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from mtlrun.config.checks import check_one_of

GradWrt = Literal["shared", "representation", "last_layer"]
HeadLoss = Literal["unweighted", "weighted"]
Reduction = Literal["sum", "mean"]
LossTransform = Literal["identity", "log"]

# Added to a loss before its logarithm is taken, so that a loss of exactly zero stays finite.
LOG_EPSILON = 1e-8

logger = logging.getLogger(__name__)


class LookAhead(Protocol):
    """The model's losses at whatever its parameters are at the moment, on this step's batch and on another one."""

    parameters: list[nn.Parameter]
    lr: float

    def losses(self, *, second: bool = False) -> Tensor:
        """Return the losses [K], with their graph."""
        ...


class Weighting(nn.Module, ABC):
    """Base of the three kinds; subclass one of those.

    Args:
        loss_transform: what is done to each loss before the method sees it: `identity`, or `log`, which makes a method
            blind to the losses' scales (the gradient of log L is that of L divided by L). Losses must then be positive.
    """

    #: Fewest tasks that the method makes sense for.
    minimum_tasks = 1
    #: True if the method reads `tasks.<t>.weight`.
    uses_task_weights = False
    #: True if the method is to be told, before training, how large the tasks are: `tell_sizes`.
    needs_sizes = False
    #: Backward passes per step as a function of the number of tasks.
    backward_passes: Literal["one", "one per task"] = "one"
    #: Into how many parts of (nearly) equal size the batch of each step is split; see `PartsWeighting`.
    num_parts = 1
    #: True if the method divides by losses or takes their logarithm.
    needs_positive_losses = False
    #: True if the method is to be told, before each step, how well each task does on the batch: `observe`.
    needs_performance = False
    #: True if the method is to try out each step before it is made: `look_ahead`.
    needs_look_ahead = False
    #: True if the method is to be given the batch's losses once more after each step: `after_step`.
    needs_losses_after_step = False
    #: True if the method rotates the shared representation in front of each task's head: `attach`.
    needs_rotations = False

    def __init__(self, *, loss_transform: LossTransform = "identity") -> None:
        super().__init__()
        check_one_of("loss_transform", loss_transform, LossTransform)
        if self.needs_positive_losses and loss_transform == "log":
            raise ValueError("loss_transform must be 'identity' for a method that needs positive losses, found 'log'")
        self.loss_transform: LossTransform = loss_transform
        #: Learning rate of the method's own parameters, for methods that have some; None for `optimizer.lr`.
        self.lr: float | None = None
        self.num_tasks = 0
        #: How many passes over the training data have ended.
        self.epoch = 0
        #: Which of the K tasks have a loss in this step. State of length K is to be indexed with it.
        self.active: slice | Tensor = slice(None)
        #: How often a solver failed and something else was done in its place; see `fall_back`.
        self.fallbacks = 0
        self._seed = 0
        self._generators: dict[str, torch.Generator] = {}

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        """Learn how many tasks there are; called once, before training. Subclasses make their state here."""
        self.num_tasks = num_tasks
        self._seed = seed

    def passes(self, num_tasks: int) -> tuple[int, int]:
        """Return how many forward and backward passes a step makes."""
        backward = 1 if self.backward_passes == "one" else self.num_parts * num_tasks
        return 1 + self.needs_losses_after_step, backward

    def epoch_ended(self) -> None:
        """Called after the last step of each pass over the training data; an override calls this one, too."""
        self.epoch += 1

    @property
    def first_epoch(self) -> int:
        """The epoch, from 1, from which on the method is what it is called, after a warm-up of its own."""
        return 1

    def tell_sizes(self, shares: Sequence[float]) -> None:
        """Called once after `setup`, where `needs_sizes`: the share of the training samples with each task's label."""

    def attach(self, rotations: Tensor) -> None:
        """Called once after `setup`, where `needs_rotations`, with those of the model [K, d, d], to be written to."""

    def observe(self, performance: Tensor) -> None:
        """Called before each step where `needs_performance`: [K], in [0, 1], higher is better, without graph."""

    def look_ahead(self, problem: "LookAhead") -> None:
        """Called before each step, where `needs_look_ahead`, if all tasks have a label; leaves the model as it was."""

    def stepped(self) -> None:
        """Called after each optimizer step, before anything is predicted again."""

    def after_step(self, losses: Tensor) -> None:
        """Called after each optimizer step where `needs_losses_after_step`: the same batch's losses [K] by then."""

    def transform(self, losses: Tensor) -> Tensor:
        """Return the losses as the method is to see them; differentiable, elementwise."""
        return torch.log(losses + LOG_EPSILON) if self.loss_transform == "log" else losses

    def fall_back(self, why: str) -> None:
        """Note that this step could not do what the method is, and does something else: never silently."""
        self.fallbacks += 1
        if self.fallbacks == 1:
            logger.warning("%s falls back: %s (further ones are only counted)", type(self).__name__, why)

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """Return the method's own random generator on `device`, so that no other random number depends on it."""
        name = str(device)
        if name not in self._generators:
            self._generators[name] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[name]

    def get_extra_state(self) -> dict[str, Any]:
        states = {device: generator.get_state() for device, generator in self._generators.items()}
        return {"generators": states, "fallbacks": self.fallbacks, "epoch": self.epoch}

    def set_extra_state(self, state: Any) -> None:
        self.fallbacks, self.epoch = state["fallbacks"], state["epoch"]
        for device, generator_state in state["generators"].items():
            self.generator(device).set_state(generator_state.cpu())


def check_lr(lr: float | None) -> float | None:
    """Return the learning rate of a method's own parameters; ValueError unless it is > 0 or None."""
    if lr is not None and not lr > 0:
        raise ValueError(f"lr must be > 0, or null for optimizer.lr, found {lr}")
    return lr


class LossWeighting(Weighting):
    """Makes one scalar of the losses; one backward pass.

    Args:
        loss_transform: see `Weighting`.
    """

    #: True if, without a transform, the weights depend on no loss, and nothing is learned or remembered of these.
    ignores_losses = False

    @abstractmethod
    def objective(self, losses: Tensor) -> Tensor:
        """Return the scalar to be minimized, differentiable in `losses` [K].

        Its gradient by the losses is what is reported as effective weights.
        """


class RowWeighting(Weighting):
    """What the two kinds have in common that look at the tasks' gradients.

    Args:
        grad_wrt: where the gradients are compared: by all `shared` parameters (exact), or, cheaper and
            approximate, by the shared `representation` or the parameters of the `last_layer` before it.
        losses: a weighting of losses that scales each loss before its gradient is taken; None for none.
        loss_transform: see `Weighting`.
    """

    minimum_tasks = 2
    backward_passes = "one per task"

    def __init__(self, *, grad_wrt: GradWrt = "shared", losses: LossWeighting | None = None, **common: Any) -> None:
        super().__init__(**common)
        check_one_of("grad_wrt", grad_wrt, GradWrt)
        if losses is not None and losses.needs_look_ahead:
            raise ValueError(f"losses must be a weighting that does not look ahead, found {type(losses).__name__}")
        self.grad_wrt: GradWrt = grad_wrt
        self.losses = losses
        if losses is not None:
            self.needs_performance |= losses.needs_performance
            self.needs_losses_after_step |= losses.needs_losses_after_step
            self.needs_positive_losses |= losses.needs_positive_losses or losses.loss_transform == "log"
            self.uses_task_weights |= losses.uses_task_weights

    @property
    def transforms(self) -> bool:
        """True if the method sees the losses otherwise than they are."""
        return self.loss_transform != "identity" or self.losses is not None

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        if self.losses is not None:
            self.losses.setup(num_tasks, seed)

    def epoch_ended(self) -> None:
        super().epoch_ended()
        if self.losses is not None:
            self.losses.epoch_ended()

    def observe(self, performance: Tensor) -> None:
        if self.losses is not None and self.losses.needs_performance:
            self.losses.active = self.active
            self.losses.observe(performance)

    def after_step(self, losses: Tensor) -> None:
        if self.losses is not None and self.losses.needs_losses_after_step:
            self.losses.active = self.active
            self.losses.after_step(losses)


class GradientWeighting(RowWeighting):
    """Makes weights from inner products of the task gradients; K backward passes.

    Args:
        head_loss: which loss trains the parameters that belong to one task: its `unweighted` loss, or its loss
            `weighted` as in the update.
        update_weights_every: take the gradients every so many steps, and use the same weights in between.
        grad_wrt, losses: see `RowWeighting`.
        loss_transform: see `Weighting`.
    """

    def __init__(self, *, head_loss: HeadLoss = "unweighted", update_weights_every: int = 1, **common: Any) -> None:
        super().__init__(**common)
        check_one_of("head_loss", head_loss, HeadLoss)
        if update_weights_every < 1:
            raise ValueError(f"update_weights_every must be >= 1, found {update_weights_every}")
        self.head_loss: HeadLoss = head_loss
        self.update_weights_every = update_weights_every
        self._kept: list[float] | None = None  # the weights of the last step that took gradients
        self._age = 0  # steps that were made with them

    @abstractmethod
    def weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """Return the weights [K] of the task gradients in the update.

        `gram` [K, K] and `losses` [K] are float64 on the CPU, without graph; so is what is returned. Called without
        gradient tracking. A method with parameters sets their `.grad` itself.
        """

    def kept_weights(self) -> list[float] | None:
        """Return the weights to be used again in this step, None if the gradients are to be taken."""
        if self._kept is None or self._age >= self.update_weights_every or not isinstance(self.active, slice):
            return None
        self._age += 1
        return self._kept

    def keep(self, weights: list[float]) -> None:
        """Remember the weights of a step that took gradients of all tasks."""
        self._kept, self._age = (weights, 1) if isinstance(self.active, slice) else (None, 0)

    def get_extra_state(self) -> dict[str, Any]:
        return super().get_extra_state() | {"kept": self._kept, "age": self._age}

    def set_extra_state(self, state: Any) -> None:
        super().set_extra_state(state)
        self._kept, self._age = state["kept"], state["age"]


class JacobianWeighting(RowWeighting):
    """Makes the update from every entry of the task gradients; K backward passes. Heads are trained by their own loss.

    Args:
        grad_wrt: `shared` (exact) or `representation` (cheaper, approximate).
        losses: see `RowWeighting`.
        loss_transform: see `Weighting`.
    """

    def __init__(self, *, grad_wrt: Literal["shared", "representation"] = "shared", **common: Any) -> None:
        super().__init__(grad_wrt=grad_wrt, **common)

    @abstractmethod
    def combine(self, jacobian: Tensor, losses: Tensor) -> Tensor:
        """Return the direction [P] made of the task gradients `jacobian` [K, P], on its device; `losses` is [K].

        Called without gradient tracking.
        """


class PartsWeighting(JacobianWeighting):
    """A JacobianWeighting that wants gradients of independent samples: the batch of each step is split into parts.

    So a step sees as many samples as under any other method, and costs K backward passes per part.

    Args:
        grad_wrt, losses, loss_transform: see `JacobianWeighting`.
    """

    num_parts = 2

    @abstractmethod
    def combine_parts(self, jacobians: list[Tensor], losses: Tensor) -> Tensor:
        """Return the direction [P] made of one Jacobian [K, P] per part; `losses` is [num_parts, K]."""

    def combine(self, jacobian: Tensor, losses: Tensor) -> Tensor:
        return self.combine_parts([jacobian] * self.num_parts, losses.expand(self.num_parts, -1))
