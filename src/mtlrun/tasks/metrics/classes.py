"""Accuracy and macro F1 of predicted classes; the numbers are those of torchmetrics, to the last bit."""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from mtlrun.tasks.metrics.base import CountMetric


class Accuracy(CountMetric):
    """Fraction of the samples whose class is predicted."""

    def __init__(self) -> None:
        super().__init__(2)  # right predictions, samples

    def count(self, prediction: Tensor, target: Tensor) -> Tensor:
        right = prediction.argmax(dim=1) == target
        return torch.stack([right.sum(), right.new_tensor(len(target), dtype=torch.int64)])

    def compute(self) -> Tensor:
        right, samples = self.counts.float().unbind()
        return right / samples


class MacroF1(CountMetric):
    """Mean over the classes of the F1 score; classes that are neither predicted nor a label are left out.

    Args:
        num_classes: number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(3, num_classes)  # right predictions, predictions and labels of each class
        self.num_classes = num_classes

    def count(self, prediction: Tensor, target: Tensor) -> Tensor:
        predicted = prediction.argmax(dim=1)
        classes = (target[predicted == target], predicted, target)
        return torch.stack([one_hot(samples, self.num_classes).sum(dim=0) for samples in classes])

    def compute(self) -> Tensor:
        right, predicted, labeled = self.counts.float().unbind()
        occurs = predicted + labeled > 0
        scores = torch.where(occurs, 2 * right / (predicted + labeled), 0)
        return (scores / occurs.sum()).sum()
