"""CAGrad: conflict-averse gradient descent."""

from typing import Any, Literal

import numpy
import torch
from torch import Tensor

from mtlrun.config.checks import check_one_of
from mtlrun.weightings.base import GradientWeighting
from mtlrun.weightings.solvers.fairness import regular_cosines

Rescale = Literal[0, 1, 2]


class CAGrad(GradientWeighting):
    """Of the directions near the mean gradient, the one that is best for the task that it helps least.

    With g_0 = mean_k g_k it is argmax over ‖d - g_0‖ <= c ‖g_0‖ of min_k g_k . d, which is
    d = g_0 + c ‖g_0‖ g_w / ‖g_w‖ for the g_w = sum_k w_k g_k that minimizes g_w . g_0 + c ‖g_0‖ ‖g_w‖ over w in the
    simplex. c = 0 gives the mean gradient, large c tends to the direction of `mgda`; from c = 1 on, d conflicts with no
    task. ‖g_w‖ is regularized, so that d is defined where g_w is zero. A task without a gradient counts in g_0 only.

    Source: Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning" (NeurIPS 2021), algorithm 1. As in
    the paper's code, d is multiplied by K, to compare with a sum of losses, and divided as `rescale` says.

    Args:
        c: >= 0, radius of the search around g_0 as a share of its norm; below 1 the paper proves convergence to a
            stationary point of the mean loss. The paper's code: .4 for NYUv2, .4 and .6 for Cityscapes.
        rescale: what d is divided by: 0, nothing; 1, 1 + c², as in the paper's code; 2, 1 + c, which keeps d from being
            longer than g_0.
        head_loss: `unweighted`, as in the paper's code.
        every, grad_wrt, losses, loss_transform: see `GradientWeighting`.
    """

    def __init__(self, c: float = 0.4, rescale: Rescale = 1, **common: Any) -> None:
        super().__init__(**common)
        if not c >= 0:
            raise ValueError(f"c must be >= 0, found {c}")
        check_one_of("rescale", rescale, Rescale)
        self.c = c
        self.rescale = rescale

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        radius = self.c * gram.mean().clamp_min(0).sqrt().item()
        weights = torch.ones(len(gram), dtype=gram.dtype)
        if radius > 0:
            tasks = torch.nonzero(gram.diagonal() > 0).squeeze(1)
            part = gram[tasks][:, tasks].numpy()
            shares, norm, found = worst_case_weights(part, gram.mean(dim=1)[tasks].numpy(), radius)
            if not found:
                self.fall_back("its active-set method has not ended; the best shares so far are used")
            weights[tasks] += len(gram) * radius / norm * torch.from_numpy(shares)
        return weights / (1.0, 1 + self.c**2, 1 + self.c)[self.rescale]


def worst_case_weights(gram: numpy.ndarray, slopes: numpy.ndarray, radius: float) -> tuple[numpy.ndarray, float, bool]:
    """Return the w in the simplex that minimizes F(w) = slopes . w + radius ‖sum_k w_k g_k‖, by an active-set method.

    Args:
        gram: [K, K] with a positive diagonal, symmetric positive semi-definite but for rounding.
        slopes: [K].
        radius: > 0.

    Returns:
        w [K]; the regularized norm ‖sum_k w_k g_k‖, which is never zero; and whether w was found. Where not, it is in
        the simplex, a little above the minimum.
    """
    num_tasks = len(gram)
    cosines, lengths = regular_cosines(gram)
    regular = cosines * (lengths[:, None] * lengths)
    # What is rounding in the slope of F by each w_k, per length of its gradient.
    tolerance = 1e-10 * (radius + numpy.abs(slopes / lengths).max())

    used = numpy.arange(num_tasks)
    target, bounded = _minimum_on_hull(cosines, lengths, slopes, radius)
    while not bounded or (target <= 0).any():  # begin with tasks whose minimum lies inside
        used = used[target > 0]
        target, bounded = _minimum_on_hull(cosines[used[:, None], used], lengths[used], slopes[used], radius)
    weights = numpy.zeros(num_tasks)
    weights[used] = target

    found, newest = False, -1
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
            found = bool(gain[newest] <= tolerance)
            if found:
                break
            used = numpy.append(used, newest)
        else:
            first = int(numpy.argmin(reach))  # the task whose weight arrives at zero first
            weights[used] = numpy.maximum(weights[used] + reach[first] * move, 0.0)
            weights[used[first]] = 0.0
            found = bool(used[first] == newest and reach[first] == 0)
            used = numpy.delete(used, first)
            if found:  # rounding alone made the newest look useful
                break
    weights /= weights.sum()
    return weights, float(numpy.sqrt(weights @ regular @ weights)), found


def _minimum_on_hull(
    cosines: numpy.ndarray, lengths: numpy.ndarray, slopes: numpy.ndarray, radius: float
) -> tuple[numpy.ndarray, bool]:
    """Return the w that minimizes F where sum_k w_k = 1, whatever its signs, and True; or a way down and False.

    With M the regularized Gram matrix, x = M^-1 1, y = M^-1 slopes and z = sum(y) / sum(x) x - y it is
    w = x / sum(x) + p z with p = (sum(x) (radius² - z . M z))^(-1/2). Where the root is imaginary, F falls for ever
    along z.
    """
    right_sides = numpy.stack([1 / lengths, slopes / lengths], axis=1)
    x, y = numpy.linalg.solve(cosines, right_sides).T / lengths
    z = y.sum() / x.sum() * x - y
    margin = radius**2 - (z * lengths) @ cosines @ (z * lengths)
    if margin <= 0:
        return z, False
    return x / x.sum() + z / numpy.sqrt(x.sum() * margin), True
