"""GradVac: gradient vaccine."""

from math import sqrt
from typing import Any

import torch
from torch import Tensor

from mtlrun.checks import check_one_of
from mtlrun.weightings.base import GradientWeighting, Reduction

# A cosine aimed at is held below one by this: no finite share of a gradient makes another one parallel to it.
_BELOW_ONE = 1e-6

# What projections left of a gradient has no direction if its squared length is below this share of what it was.
_NOTHING_LEFT = 1e-12


class GradVac(GradientWeighting):
    """Turns each task gradient towards each other one until their cosine is what it has been on average; sums them.

    For each i, for the others j in random order, with c the cosine of g_i' and g_j and rho_ij the average of it:

        if c < rho_ij:  g_i' += g_j ‖g_i'‖ (rho_ij sqrt(1 - c²) - c sqrt(1 - rho_ij²)) / (‖g_j‖ sqrt(1 - rho_ij²))
        rho_ij <- (1 - beta) rho_ij + beta c

    Every g_i' is a combination of the rows, so this is done on the coefficients, from the Gram matrix alone. While
    rho is zero, as at the start, this is PCGrad.

    Source: Wang et al., "Gradient Vaccine: Investigating and Improving Multi-task Optimization in Massively
    Multilingual Models" (ICLR 2021). The gradients are taken whole, not layer by layer. In LibMTL rho is averaged only
    where c < rho, so that it can only fall from zero, and the gradients are turned less than by PCGrad.

    Args:
        beta: share of the present cosine in the average, in [0, 1]. Published code: .5.
        reduction: `sum` of the gradients, as in the paper, or `mean`.
        heads: `own` by default: what is turned is what the tasks share.
        every, grad_source, losses, loss_transform: see `GradientWeighting`.
    """

    rho: Tensor

    def __init__(self, beta: float = 0.5, reduction: Reduction = "sum", **common: Any) -> None:
        super().__init__(**common)
        if not 0 <= beta <= 1:
            raise ValueError(f"beta must be in [0, 1], found {beta}")
        check_one_of("reduction", reduction, Reduction)
        self.beta = beta
        self.reduction = reduction

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        self.register_buffer("rho", torch.zeros(num_tasks, num_tasks, dtype=torch.float64))

    def weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        products = gram.numpy()
        num_tasks = len(products)
        active = torch.arange(self.num_tasks)[self.active]
        averages = self.rho[active[:, None], active].tolist()
        squares = products.diagonal().tolist()
        coefficients = torch.eye(num_tasks, dtype=torch.float64).numpy()
        for task, own in enumerate(coefficients):
            along, square = products[task].copy(), squares[task]  # products of g_i' with all gradients, and its own
            for other in torch.randperm(num_tasks, generator=self.generator()).tolist():
                if other == task or squares[other] == 0 or square <= _NOTHING_LEFT * squares[task]:
                    continue
                average = averages[task][other]
                cosine = max(-1.0, min(1.0, float(along[other]) / sqrt(square * squares[other])))
                averages[task][other] = (1 - self.beta) * average + self.beta * cosine
                if cosine < average:
                    share = sqrt(square / squares[other]) * share_of_other(cosine, min(average, 1 - _BELOW_ONE))
                    own[other] += share
                    along += share * products[other]
                    square = max(0.0, float(own @ along))
        self.rho[active[:, None], active] = torch.tensor(averages, dtype=torch.float64)
        total = torch.from_numpy(coefficients.sum(axis=0))
        return total if self.reduction == "sum" else total / num_tasks


def share_of_other(cosine: float, wanted: float) -> float:
    """Return how much of a unit vector must be added to another one, for their cosine to rise to the `wanted` one."""
    sine, wanted_sine = sqrt(1 - cosine**2), sqrt(1 - wanted**2)
    return (wanted * sine - cosine * wanted_sine) / wanted_sine
