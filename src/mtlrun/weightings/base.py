"""The three kinds of weighting: how K task losses, or their gradients, become one update.

A weighting declares by its base class what it needs, and gets no more:

    LossWeighting       the losses [K]                       one backward pass
    GradientWeighting   the Gram matrix [K, K]               K backward passes; inner products of the task gradients
    JacobianWeighting   the task gradients [K, P]            K backward passes; every entry

All are nn.Modules: learnable state, buffers and random generators are in `state_dict`, so that a run that is continued
equals one that never stopped.
"""

import logging
import math
from abc import ABC, abstractmethod
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import Count, checked
from mtlrun.config.checks import check_one_of
from mtlrun.weightings.capabilities import LooksAhead, ObservesLossesAfterStep
from mtlrun.weightings.state.active_tasks import index_on
from mtlrun.weightings.state.generators import MethodGenerators
from mtlrun.weightings.state.learner import LearnedOptimizer, Learner

GradWrt = Literal["shared", "representation", "last_layer"]
HeadLoss = Literal["unweighted", "weighted"]
Reduction = Literal["sum", "mean"]
LossTransform = Literal["identity", "log"]

# Added to a loss before its logarithm is taken, so that a loss of exactly zero stays finite.
LOG_EPSILON = 1e-8

logger = logging.getLogger(__name__)

C = TypeVar("C")


