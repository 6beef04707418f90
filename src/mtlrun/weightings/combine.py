"""Any weighting on a given Jacobian: for tests, and for people who use the weightings as a library."""

import torch
from torch import Tensor

from mtlrun.weightings.base import GradientWeighting, JacobianWeighting, LossWeighting, TaskGradientWeighting, Weighting
from mtlrun.weightings.inner_products import refuse_non_finite
from mtlrun.weightings.precision import promoted


def combine(weighting: Weighting, jacobian: Tensor, losses: Tensor | None = None) -> Tensor:
    """Run any weighting on a given Jacobian and return the update direction [P].

    As in training, the weighting's `loss_transform` and the weighting of its `losses` are applied first.

    Args:
        weighting: `setup(K)` is called if it was not before.
        jacobian: [K, P], the task gradients, those of the losses themselves.
        losses: [K]; ones if left out.

    Raises:
        ValueError: the shapes do not fit.
        NonFiniteGradientError: a task gradient is not finite, and the weighting combines them.
    """
    if jacobian.dim() != 2:
        raise ValueError(f"jacobian must be [num_tasks, num_parameters], found shape {tuple(jacobian.shape)}")
    if weighting.num_tasks == 0:
        weighting.setup(len(jacobian))
    losses = torch.ones(len(jacobian), dtype=jacobian.dtype) if losses is None else losses.detach()
    if len(losses) != len(jacobian):
        raise ValueError(f"{len(jacobian)} task gradients need as many losses, found {len(losses)}")
    given, jacobian, losses = jacobian, promoted(jacobian.detach()), promoted(losses)
    return _direction(weighting, jacobian, losses).to(given)


def _direction(weighting: Weighting, jacobian: Tensor, losses: Tensor) -> Tensor:
    """Return the update direction [P] of a Jacobian and losses [K] in float32 or more."""
    if isinstance(weighting, LossWeighting):
        leaf = losses.clone().requires_grad_()
        weights = torch.autograd.grad(weighting.scalarize(leaf), leaf)[0]
        return weights.to(jacobian) @ jacobian
    if not isinstance(weighting, TaskGradientWeighting):
        raise TypeError(f"{type(weighting).__name__} is none of the three kinds of weighting")
    scales, slopes = weighting.scale_losses(losses)
    if scales is not None:
        losses = scales * losses
    if slopes is not None:
        jacobian = slopes.to(jacobian).unsqueeze(1) * jacobian
    refuse_non_finite(torch.isfinite(jacobian).all(dim=1).tolist())
    with torch.no_grad():
        if isinstance(weighting, GradientWeighting):
            rows = jacobian.double().cpu()
            return weighting.task_weights(rows @ rows.T, losses.double().cpu()).to(jacobian) @ jacobian
        if isinstance(weighting, JacobianWeighting):
            return weighting.combine(jacobian, losses)
    raise TypeError(f"{type(weighting).__name__} is none of the three kinds of weighting")
