"""PCGrad: gradient surgery."""

from typing import Any

import numpy
import torch
from torch import Tensor

from mtlrun.config.checks import check_one_of
from mtlrun.weightings.base import GradientWeighting, Reduction

# Tasks up to which plain Python is faster than NumPy.
_FEW = 12


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
        orders = random_orders(len(gram), self.generator())
        project = project_few if len(gram) <= _FEW else project_many
        total = torch.from_numpy(project(gram.numpy(), orders))
        return total if self.reduction == "sum" else total / len(gram)


def project_few(gram: numpy.ndarray, orders: numpy.ndarray) -> numpy.ndarray:
    """Return the sum of the coefficients [K] of the projected gradients, without NumPy's cost of each small operation.

    Args:
        gram: [K, K].
        orders: [K, K], for each gradient the others in the order in which it is projected off them.
    """
    rows: list[list[float]] = gram.tolist()
    total = [1.0] * len(rows)
    for task, others in enumerate(orders.tolist()):
        along = rows[task]  # products of g_k' with all gradients
        for other in others:
            conflict = along[other]
            if conflict < 0 < rows[other][other] and other != task:
                row = rows[other]
                factor = -conflict / row[other]
                total[other] += factor
                along = [value + factor * product for value, product in zip(along, row, strict=True)]
    return numpy.array(total)


def project_many(gram: numpy.ndarray, orders: numpy.ndarray) -> numpy.ndarray:
    """Return the same as `project_few`, projecting all gradients at once, each off one other."""
    num_tasks = len(gram)
    tasks, squares, steps = numpy.arange(num_tasks), gram.diagonal(), orders.T
    # Zero for the gradient itself, and for gradients of length zero, with which nothing conflicts.
    inverse = numpy.divide(1.0, squares, out=numpy.zeros(num_tasks), where=squares > 0)
    inverses = numpy.where(steps == tasks, 0.0, inverse[steps])
    along, factors = gram.copy(), numpy.zeros((num_tasks, num_tasks))
    for step, others in enumerate(steps):
        factor = numpy.minimum(along[tasks, others], 0.0) * -inverses[step]
        factors[step] = factor
        along += factor[:, None] * gram[others]
    total: numpy.ndarray = 1 + numpy.bincount(steps.ravel(), factors.ravel(), minlength=num_tasks)
    return total


def random_orders(num_tasks: int, generator: torch.Generator) -> numpy.ndarray:
    """Return [num_tasks, num_tasks]: in each row, the tasks in an independent random order."""
    orders: numpy.ndarray = torch.rand(num_tasks, num_tasks, generator=generator).argsort(dim=1).numpy()
    return orders
