"""MoDo: multi-objective gradient with double sampling."""

from typing import Any

import torch
from torch import Tensor

from mtlrun.weightings.base import PartsWeighting
from mtlrun.weightings.solvers.simplex import project_on_simplex, share_out


class MoDo(PartsWeighting):
    """MGDA's weights by one step per step, from gradients of independent samples, so that the step is unbiased.

    With the Jacobians G_1, G_2, G_3 of three parts of the batch:

        lambda <- Proj(lambda - gamma (G_1 G_2^T lambda + rho lambda))
        d = G_3^T lambda

    lambda = 1/K at first, Proj the projection on the simplex. For a task without a label nothing changes, and the
    others share out their part of lambda among themselves.

    Source: Chen, Fernando, Ying & Chen, "Three-Way Trade-Off in Multi-Objective Learning: Optimization, Generalization
    and Conflict-Avoidance" (NeurIPS 2023), algorithm 1.

    Args:
        gamma: step size of the weights, >= 0; 0 keeps them equal.
        rho: pull of the weights towards equal ones, >= 0.
        grad_wrt, losses, loss_transform: see `PartsWeighting`.
    """

    num_parts = 3
    task_weights: Tensor

    def __init__(self, gamma: float = 1e-3, rho: float = 0.1, **common: Any) -> None:
        super().__init__(**common)
        for name, value in {"gamma": gamma, "rho": rho}.items():
            if not value >= 0:
                raise ValueError(f"{name} must be >= 0, found {value}")
        self.gamma = gamma
        self.rho = rho

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        self.register_buffer("task_weights", torch.full((num_tasks,), 1 / num_tasks, dtype=torch.float64))

    def combine_parts(self, jacobians: list[Tensor], losses: Tensor) -> Tensor:
        first, second, third = jacobians
        active = self.active
        part, weights = share_out(self.task_weights, active)
        slopes = (first @ (second.T @ weights.to(second))).double() + self.rho * weights
        weights = project_on_simplex(weights - self.gamma * slopes)
        self.task_weights[active] = part * weights
        return weights.to(third) @ third
