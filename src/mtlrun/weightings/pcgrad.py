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
        tasks, squares = numpy.arange(num_tasks), products.diagonal()
        orders = random_orders(num_tasks, self.generator()).T
        # Zero for the gradient itself, and for gradients of length zero, with which nothing conflicts.
        inverse = numpy.divide(1.0, squares, out=numpy.zeros(num_tasks), where=squares > 0)
        inverses = numpy.where(orders == tasks, 0.0, inverse[orders])
        along = products.copy()  # products of g_k' with all gradients
        factors = numpy.zeros((num_tasks, num_tasks))
        for step, others in enumerate(orders):  # all tasks at once, each with one other
            factor = numpy.minimum(along[tasks, others], 0.0) * -inverses[step]
            factors[step] = factor
            along += factor[:, None] * products[others]
        coefficients = 1 + numpy.bincount(orders.ravel(), factors.ravel(), minlength=num_tasks)
        total = torch.from_numpy(coefficients)
        return total if self.reduction == "sum" else total / num_tasks


def random_orders(num_tasks: int, generator: torch.Generator) -> numpy.ndarray:
    """Return [num_tasks, num_tasks]: in each row, the tasks in an independent random order."""
    orders: numpy.ndarray = torch.rand(num_tasks, num_tasks, generator=generator).argsort(dim=1).numpy()
    return orders
