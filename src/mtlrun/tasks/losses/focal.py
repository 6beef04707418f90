"""The focal loss: cross-entropy in which well-predicted labels count less."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from mtlrun.config.checks import check_one_of

Criterion = Literal["cross_entropy", "focal"]


def check_criterion(criterion: Criterion, label_smoothing: float) -> None:
    """Raise ValueError, beginning with the argument's name, if an argument of a task is not valid."""
    check_one_of("criterion", criterion, Criterion)
    if criterion == "focal" and label_smoothing:
        # For a target that is spread over several classes, "predicted well" is not defined.
        raise ValueError(f"label_smoothing must be 0 with criterion=focal, found {label_smoothing}")


def focal_losses(
    logits: Tensor, target: Tensor, gamma: float, class_weights: Tensor | None = None, ignore_index: int = -100
) -> Tensor:
    """Return -w_y (1 - p_y)^gamma log p_y for each label y, [n].

    Source: Lin et al., "Focal Loss for Dense Object Detection" (ICCV 2017), with the softmax in place of the sigmoid.

    Args:
        logits: [n, num_classes].
        target: class indices y, [n].
        gamma: >= 0; 0 is cross-entropy.
        class_weights: w, [num_classes]; None for ones.
        ignore_index: targets of this value have the loss 0.
    """
    log_probabilities = logits.log_softmax(dim=1)
    losses = nn.functional.nll_loss(
        log_probabilities, target, class_weights, ignore_index=ignore_index, reduction="none"
    )
    # log(1 - p_y), from the other classes: unlike that of 1 - p_y, its gradient is finite where p_y rounds to 1.
    is_label = target[:, None] == torch.arange(logits.shape[1], device=logits.device)
    log_rest = log_probabilities.masked_fill(is_label, -math.inf).logsumexp(dim=1)
    return (gamma * log_rest).exp() * losses


def binary_focal_losses(logits: Tensor, target: Tensor, gamma: float) -> Tensor:
    """Return -(1 - p)^gamma log p for each label, p being the probability predicted for it; in the shape of `logits`.

    This is `focal_losses` of two classes with the logits 0 and the given one.

    Args:
        logits: of the label 1, of any shape.
        target: labels 0 or 1, of the same shape.
        gamma: >= 0; 0 is cross-entropy.
    """
    signed = torch.where(target > 0, logits, -logits)
    logsigmoid = nn.functional.logsigmoid
    return -(gamma * logsigmoid(-signed)).exp() * logsigmoid(signed)