class Weighting(nn.Module, ABC):
    """Base of the three kinds; subclass one of those. What only some methods need of a step is in `capabilities`.

    Args:
        loss_transform: what is done to each loss before its gradient is taken: `identity`, or `log`, which makes a
            method independent of the losses' scales (the gradient of log L is that of L divided by L). Losses must then
            be positive. A method that makes one scalar of the losses makes it of the transformed ones; one that
            combines gradients, and compares losses besides, compares them as they are.
    """

    #: Fewest tasks that the method makes sense for.
    minimum_tasks = 1
    #: Backward passes per step as a function of the number of tasks.
    backward_passes: Literal["one", "one per task"] = "one"
    #: True if what is learned has a gradient of zero in the entries of tasks without a loss; see `Learner.step`.
    learns_from_losses_alone = False

    _place: Tensor

    def __init__(self, *, loss_transform: LossTransform = "identity") -> None:
        super().__init__()
        check_one_of("loss_transform", loss_transform, LossTransform)
        self.loss_transform: LossTransform = loss_transform
        #: Optimizer, learning rate and weight decay of the method's parameters, if it has any. None is replaced by the
        #: run's `optimizer.lr`; outside of a run it means 1e-3.
        self.optimizer: LearnedOptimizer = "adam"
        self.lr: float | None = None
        self.weight_decay = 0.0
        self.num_tasks = 0
        #: How many passes over the training data have ended.
        self.epoch = 0
        #: How often a solver failed and a fallback direction was used; see `fall_back`.
        self.fallbacks = 0
        self._active: slice | Tensor = slice(None)  # on the CPU
        place = torch.empty(0, dtype=torch.float32)
        self.register_buffer("_place", place, persistent=False)  # moves with the method, and shows where it is
        self._learner: Learner | None = None
        self._learner_is_made = False
        self._generators = MethodGenerators(0)

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        """Set the number of tasks; called once, before training. Subclasses create their state here.

        Raises:
            ValueError: the arguments do not fit together, or do not fit the number of tasks.
        """
        self.num_tasks = num_tasks
        self._generators = MethodGenerators(seed)
        self._learner, self._learner_is_made = None, False

    @property
    def needs_positive_losses(self) -> bool:
        """True if the method, as it is set, divides by losses, takes their logarithm, or has no minimum below zero.

        Subclasses declare it, by an attribute or a property; what follows from it is in `lowest_losses` and `setup`.
        """
        return False

    def lowest_losses(self, num_tasks: int) -> list[float]:
        """Return for each task the number that its loss, before the transform, must not fall below; -inf for none."""
        return [0.0 if self.needs_positive_losses or self.loss_transform == "log" else -math.inf] * num_tasks

    def methods(self) -> "list[Weighting]":
        """Return this weighting, and the one that scales its losses if there is one."""
        return [self]

    def capable_of(self, capability: type[C]) -> list[C]:
        """Return those of `methods` that have a capability; see `mtlrun.weightings.capabilities`."""
        return [method for method in self.methods() if isinstance(method, capability)]

    @property
    def active(self) -> slice | Tensor:
        """Index of the tasks that have a loss in this step, for state of length K; on the device of the method."""
        return index_on(self._active, self._place.device)

    @active.setter
    def active(self, active: slice | Tensor) -> None:
        for method in self.methods():
            method._active = active

    def passes(self, num_tasks: int) -> tuple[int, int]:
        """Return the numbers of forward and backward passes in a step."""
        forward = 2 if self.capable_of(ObservesLossesAfterStep) else 1
        return forward, 1 if self.backward_passes == "one" else num_tasks

    def epoch_ended(self) -> None:
        """Count an epoch; called after the last step of each. Overrides call this one, too."""
        self.epoch += 1

    @property
    def learner(self) -> Learner | None:
        """The optimizer of the parameters that the method registered, made at its first use; None if there are none."""
        if not self._learner_is_made:
            self._learner_is_made = True
            others = {id(parameter) for method in self.methods()[1:] for parameter in method.parameters()}
            parameters = [parameter for parameter in self.parameters() if id(parameter) not in others]
            if parameters:
                lr = 1e-3 if self.lr is None else self.lr
                self._learner = Learner(parameters, self.num_tasks, self.optimizer, lr, self.weight_decay)
        return self._learner

    def learners(self) -> dict[str, Learner]:
        """Return {name: optimizer} of those of `methods` that learn; `lr/<name>` is the tag of the learning rate."""
        named = zip(("weighting", "weighting.losses"), self.methods(), strict=False)
        return {name: method.learner for name, method in named if method.learner is not None}

    def learn(self) -> None:
        """Move the parameters along their gradients, which are then None; called after each step of the model.

        Entries of tasks without a loss in this step stay; see `Learner`. Overrides call this one, too.
        """
        if self.learner is not None:
            self.learner.step(self._active, self.learns_from_losses_alone)

    @property
    def needs_batch_losses(self) -> bool:
        """True if the losses of the whole batch must be known before the first backward pass of its micro-batches."""
        return True

    @property
    def first_epoch(self) -> int:
        """First epoch (from 1) after the method's warm-up: the first in which its formula makes the weights."""
        return 1

    def transform(self, losses: Tensor) -> Tensor:
        """Return the transformed losses; differentiable, elementwise."""
        return torch.log(losses + LOG_EPSILON) if self.loss_transform == "log" else losses

    def fall_back(self, why: str) -> None:
        """Count a step in which the solver failed and a fallback direction was used; the first one is logged."""
        self.fallbacks += 1
        if self.fallbacks == 1:
            logger.warning("%s falls back: %s (further ones are only counted)", type(self).__name__, why)

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """Return the method's own random generator on `device`, so that no other random number depends on it."""
        return self._generators.on(torch.device(device))

    def get_extra_state(self) -> dict[str, Any]:
        learner = None if self.learner is None else self.learner.state_dict()
        generators = self._generators.state_dict()
        return {"generators": generators, "fallbacks": self.fallbacks, "epoch": self.epoch, "learner": learner}

    def set_extra_state(self, state: Any) -> None:
        self.fallbacks, self.epoch = state["fallbacks"], state["epoch"]
        if self.learner is not None:
            self.learner.load_state_dict(state["learner"])
        self._generators.load_state_dict(state["generators"])


