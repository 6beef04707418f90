"""What an evaluation waits for a GPU for: on the pretended device, for the kinds of tasks."""

import copy

import pytest
import torch
from pretended import DEVICE, Accelerator

from mtlrun.tasks import (
    BinaryClassification,
    Classification,
    Count,
    Depth,
    MultiLabel,
    Ordinal,
    Regression,
    Segmentation,
    SurfaceNormals,
)
from mtlrun.training.constants import ConstantPredictions

BATCH = 6


def classes(num_classes, *shape):
    return torch.randn(BATCH, num_classes, *shape), torch.randint(0, num_classes, (BATCH, *shape))


KINDS = {
    "binary": (BinaryClassification(), lambda: (torch.randn(BATCH, 1), torch.arange(BATCH) % 2)),
    "classification": (Classification(3), lambda: classes(3)),
    "count": (Count(), lambda: (torch.randn(BATCH, 1), torch.randint(0, 9, (BATCH,)).float())),
    "depth": (Depth(), lambda: (torch.rand(BATCH, 1, 4, 5), torch.rand(BATCH, 1, 4, 5))),
    "multilabel": (MultiLabel(4), lambda: (torch.randn(BATCH, 4), torch.randint(-1, 2, (BATCH, 4)))),
    "ordinal": (Ordinal(5), lambda: (torch.randn(BATCH, 4), torch.randint(0, 5, (BATCH,)))),
    "regression": (Regression(), lambda: (torch.randn(BATCH, 1), torch.randn(BATCH))),
    "several numbers": (Regression(num_outputs=3), lambda: (torch.randn(BATCH, 3), torch.randn(BATCH, 3))),
    "segmentation": (Segmentation(3), lambda: classes(3, 4, 5)),
    "normals": (SurfaceNormals(), lambda: (torch.randn(BATCH, 3, 4, 5), torch.randn(BATCH, 3, 4, 5))),
}


def move(tensors):
    return [tensor.to(DEVICE) for tensor in tensors]


@pytest.mark.parametrize("name", KINDS)
def test_a_batch_is_evaluated_without_a_wait(name):
    task, draw = KINDS[name]
    batches = [draw() for _ in range(3)]
    expected = task.meter()
    for batch in batches:
        expected.update(*batch)
    with Accelerator() as accelerator:
        task = copy.deepcopy(task).to(DEVICE)
        meter, constants = task.meter().to(DEVICE), ConstantPredictions({"it": task})
        for number, batch in enumerate(batches):
            moved = move(batch)
            if number == 1:
                accelerator.waits.clear()  # torchmetrics finds out by the first batch which states are the same
            meter.update(*moved)
            constants.add("it", moved[1])
        waits = [wait for wait in accelerator.waits if wait.what == "read"]
        found = meter.compute()
    assert not waits
    assert found == {metric: pytest.approx(value, nan_ok=True) for metric, value in expected.compute().items()}
