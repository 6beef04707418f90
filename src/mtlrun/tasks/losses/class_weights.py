"""Class weights: how much a sample, or a pixel, counts in the loss, by the class that it is labeled with."""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

#: `none`, `balanced`, or a weight for each class.
ClassWeights = Literal["none", "balanced"] | Sequence[float]


def first_weights(class_weights: ClassWeights, num_classes: int) -> Tensor | None:
    """Return the weights [num_classes] that a task starts with, None for none; ones where `fit` has to find them.

    Raises:
        ValueError: what is given cannot be weights of `num_classes` classes.
    """
    if class_weights == "none":
        return None
    if class_weights == "balanced":
        return torch.ones(num_classes)
    if len(class_weights) != num_classes:
        raise ValueError(f"class_weights must be {num_classes} numbers, one for each class, found {len(class_weights)}")
    for number in class_weights:
        # A weight of 0 would leave batches of that class alone without any loss, 0 / 0.
        if not 0 < number < math.inf:
            raise ValueError(f"class_weights must be numbers > 0, found {number}")
    return torch.tensor(class_weights, dtype=torch.float32)


def balanced_weights(targets: Iterable[Tensor], num_classes: int, ignored: int = -1) -> Tensor:
    """Return n / (K n_c) for each class c: all classes then have the same share of the loss. Shape [num_classes].

    n_c is how many labels of class c there are, n how many in all, and K the number of classes.

    Args:
        targets: classes of any shape, in parts; a number < 0 is a missing label.
        num_classes: number of classes.
        ignored: what is no label either; if it is one of 0..num_classes-1, that class is none and gets weight 0.

    Raises:
        ValueError: a class has no label, and so no weight.
    """
    counts = torch.zeros(num_classes, dtype=torch.int64)
    for target in targets:
        there = (target >= 0) & (target != ignored)
        counts += torch.bincount(target[there].long().cpu(), minlength=num_classes)
    possible = [number for number in range(num_classes) if number != ignored]
    absent = [str(number) for number in possible if counts[number] == 0]
    if absent:
        raise ValueError(
            f"class_weights=balanced needs labels of each class, and there are none of class {', '.join(absent)}; "
            "give the weights as a list of numbers, or use class_weights=none"
        )
    return torch.where(counts > 0, counts.sum() / (len(possible) * counts.clamp(min=1)), 0.0).float()