class LossWeighting(Weighting):
    """A weighting that makes one scalar of the losses; one backward pass.

    Args:
        loss_transform: see `Weighting`.
    """

    #: True if, without a transform, the weights depend on no loss, and the method keeps no statistics of the losses.
    ignores_losses = False

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        if self.needs_positive_losses and self.loss_transform == "log":
            raise ValueError(
                "loss_transform must be 'identity' for a method that needs positive losses, since the logarithm of a "
                "loss below 1 is negative, found 'log'"
            )

    @property
    def needs_batch_losses(self) -> bool:
        return not self.ignores_losses or self.loss_transform != "identity"

    def scalarize(self, losses: Tensor) -> Tensor:
        """Return the scalar to be minimized: the objective of the transformed losses.

        This is what callers use. Its gradient with respect to `losses` [K] is reported as the effective weights.
        """
        return self.objective(self.transform(losses))

    @abstractmethod
    def objective(self, losses: Tensor) -> Tensor:
        """Return the objective, differentiable in the transformed `losses` [K]; subclasses implement it."""


class TaskGradientWeighting(Weighting):
    """Base of the two kinds that combine the task gradients.

    Args:
        grad_wrt: what the task gradients are taken with respect to: all `shared` parameters (exact), or, cheaper and
            approximate, the shared `representation`, or weight and bias of the `last_layer` with a weight matrix or
            kernel before it.
        losses: a weighting of losses that scales each loss before its gradient is taken; None for none.
        loss_transform: see `Weighting`.
    """

    minimum_tasks = 2
    backward_passes = "one per task"

    def __init__(self, *, grad_wrt: GradWrt = "shared", losses: LossWeighting | None = None, **common: Any) -> None:
        super().__init__(**common)
        check_one_of("grad_wrt", grad_wrt, GradWrt)
        if isinstance(losses, LooksAhead):
            raise ValueError(f"losses must be a weighting that does not look ahead, found {type(losses).__name__}")
        self.grad_wrt: GradWrt = grad_wrt
        self.losses = losses

    def lowest_losses(self, num_tasks: int) -> list[float]:
        lowest = super().lowest_losses(num_tasks)
        return lowest if self.losses is None else list(map(max, lowest, self.losses.lowest_losses(num_tasks)))

    def methods(self) -> list[Weighting]:
        return [self] if self.losses is None else [self, self.losses]

    @property
    def needs_batch_losses(self) -> bool:
        return self.loss_transform != "identity" or self.losses is not None

    def scale_losses(self, losses: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Ask the weighting `losses` for the scale of each loss, and let it learn; called once per step.

        Args:
            losses: [K], without graph, of the whole batch.

        Returns:
            The scales [K], by which the losses are to be multiplied before the method sees them, and the slopes [K], by
            which the task gradients are to be multiplied: the derivatives of the scaled and transformed losses. None
            for ones.
        """
        if not self.needs_batch_losses:
            return None, None
        scales = None
        with torch.enable_grad():
            if self.losses is not None:
                leaf = losses.detach().clone().requires_grad_()
                self.losses.scalarize(leaf).backward()  # also the gradient of what the inner weighting learns
                scales = leaf.grad
            leaf = losses.detach().clone().requires_grad_()
            slopes = torch.autograd.grad(self.transform(leaf).sum(), leaf)[0]
        return scales, slopes if scales is None else scales * slopes

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        if self.losses is not None:
            try:
                self.losses.setup(num_tasks, seed)
            except ValueError as error:
                raise ValueError(f"losses.{error}") from error

    def learn(self) -> None:
        super().learn()
        if self.losses is not None:
            self.losses.learn()

    def epoch_ended(self) -> None:
        super().epoch_ended()
        if self.losses is not None:
            self.losses.epoch_ended()


class GradientWeighting(TaskGradientWeighting):
    """A weighting that makes weights from the inner products of the task gradients; K backward passes.

    Args:
        head_loss: which loss trains the parameters that belong to one task: its `unweighted` loss, or its loss
            `weighted` as in the update.
        update_weights_every: take the task gradients every so many steps, and use the same weights in between.
        grad_wrt, losses: see `TaskGradientWeighting`.
        loss_transform: see `Weighting`.
    """

    @checked
    def __init__(self, *, head_loss: HeadLoss = "unweighted", update_weights_every: Count = 1, **common: Any) -> None:
        super().__init__(**common)
        check_one_of("head_loss", head_loss, HeadLoss)
        self.head_loss: HeadLoss = head_loss
        self.update_weights_every = update_weights_every
        self._kept: list[float] | None = None  # the weights of the last step that took task gradients
        self._age = 0  # steps that were made with them

    @abstractmethod
    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """Return the weights [K] of the task gradients in the update.

        `gram` [K, K] and `losses` [K] are float64 on the CPU, without graph; so is what is returned. `gram` is that of
        the transformed losses; `losses` are not transformed, but scaled by the weighting `losses`. Called without
        gradient tracking. A method with parameters sets their `.grad` itself.
        """

    def kept_weights(self) -> list[float] | None:
        """Return the weights to be used again in this step; None if task gradients are to be taken."""
        if self._kept is None or self._age >= self.update_weights_every or not isinstance(self._active, slice):
            return None
        self._age += 1
        return self._kept

    def keep(self, weights: list[float]) -> None:
        """Keep the weights of a step that took the gradients of all tasks."""
        self._kept, self._age = (weights, 1) if isinstance(self._active, slice) else (None, 0)

    def get_extra_state(self) -> dict[str, Any]:
        return super().get_extra_state() | {"kept": self._kept, "age": self._age}

    def set_extra_state(self, state: Any) -> None:
        super().set_extra_state(state)
        self._kept, self._age = state["kept"], state["age"]


class JacobianWeighting(TaskGradientWeighting):
    """A weighting that makes the update from every entry of the task gradients; K backward passes.

    The parameters that belong to one task are trained by its unweighted loss, unless `combine` sets `head_weights`.

    Args:
        grad_wrt: `shared` (exact) or `representation` (cheaper, approximate).
        losses: see `TaskGradientWeighting`.
        loss_transform: see `Weighting`.
    """

    def __init__(self, *, grad_wrt: Literal["shared", "representation"] = "shared", **common: Any) -> None:
        super().__init__(grad_wrt=grad_wrt, **common)
        #: Weights [K] of the losses that train the tasks' heads in this step; None for ones.
        self.head_weights: Tensor | None = None

    @abstractmethod
    def combine(self, jacobian: Tensor, losses: Tensor) -> Tensor:
        """Return the direction [P] made of the task gradients `jacobian` [K, P], on its device; `losses` is [K].

        `jacobian` is that of the transformed losses; `losses` are not transformed, but scaled by the weighting
        `losses`. Called without gradient tracking.
        """


class PartsWeighting(JacobianWeighting):
    """A JacobianWeighting that needs gradients of independent samples: the batch of each step is split into parts.

    A step sees as many samples as under any other method, and costs K backward passes per part. `loss_transform` and
    `losses` look at the losses of the whole batch, once: all parts' gradients are multiplied by the same slopes.

    Args:
        grad_wrt, losses, loss_transform: see `JacobianWeighting`.
    """

    #: Into how many parts of (nearly) equal size the batch of each step is split.
    num_parts = 2

    @abstractmethod
    def combine_parts(self, jacobians: list[Tensor], losses: Tensor) -> Tensor:
        """Return the direction [P] made of one Jacobian [K, P] per part; `losses` is [num_parts, K]."""

    def combine(self, jacobian: Tensor, losses: Tensor) -> Tensor:
        return self.combine_parts([jacobian] * self.num_parts, losses.expand(self.num_parts, -1))

    def passes(self, num_tasks: int) -> tuple[int, int]:
        forward, backward = super().passes(num_tasks)
        return forward, self.num_parts * backward
