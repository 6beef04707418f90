"""SDMGrad: stochastic direction-oriented multi-objective gradient."""

from typing import Annotated, Any

import torch
from torch import Tensor

from mtlrun.config.bounds import Bounds, FractionBelowOne, MaxNorm, NonNegative, Positive, checked
from mtlrun.config.checks import check_one_of
from mtlrun.weightings.base import PartsWeighting, Reduction
from mtlrun.weightings.capabilities import ClipsSharedGradient
from mtlrun.weightings.inner_products import inner_products
from mtlrun.weightings.solvers.simplex import project_on_simplex
from mtlrun.weightings.state.simplex_weights import SimplexWeights
from mtlrun.weightings.transfer import sent, waited_for


class SDMGrad(ClipsSharedGradient, PartsWeighting):
    """min over w in the simplex of ½ ‖G^T w + lambda g_0‖²: MGDA held close to the mean gradient g_0.

    With the Jacobians G_1, G_2, G_3 of three parts of the batch, w makes `inner_steps` projected gradient steps with
    momentum along G_1 (G_2^T w + lambda g_0), which are unbiased, starting from the w of the last step:

        d = (G_3^T w + lambda g_0) / (1 + lambda)

    The products are first divided by the squared mean length of the gradients, as in the authors' code, so that the
    step size does not depend on their scale. That code multiplies d by K and clips it (`reduction: sum`,
    `max_norm: 1`); it also uses one batch three times, which is not done here. A task without a label keeps its weight,
    and the others redistribute their part of w among themselves.

    Source: Xiao, Ban & Ji, "Direction-oriented Multi-objective Learning: Simple and Provable Stochastic Algorithms"
    (NeurIPS 2023), algorithm 1.

    Args:
        preference: lambda, >= 0: 0 is MGDA, and large values the mean gradient. Paper: .3 on the benchmarks.
        inner_steps: steps of w per training step, >= 1.
        step_size: step size of w, > 0.
        momentum: momentum of w, in [0, 1).
        reduction: `mean` for d as above, `sum` for K times that, to match the sum of the losses.
        max_norm: largest norm of the shared parameters' gradient, > 0; None for no limit.
        common: see `PartsWeighting`.
    """

    num_parts = 3

    @checked
    def __init__(
        self,
        preference: NonNegative = 0.3,
        inner_steps: Annotated[int, Bounds(1, 10_000, limit=True)] = 20,
        step_size: Positive = 10.0,
        momentum: FractionBelowOne = 0.5,
        reduction: Reduction = "mean",
        max_norm: MaxNorm | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.preference = preference
        self.inner_steps = inner_steps
        self.step_size = step_size
        check_one_of("reduction", reduction, Reduction)
        self.momentum = momentum
        self.reduction = reduction
        self.max_norm = max_norm

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        self.simplex_weights = SimplexWeights(num_tasks)

    def combine_parts(self, jacobians: list[Tensor], losses: Tensor) -> Tensor:
        first, second, third = jacobians
        active, num_tasks = self.active, len(first)
        products = inner_products(first, second)
        # The inner steps are many and small: they are made on the CPU, to which one copy is made.
        on_cpu = waited_for(torch.cat([products.flatten(), self.simplex_weights.of(active)])).split(num_tasks)
        weights = sent(self._descend(on_cpu[-1], torch.stack(on_cpu[:-1])), third.device)
        self.simplex_weights.move(active, weights)
        combined = weights.to(third) @ third + self.preference * third.mean(dim=0)
        scale = len(third) if self.reduction == "sum" else 1
        return scale * combined / (1 + self.preference)

    def _descend(self, weights: Tensor, products: Tensor) -> Tensor:
        """Return w after the inner steps; `products` [K, K] are G_1 G_2^T."""
        scale = products.diagonal().abs().sqrt().mean()
        if scale == 0:
            return weights
        products = products / scale**2
        towards_mean = self.preference * products.mean(dim=1)
        velocity = torch.zeros_like(weights)
        for _ in range(self.inner_steps):
            velocity = self.momentum * velocity + products @ weights + towards_mean
            weights = project_on_simplex(weights - self.step_size * velocity)
        return weights
