"""Metrics of the confusion matrix, against torchmetrics, and what they take to be counted."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics import MeanAbsoluteError
from torchmetrics.classification import MulticlassAccuracy, MulticlassCohenKappa, MulticlassJaccardIndex

from mtlrun.tasks import Ordinal, Segmentation
from mtlrun.tasks.counting import count_numbers


class Allocated(TorchDispatchMode):
    """The bytes of the largest tensor that is made in a block."""

    def __init__(self):
        super().__init__()
        self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor):
            self.most = max(self.most, found.untyped_storage().nbytes())
        return found


def metrics_of(task, batches):
    """Return {metric: value} of decisions and targets."""
    metrics = task.metrics()
    for metric in metrics.values():
        for decided, target in batches:
            metric.update(decided, target)
    return {name: metric.compute() for name, metric in metrics.items()}


@pytest.mark.parametrize("ignored", [-1, 255, 0, 4])
def test_segmentation_is_that_of_torchmetrics(ignored):
    batches = []
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        # Class 5 is neither decided for nor there, class 6 is decided for alone; decisions for an ignored class count.
        target = torch.randint(0, 5, (4, 6, 7), generator=generator)
        decided = torch.where(torch.rand(4, 6, 7, generator=generator) < 0.6, target, (target + 2) % 7)
        decided[decided == 5] = 6
        target[torch.rand(4, 6, 7, generator=generator) < 0.2] = ignored
        batches.append((decided, target))
    peers = {
        "miou": MulticlassJaccardIndex(7, average="macro", ignore_index=ignored),
        "pixel_accuracy": MulticlassAccuracy(7, average="micro", ignore_index=ignored),
    }
    found = metrics_of(Segmentation(7, ignore_index=ignored), batches)
    for name, peer in peers.items():
        for decided, target in batches:
            peer.update(decided, target)
        assert float(found[name]) == pytest.approx(float(peer.compute()), rel=1e-6), name


def test_levels_are_those_of_torchmetrics():
    batches = [(torch.randint(0, 5, (40,)), torch.randint(0, 4, (40,))) for _ in range(3)]
    peers = {
        "mae": MeanAbsoluteError(),
        "accuracy": MulticlassAccuracy(6, average="micro"),
        "kappa": MulticlassCohenKappa(6, weights="quadratic"),
    }
    found = metrics_of(Ordinal(6), batches)
    for name, peer in peers.items():
        for decided, target in batches:
            peer.update(decided, target)
        assert float(found[name]) == pytest.approx(float(peer.compute()), rel=1e-5), name


def test_memory_does_not_grow_with_the_square_of_the_classes_in_deterministic_mode():
    target = torch.randint(0, 40, (2, 32, 32))
    metric = Segmentation(40).metrics()["miou"]
    torch.use_deterministic_algorithms(True)
    try:
        with Allocated() as allocated:
            metric.update(target.roll(1), target)
    finally:
        torch.use_deterministic_algorithms(False)
    assert allocated.most <= max(8 * target.numel(), 8 * 41**2)


def test_one_state_is_updated_for_all_metrics():
    meter = Segmentation(3).meter()
    meter.update(torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4)))
    assert [len(group) for group in meter._metrics.compute_groups.values()] == [2]


@pytest.mark.gpu
def test_numbers_are_counted_on_the_device_without_a_wait():
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    numbers = torch.randint(0, 170, (100_000,))
    on_device = numbers.cuda()
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic)
        torch.cuda.set_sync_debug_mode("error")
        try:
            counts = count_numbers(on_device, 170)
        finally:
            torch.cuda.set_sync_debug_mode("default")
            torch.use_deterministic_algorithms(False)
        assert torch.equal(counts.cpu(), numbers.bincount(minlength=170))
