"""MoCo: multi-objective gradient correction."""

from typing import Any, Literal

import torch
from torch import Tensor

from mtlrun.config.bounds import Exponent, FractionAboveZero, NonNegative, checked
from mtlrun.config.checks import check_one_of
from mtlrun.weightings.base import JacobianWeighting
from mtlrun.weightings.inner_products import inner_products, lengths
from mtlrun.weightings.solvers.simplex import project_on_simplex
from mtlrun.weightings.state.simplex_weights import SimplexWeights
from mtlrun.weightings.state.task_vectors import TaskVectors, check_grad_wrt_shared

Projection = Literal["simplex", "softmax"]


class MoCo(JacobianWeighting):
    """MGDA on running means of the task gradients, with one update of the weights per step.

    In step t, with Y = [y_1, ..., y_K] the running means:

        y_k <- y_k - beta_t (y_k - g_k)                                  beta_t = beta / t^beta_decay
        d = Y^T lambda
        lambda <- Proj(lambda - gamma_t (Y Y^T + rho I) lambda)          gamma_t = gamma / t^gamma_decay

    y starts at 0, lambda at 1/K, and Proj is the projection on the simplex. gamma suits gradients of length about one:
    with longer ones, lambda jumps to the task with the shortest.

    Source: Fernando et al., "Mitigating Gradient Bias in Multi-objective Learning: A Provably Convergent Approach"
    (ICLR 2023). The step sizes are those of LibMTL, which is based on the authors' code. That one also scales each
    gradient to the length of its loss first (`normalize`), has a softmax instead of the projection
    (`projection: softmax`), and takes d after lambda was updated (`updated_weights`). A task without a loss in a step
    keeps its mean and weight, and the others redistribute their part of lambda among themselves.

    Args:
        beta: step size of the running means, in (0, 1].
        beta_decay: exponent of the decay of this step size, >= 0.
        gamma: step size of the weights, >= 0; 0 keeps them equal.
        gamma_decay: exponent of the decay of this step size, >= 0.
        rho: pull toward equal weights, >= 0.
        normalize: scale each gradient to the length of its loss first; losses must then be positive.
        projection: what Proj is: `simplex`, the nearest point of it, or `softmax`.
        updated_weights: take d with the lambda that was updated in the same step.
        common: see `JacobianWeighting`; `grad_wrt` must be `shared`.
    """

    steps: Tensor

    @checked
    def __init__(
        self,
        beta: FractionAboveZero = 0.5,
        beta_decay: Exponent = 0.5,
        gamma: NonNegative = 0.1,
        gamma_decay: Exponent = 0.5,
        rho: NonNegative = 0.0,
        normalize: bool = False,
        projection: Projection = "simplex",
        updated_weights: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        check_grad_wrt_shared(self.grad_wrt)
        self.beta, self.beta_decay = beta, beta_decay
        self.gamma, self.gamma_decay = gamma, gamma_decay
        self.rho = rho
        check_one_of("projection", projection, Projection)
        self.normalize = normalize
        self.projection = projection
        self.updated_weights = updated_weights

    @property
    def needs_positive_losses(self) -> bool:
        return self.normalize  # a negative loss would reverse its gradient

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        self.averages = TaskVectors()
        self.simplex_weights = SimplexWeights(num_tasks)
        self.register_buffer("steps", torch.zeros(num_tasks, dtype=torch.float64))

    def combine(self, jacobian: Tensor, losses: Tensor) -> Tensor:
        active = self.active
        if self.normalize:
            norms = lengths(jacobian)
            jacobian = torch.where(norms > 0, losses / norms, 0.0).to(jacobian).unsqueeze(1) * jacobian
        self.steps[active] += 1
        step_sizes = (self.beta / self.steps[active] ** self.beta_decay).to(jacobian).unsqueeze(1)
        tracked = self.averages.approach(jacobian, 1 - step_sizes, active, self.num_tasks)

        weights = self.simplex_weights.of(active)
        slopes = inner_products(tracked, tracked) @ weights + self.rho * weights
        step_size = self.gamma / self.steps.max() ** self.gamma_decay
        moved = weights - step_size * slopes
        moved = torch.softmax(moved, dim=0) if self.projection == "softmax" else project_on_simplex(moved)
        self.simplex_weights.move(active, moved)
        if self.updated_weights:
            weights = moved
        return weights.to(jacobian) @ tracked
