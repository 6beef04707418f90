"""MGDA: the multiple-gradient descent algorithm."""

from typing import Any, Literal

import numpy
import torch
from torch import Tensor

from mtlrun.config.checks import check_one_of
from mtlrun.weightings.base import GradientWeighting, HeadLoss

Normalization = Literal["none", "l2", "loss", "loss+"]


class MGDA(GradientWeighting):
    """The shortest vector in the convex hull of the task gradients: min over w in the simplex of ‖sum_k w_k g_k‖².

    Source: Désidéri, "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization" (Comptes Rendus
    Mathematique 350, 2012); Sener & Koltun, "Multi-Task Learning as Multi-Objective Optimization" (NeurIPS 2018),
    algorithm 2 (Frank-Wolfe with exact line search). Exact for two tasks.

    Args:
        normalization: what each gradient is divided by to compute the weights: `none`, its norm (`l2`), its loss
            (`loss`) or both (`loss+`). The weights are then applied to the original gradients, as in the paper's code.
        max_iterations: largest number of Frank-Wolfe iterations, >= 1; the result may then be a little above the
            minimum.
        tolerance: iterations stop when the duality gap is at most this fraction of the mean squared gradient norm.
        head_loss: paper: `weighted`.
        common: see `GradientWeighting`.
    """

    def __init__(
        self,
        normalization: Normalization = "none",
        max_iterations: int = 250,
        tolerance: float = 1e-5,
        *,
        head_loss: HeadLoss = "weighted",
        **common: Any,
    ) -> None:
        super().__init__(head_loss=head_loss, **common)
        if max_iterations < 1:
            raise ValueError(f"max_iterations must be >= 1, found {max_iterations}")
        if not tolerance > 0:
            raise ValueError(f"tolerance must be > 0, found {tolerance}")
        check_one_of("normalization", normalization, Normalization)
        self.normalization = normalization
        self.max_iterations = max_iterations
        self.tolerance = tolerance

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        products = gram.numpy()
        scale = numpy.ones(len(products))
        if self.normalization in ("l2", "loss+"):
            scale *= numpy.sqrt(numpy.diagonal(products))
        if self.normalization in ("loss", "loss+"):
            scale *= losses.numpy()
        scale = numpy.where(scale > 0, scale, 1.0)  # nothing is divided by zero
        weights = minimum_norm_weights(products / numpy.outer(scale, scale), self.max_iterations, self.tolerance)
        return torch.from_numpy(weights)


def minimum_norm_weights(gram: numpy.ndarray, max_iterations: int, tolerance: float) -> numpy.ndarray:
    """Return argmin over the simplex of w^T gram w, by Frank-Wolfe with exact line search.

    Args:
        gram: [K, K], symmetric positive semi-definite.
        max_iterations: largest number of iterations.
        tolerance: for the duality gap, relative to the mean of the diagonal.
    """
    num_tasks = len(gram)
    scale = numpy.trace(gram) / num_tasks
    if scale == 0:
        return numpy.full(num_tasks, 1 / num_tasks)
    gram = gram / scale
    weights = _best_pair(gram) if num_tasks > 1 else numpy.ones(1)
    products = gram @ weights
    for _ in range(max_iterations):
        squared_norm = weights @ products
        toward = int(numpy.argmin(products))
        gap = squared_norm - products[toward]
        if gap <= tolerance:
            break
        # The shortest vector on the segment from the current combination to that task's gradient.
        curvature = squared_norm - 2 * products[toward] + gram[toward, toward]
        step = min(gap / curvature, 1.0)
        weights *= 1 - step
        weights[toward] += step
        products = (1 - step) * products + step * gram[toward]
    return weights


def _best_pair(gram: numpy.ndarray) -> numpy.ndarray:
    """Return the best weights among those that are zero for all but two tasks; for two tasks, the solution."""
    first, second = numpy.triu_indices(len(gram), k=1)
    squares, products = numpy.diagonal(gram), gram[first, second]
    a, c = squares[first], squares[second]
    distance = a - 2 * products + c
    fraction = numpy.where(distance > 0, (c - products) / numpy.where(distance > 0, distance, 1.0), 0.5).clip(0, 1)
    values = fraction**2 * a + 2 * fraction * (1 - fraction) * products + (1 - fraction) ** 2 * c
    best = int(values.argmin())
    weights = numpy.zeros(len(gram))
    weights[first[best]], weights[second[best]] = fraction[best], 1 - fraction[best]
    return weights
