"""GradVac: gradient vaccine."""

from typing import Any

import numpy
import torch
from torch import Tensor

from mtlrun.config.bounds import Fraction, checked
from mtlrun.config.checks import check_one_of
from mtlrun.weightings.base import GradientWeighting, Reduction
from mtlrun.weightings.pcgrad import random_orders

# Target cosines are held below one by this: no finite multiple of one gradient makes another one parallel to it.
_BELOW_ONE = 1e-6

# A projected gradient has no direction if its squared length is below this fraction of the original one.
_MIN_REMAINING = 1e-12


class GradVac(GradientWeighting):
    """The sum of the task gradients, each turned toward the others until their cosines equal the running means.

    For each i, for the others j in random order, with c the cosine of g_i' and g_j and rho_ij its running mean:

        if c < rho_ij:  g_i' += g_j ‖g_i'‖ (rho_ij sqrt(1 - c²) - c sqrt(1 - rho_ij²)) / (‖g_j‖ sqrt(1 - rho_ij²))
        rho_ij <- (1 - beta) rho_ij + beta c

    Every g_i' is a combination of the task gradients, so this is computed on its coefficients, from the Gram matrix
    only. While rho is zero, as at the start, this is PCGrad.

    Source: Wang et al., "Gradient Vaccine: Investigating and Improving Multi-task Optimization in Massively
    Multilingual Models" (ICLR 2021). Whole gradients are compared, not layer by layer. LibMTL updates rho only where
    c < rho, so that it can only fall from zero, and the gradients are turned less than by PCGrad.

    Args:
        beta: weight of the current cosine in the running mean, in [0, 1]. Published code: .5.
        reduction: `sum` of the gradients, as in the paper, or `mean`.
        head_loss: `unweighted` by default, since only gradients of shared parameters are turned.
        common: see `GradientWeighting`.
    """

    rho: Tensor

    @checked
    def __init__(self, beta: Fraction = 0.5, reduction: Reduction = "sum", **common: Any) -> None:
        super().__init__(**common)
        check_one_of("reduction", reduction, Reduction)
        self.beta = beta
        self.reduction = reduction

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        self.register_buffer("rho", torch.zeros(num_tasks, num_tasks, dtype=torch.float64))

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        products = gram.numpy()
        num_tasks = len(products)
        active = torch.arange(self.num_tasks)[self.active]
        tasks, squares = numpy.arange(num_tasks), products.diagonal()
        rho = self.rho[active[:, None], active].numpy()
        orders = random_orders(num_tasks, self.generator()).T
        is_other = (orders != tasks) & (squares[orders] > 0)
        other_lengths = numpy.sqrt(numpy.where(is_other, squares[orders], 1.0))
        # Each pair comes once, so its running mean is that of the steps before.
        averages = rho[tasks, orders]
        targets = averages.clip(_BELOW_ONE - 1, 1 - _BELOW_ONE)
        cosines, factors = numpy.zeros(orders.shape), numpy.zeros(orders.shape)
        along = products.copy()  # products of g_i' with all gradients
        turned_squares, smallest = squares.copy(), _MIN_REMAINING * squares
        for step, others in enumerate(orders):  # all tasks at once, each with one other
            is_other[step] &= turned_squares > smallest
            lengths = numpy.sqrt(numpy.where(is_other[step], turned_squares, 1.0))
            product = along[tasks, others]
            cosine = numpy.minimum(numpy.maximum(product / (lengths * other_lengths[step]), -1.0), 1.0)
            cosines[step] = cosine
            turned = is_other[step] & (cosine < averages[step])
            if turned.any():
                factor = lengths / other_lengths[step] * turning_factor(cosine, targets[step]) * turned
                factors[step] = factor
                added = factor * (2 * product + factor * squares[others])  # to g_i' . g_i'
                turned_squares = numpy.maximum(turned_squares + added, 0.0)
                along += factor[:, None] * products[others]
        rho[tasks, orders] = numpy.where(is_other, (1 - self.beta) * averages + self.beta * cosines, averages)
        self.rho[active[:, None], active] = torch.from_numpy(rho)
        total = torch.from_numpy(1 + numpy.bincount(orders.ravel(), factors.ravel(), minlength=num_tasks))
        return total if self.reduction == "sum" else total / num_tasks


def turning_factor(cosine: numpy.ndarray, target: numpy.ndarray) -> numpy.ndarray:
    """Return the factor with which a unit vector must be added to another for their cosine to rise to `target`."""
    sine, target_sine = numpy.sqrt(1 - cosine**2), numpy.sqrt(1 - target**2)
    factor: numpy.ndarray = (target * sine - cosine * target_sine) / target_sine
    return factor
