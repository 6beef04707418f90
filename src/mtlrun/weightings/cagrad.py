"""CAGrad: conflict-averse gradient descent."""

import math
from typing import Any, Literal

import numpy
import torch
from torch import Tensor

from mtlrun.config.bounds import NonNegative, checked
from mtlrun.config.checks import check_one_of
from mtlrun.weightings.base import GradientWeighting
from mtlrun.weightings.solvers.fairness import regular_cosines

Rescale = Literal[0, 1, 2]


class CAGrad(GradientWeighting):
    """The direction near the mean gradient that is best for the task it improves least.

    With g_0 = mean_k g_k it is argmax over ‖d - g_0‖ <= c ‖g_0‖ of min_k g_k . d, which is
    d = g_0 + c ‖g_0‖ g_w / ‖g_w‖ for the g_w = sum_k w_k g_k that minimizes g_w . g_0 + c ‖g_0‖ ‖g_w‖ over w in the
    simplex. c = 0 gives the mean gradient, large c tends to the direction of `mgda`; for c >= 1, d conflicts with no
    task. ‖g_w‖ is regularized, so that d is defined if g_w is zero. A task with a zero gradient counts in g_0 only.

    Source: Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning" (NeurIPS 2021), algorithm 1. As in
    the paper's code, d is multiplied by K, to be comparable with the gradient of a sum of losses, and then rescaled.

    Args:
        c: >= 0, radius of the search around g_0, relative to its norm; below 1 the paper proves convergence to a
            stationary point of the mean loss. The paper's code: .4 for NYUv2, .4 and .6 for Cityscapes.
        rescale: what d is divided by: 0 for nothing; 1 for 1 + c², as in the paper's code; 2 for 1 + c, so that d is no
            longer than g_0.
        head_loss: `unweighted`, as in the paper's code.
        common: see `GradientWeighting`.
    """

    @checked
    def __init__(self, c: NonNegative = 0.4, rescale: Rescale = 1, **common: Any) -> None:
        super().__init__(**common)
        check_one_of("rescale", rescale, Rescale)
        self.c = c
        self.rescale = rescale

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        products = gram.numpy()
        means = products.mean(axis=1)
        radius = self.c * math.sqrt(max(means.mean(), 0.0))
        weights = numpy.ones(len(products))
        if radius > 0:
            tasks = (products.diagonal() > 0).nonzero()[0]
            part = products if len(tasks) == len(products) else products[tasks[:, None], tasks]
            worst_case, norm, solved = worst_case_weights(part, means[tasks], radius)
            if not solved:
                self.fall_back("its active-set method did not converge; the best weights so far are used")
            weights[tasks] += len(products) * radius / norm * worst_case
        return torch.from_numpy(weights / (1.0, 1 + self.c**2, 1 + self.c)[self.rescale])


def worst_case_weights(gram: numpy.ndarray, slopes: numpy.ndarray, radius: float) -> tuple[numpy.ndarray, float, bool]:
    """Return the w in the simplex that minimizes F(w) = slopes . w + radius ‖sum_k w_k g_k‖, by an active-set method.

    Args:
        gram: [K, K] with a positive diagonal, symmetric positive semi-definite but for rounding.
        slopes: [K].
        radius: > 0.

    Returns:
        w [K]; the regularized norm ‖sum_k w_k g_k‖, which is never zero; and whether the method converged. If not, w is
        in the simplex, and F(w) a little above the minimum.
    """
    num_tasks = len(gram)
    cosines, lengths = regular_cosines(gram)
    regular = cosines * (lengths[:, None] * lengths)
    # Rounding error of the derivative of F with respect to each w_k, relative to the length of its gradient.
    tolerance = 1e-10 * (radius + numpy.abs(slopes / lengths).max())

    used = numpy.arange(num_tasks)
    target, bounded = _minimum_on_hull(cosines, lengths, slopes, radius)
    while not bounded or (target <= 0).any():  # begin with tasks whose minimum lies inside the simplex
        used = used[target > 0]
        target, bounded = _minimum_on_hull(cosines[used[:, None], used], lengths[used], slopes[used], radius)
    weights = numpy.zeros(num_tasks)
    weights[used] = target

    solved, newest = False, -1
    for _ in range(10 * num_tasks + 10):
        target, bounded = _minimum_on_hull(cosines[used[:, None], used], lengths[used], slopes[used], radius)
        move = target - weights[used] if bounded else target
        reach = numpy.divide(weights[used], -move, out=numpy.full(len(used), numpy.inf), where=move < 0)
        if bounded and reach.min() > 1:
            weights[used] = target
            products = regular @ weights
            gradient = slopes + radius / numpy.sqrt(weights @ products) * products
            gain = (gradient[used].min() - gradient) / lengths
            gain[used] = 0.0
            newest = int(numpy.argmax(gain))
            solved = bool(gain[newest] <= tolerance)
            if solved:
                break
            used = numpy.append(used, newest)
        else:
            first = int(numpy.argmin(reach))  # the task whose weight reaches zero first
            weights[used] = numpy.maximum(weights[used] + reach[first] * move, 0.0)
            weights[used[first]] = 0.0
            solved = bool(used[first] == newest and reach[first] == 0)
            used = numpy.delete(used, first)
            if solved:  # the newest task seemed useful only because of rounding
                break
    weights /= weights.sum()
    return weights, float(numpy.sqrt(weights @ regular @ weights)), solved


def _minimum_on_hull(
    cosines: numpy.ndarray, lengths: numpy.ndarray, slopes: numpy.ndarray, radius: float
) -> tuple[numpy.ndarray, bool]:
    """Return the w that minimizes F where sum_k w_k = 1, of any signs, and True; or a direction of descent and False.

    With M the regularized Gram matrix, x = M^-1 1, y = M^-1 slopes and z = sum(y) / sum(x) x - y it is
    w = x / sum(x) + p z with p = (sum(x) (radius² - z . M z))^(-1/2). If the root is imaginary, F falls without
    bound along z.
    """
    right_sides = numpy.stack([1 / lengths, slopes / lengths], axis=1)
    x, y = numpy.linalg.solve(cosines, right_sides).T / lengths
    z = y.sum() / x.sum() * x - y
    margin = radius**2 - (z * lengths) @ cosines @ (z * lengths)
    if margin <= 0:
        return z, False
    return x / x.sum() + z / numpy.sqrt(x.sum() * margin), True
