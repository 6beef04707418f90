"""Metrics made of counts, against torchmetrics: the same numbers to the last bit."""

import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from mtlrun.tasks.metrics.classes import Accuracy, MacroF1


@pytest.mark.parametrize("num_classes", [2, 3, 10, 50])
def test_accuracy_and_f1_are_torchmetrics(num_classes):
    random = torch.Generator().manual_seed(num_classes)
    for seed in range(30):
        pairs = [
            (Accuracy(), MulticlassAccuracy(num_classes, average="micro", validate_args=False)),
            (MacroF1(num_classes), MulticlassF1Score(num_classes, average="macro", validate_args=False)),
        ]
        # With few samples some classes are neither predicted nor labels.
        for size in torch.randint(1, 4 + 5 * seed, (1 + seed % 4,), generator=random).tolist():
            prediction = torch.randn(size, num_classes, generator=random).round(decimals=1)  # with ties
            target = torch.randint(num_classes, (size,), generator=random)
            for ours, theirs in pairs:
                ours.update(prediction, target)
                theirs.update(prediction, target)
        for ours, theirs in pairs:
            value = ours.compute()
            assert value.dtype == torch.float32
            assert value.item() == theirs.compute().item()
            assert ours.higher_is_better == theirs.higher_is_better


def test_counts_move_to_a_device():
    metric = Accuracy().to(torch.device("meta"))
    assert metric.counts.device.type == "meta"
