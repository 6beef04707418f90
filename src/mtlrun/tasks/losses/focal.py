"""The focal loss: cross-entropy in which what is already predicted well counts less."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from mtlrun.config.checks import check_one_of

Criterion = Literal["cross_entropy", "focal"]


def check_criterion(criterion: Criterion, focal_gamma: float, label_smoothing: float) -> None:
    """Raise ValueError, beginning with the argument's name, where these cannot be arguments of a task."""
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), found {label_smoothing}")
    check_one_of("criterion", criterion, Criterion)
    if not 0 <= focal_gamma < math.inf:
        raise ValueError(f"focal_gamma must be >= 0 and finite, found {focal_gamma}")
    if criterion == "focal" and label_smoothing:
        # Of a target that is spread over several classes it is not defined what being predicted well is.
        raise ValueError(f"label_smoothing must be 0 with criterion=focal, found {label_smoothing}")


def focal_losses(
    logits: Tensor, target: Tensor, gamma: float, class_weights: Tensor | None = None, ignore_index: int = -100
) -> Tensor:
    """Return -w_y (1 - p_y)^gamma log p_y of each row, shape [n].

    Source: Lin et al., "Focal Loss for Dense Object Detection" (ICCV 2017), of the softmax in place of the sigmoid.

    Args:
        logits: [n, num_classes].
        target: class indices y, [n].
        gamma: >= 0; 0 is cross-entropy.
        class_weights: w, [num_classes]; None for ones.
        ignore_index: rows of this target have the loss 0.
    """
    log_probabilities = logits.log_softmax(dim=1)
    losses = nn.functional.nll_loss(
        log_probabilities, target, class_weights, ignore_index=ignore_index, reduction="none"
    )
    # log(1 - p_y), from the other classes: its gradient is finite where p_y rounds to 1, which that of 1 - p_y is not.
    chosen = target[:, None] == torch.arange(logits.shape[1], device=logits.device)
    log_rest = log_probabilities.masked_fill(chosen, -math.inf).logsumexp(dim=1)
    return (gamma * log_rest).exp() * losses


def binary_focal_losses(logits: Tensor, answer: Tensor, gamma: float) -> Tensor:
    """Return -(1 - p)^gamma log p of each logit, p being the probability of the answer; in the shape of `logits`.

    This is `focal_losses` of two classes whose logits are 0 and the given one.

    Args:
        logits: of yes, of any shape.
        answer: 0 or 1, of the same shape.
        gamma: >= 0; 0 is cross-entropy.
    """
    signed = torch.where(answer > 0, logits, -logits)
    logsigmoid = nn.functional.logsigmoid
    return -(gamma * logsigmoid(-signed)).exp() * logsigmoid(signed)
