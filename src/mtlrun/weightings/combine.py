"""Any weighting on a given Jacobian: for tests, and for people who use the weightings as a library."""

import torch
from torch import Tensor

from mtlrun.weightings.base import GradientWeighting, JacobianWeighting, LossWeighting, Weighting


def combine(weighting: Weighting, jacobian: Tensor, losses: Tensor | None = None) -> Tensor:
    """Run any weighting on a given Jacobian and return the update direction [P].

    Args:
        weighting: after `setup(K)`.
        jacobian: [K, P], one task gradient per row.
        losses: [K]; ones if left out.
    """
    if jacobian.dim() != 2:
        raise ValueError(f"jacobian must be [num_tasks, num_parameters], found shape {tuple(jacobian.shape)}")
    if weighting.num_tasks == 0:
        weighting.setup(len(jacobian))
    losses = torch.ones(len(jacobian), dtype=jacobian.dtype) if losses is None else losses
    if len(losses) != len(jacobian):
        raise ValueError(f"{len(jacobian)} task gradients need as many losses, found {len(losses)}")
    match weighting:
        case LossWeighting():
            leaf = losses.detach().clone().requires_grad_()
            weights = torch.autograd.grad(weighting.objective(leaf), leaf)[0]
        case GradientWeighting():
            rows = jacobian.detach().double().cpu()
            with torch.no_grad():
                weights = weighting.weights(rows @ rows.T, losses.detach().double().cpu())
        case JacobianWeighting():
            with torch.no_grad():
                return weighting.combine(jacobian.detach(), losses.detach())
        case _:
            raise TypeError(f"{type(weighting).__name__} is none of the three kinds of weighting")
    return weights.to(jacobian) @ jacobian
