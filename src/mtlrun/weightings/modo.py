"""MoDo: multi-objective gradient with double sampling."""

from typing import Any

from torch import Tensor

from mtlrun.config.bounds import NonNegative, checked
from mtlrun.weightings.base import PartsWeighting
from mtlrun.weightings.inner_products import inner_products
from mtlrun.weightings.solvers.simplex import project_on_simplex
from mtlrun.weightings.state.simplex_weights import SimplexWeights


class MoDo(PartsWeighting):
    """MGDA with one update of the weights per step, from gradients of independent samples, so that it is unbiased.

    With the Jacobians G_1, G_2, G_3 of three parts of the batch:

        lambda <- Proj(lambda - gamma (G_1 G_2^T lambda + rho lambda))
        d = G_3^T lambda

    lambda starts at 1/K, and Proj is the projection on the simplex. A task without a label keeps its weight, and the
    others redistribute their part of lambda among themselves.

    Source: Chen, Fernando, Ying & Chen, "Three-Way Trade-Off in Multi-Objective Learning: Optimization, Generalization
    and Conflict-Avoidance" (NeurIPS 2023), algorithm 1.

    Args:
        gamma: step size of the weights, >= 0; 0 keeps them equal.
        rho: pull toward equal weights, >= 0.
        common: see `PartsWeighting`.
    """

    num_parts = 3

    @checked
    def __init__(self, gamma: NonNegative = 1e-3, rho: NonNegative = 0.1, **common: Any) -> None:
        super().__init__(**common)
        self.gamma = gamma
        self.rho = rho

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        self.simplex_weights = SimplexWeights(num_tasks)

    def combine_parts(self, jacobians: list[Tensor], losses: Tensor) -> Tensor:
        first, second, third = jacobians
        active = self.active
        weights = self.simplex_weights.of(active)
        combined = weights.to(second) @ second
        slopes = inner_products(first, combined.unsqueeze(0)).squeeze(1) + self.rho * weights
        weights = project_on_simplex(weights - self.gamma * slopes)
        self.simplex_weights.move(active, weights)
        return weights.to(third) @ third
