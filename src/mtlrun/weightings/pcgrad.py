"""PCGrad: gradient surgery."""

from typing import Any

import numpy
import torch
from torch import Tensor

from mtlrun.config.checks import check_one_of
from mtlrun.weightings.base import GradientWeighting, Reduction


class PCGrad(GradientWeighting):
    """The sum of the task gradients, after each is projected off those it conflicts with, in random order.

    For each k, for the others j in random order: if g_k' . g_j < 0, then g_k' -= (g_k' . g_j / ‖g_j‖²) g_j. Every
    g_k' is a combination of the task gradients, so this is computed on its coefficients, from the Gram matrix only.

    Source: Yu et al., "Gradient Surgery for Multi-Task Learning" (NeurIPS 2020), algorithm 1.

    Args:
        reduction: `sum`, as in the paper, or `mean`.
        head_loss: `unweighted` by default, since only gradients of shared parameters are projected.
        common: see `GradientWeighting`.
    """

    def __init__(self, reduction: Reduction = "sum", **common: Any) -> None:
        super().__init__(**common)
        check_one_of("reduction", reduction, Reduction)
        self.reduction = reduction

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        products = gram.numpy()
        num_tasks = len(products)
        tasks, squares = numpy.arange(num_tasks), numpy.diagonal(products)
        coefficients, along = numpy.eye(num_tasks), products.copy()  # of g_k', and its products with all gradients
        for others in random_orders(num_tasks, self.generator()).T:  # all tasks at once, each with one other
            conflict = along[tasks, others]
            conflicting = (conflict < 0) & (others != tasks)
            factor = numpy.where(conflicting, -conflict / numpy.where(conflicting, squares[others], 1.0), 0.0)
            coefficients[tasks, others] += factor
            along += factor[:, None] * products[others]
        total = torch.from_numpy(coefficients.sum(axis=0))
        return total if self.reduction == "sum" else total / num_tasks


def random_orders(num_tasks: int, generator: torch.Generator) -> numpy.ndarray:
    """Return [num_tasks, num_tasks]: in each row, the tasks in an independent random order."""
    orders: numpy.ndarray = torch.rand(num_tasks, num_tasks, generator=generator).argsort(dim=1).numpy()
    return orders
