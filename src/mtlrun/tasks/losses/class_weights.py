"""Class weights: how much a sample, a pixel, or one of several labels counts in the loss, by the class of its label."""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

from mtlrun.config.bounds import Positive
from mtlrun.tasks.counting import count_numbers

#: `none`, `balanced`, or a weight for each class; with one of 0, the loss of a batch of only that class were 0 / 0.
ClassWeights = Literal["none", "balanced"] | Sequence[Positive]


def initial_class_weights(class_weights: ClassWeights, num_classes: int) -> Tensor | None:
    """Return the class weights [num_classes] before `Task.fit`: None for none, ones if they are still to be balanced.

    Raises:
        ValueError: `class_weights` are not valid for `num_classes` classes.
    """
    if class_weights == "none":
        return None
    if class_weights == "balanced":
        return torch.ones(num_classes)
    if len(class_weights) != num_classes:
        raise ValueError(f"class_weights must be {num_classes} numbers, one for each class, found {len(class_weights)}")
    return torch.tensor(class_weights, dtype=torch.float32)


def balanced_weights(targets: Iterable[Tensor], num_classes: int, ignore_index: int = -1) -> Tensor:
    """Return n / (K n_c) for each class c, so that all classes contribute equally to the loss. Shape [num_classes].

    n_c is the number of labels of class c, n that of all labels, and K the number of classes.

    Args:
        targets: class indices of any shape, in chunks; a number < 0 is a missing label.
        num_classes: number of classes.
        ignore_index: further value of a missing label. If it is in 0..num_classes-1, it is not counted as a class, and
            has weight 0.

    Raises:
        ValueError: a class has no labels, and so no weight.
    """
    counts = torch.zeros(num_classes, dtype=torch.int64)
    for target in targets:
        counts += count_classes(target, num_classes, ignore_index).cpu()
    classes = [index for index in range(num_classes) if index != ignore_index]
    absent = [str(index) for index in classes if counts[index] == 0]
    if absent:
        raise ValueError(
            f"class_weights=balanced needs labels of each class, and there are none of class {', '.join(absent)}; "
            "give the weights as a list of numbers, or use class_weights=none"
        )
    return torch.where(counts > 0, counts.sum() / (len(classes) * counts.clamp(min=1)), 0.0).float()


def count_classes(target: Tensor, num_classes: int, ignore_index: int = -1) -> Tensor:
    """Return the number of labels of each class, int64 [num_classes]; arguments as for `balanced_weights`."""
    mask = (target >= 0) & (target != ignore_index)
    return count_numbers(torch.where(mask, target, num_classes).long(), num_classes + 1)[:-1]


def initial_label_weights(class_weights: ClassWeights, num_labels: int) -> Tensor | None:
    """Return the weights of no and of yes of each label, [2, num_labels], before `Task.fit`; ones to be balanced.

    Args:
        class_weights: `none`, `balanced`, or for each label how often a yes counts compared to a no.
        num_labels: number of labels.

    Raises:
        ValueError: `class_weights` are not valid for `num_labels` labels.
    """
    of_yes = initial_class_weights(class_weights, num_labels)
    return None if of_yes is None else torch.stack([torch.ones(num_labels), of_yes])


def balanced_label_weights(targets: Iterable[Tensor], num_labels: int) -> Tensor:
    """Return n / (2 n_c) for c = no and c = yes of each label, n being its number of labels. Shape [2, num_labels].

    Args:
        targets: 0, 1, or missing: -1 or NaN, [samples, num_labels], in chunks.
        num_labels: number of labels.

    Raises:
        ValueError: a label is never no, or never yes, and so has no weight.
    """
    counts = torch.zeros(2, num_labels, dtype=torch.int64)
    for target in targets:
        counts += torch.stack([(target == 0).sum(dim=0), (target == 1).sum(dim=0)]).cpu()
    for value, found in enumerate(counts):
        absent = [str(index) for index in (found == 0).nonzero().flatten().tolist()]
        if absent:
            raise ValueError(
                f"class_weights=balanced needs a no and a yes of each label, and no sample has {value} of label "
                f"{', '.join(absent)}, numbered from 0; give the weights as a list of numbers, or use "
                "class_weights=none"
            )
    return (counts.sum(dim=0) / (2 * counts)).float()
