"""Which weightings can make a step of micro-batches."""

from mtlrun.weightings.base import PartsWeighting, TaskGradientWeighting, Weighting


def check_micro_batches(weighting: Weighting, *, has_losses: bool, two_pass: bool) -> None:
    """Raise ValueError if a method cannot be computed from micro-batches with what is given.

    Args:
        weighting: the method.
        has_losses: the losses of the whole batch are known before.
        two_pass: see `GradientStep`.
    """
    name = type(weighting).__name__
    if weighting.needs_batch_losses and not has_losses:
        raise ValueError(f"{name} needs the losses of the whole batch before its gradients")
    if isinstance(weighting, PartsWeighting):
        raise ValueError(f"{name} needs the whole batch at once, since it splits it into parts")
    if isinstance(weighting, TaskGradientWeighting) and weighting.grad_wrt != "shared" and not two_pass:
        raise ValueError(f"grad_wrt={weighting.grad_wrt} is not supported with micro-batches; use grad_wrt=shared")
