"""Labels of all kinds of tasks, as their association is taken of."""

import numpy
import torch

from mtlrun.runs.affinity.labels import read_labels
from mtlrun.tasks import (
    BinaryClassification,
    Classification,
    Count,
    MultiLabel,
    Ordinal,
    Regression,
    Segmentation,
)

NAN = float("nan")
TASKS = {
    "kind": Classification(num_classes=3),
    "sold": BinaryClassification(),
    "tags": MultiLabel(num_labels=2),
    "grade": Ordinal(num_levels=3),
    "calls": Count(),
    "place": Regression(num_outputs=2),
    "map": Segmentation(num_classes=2),
}
BATCHES = [
    {
        "kind": torch.tensor([2, -1]),
        "sold": torch.tensor([1.0, NAN]),
        "tags": torch.tensor([[1, -1], [-1, -1]]),
        "grade": torch.tensor([0, -1]),
        "calls": torch.tensor([4.0, -1.0]),
        "place": torch.tensor([[-1.0, 2.0], [NAN, NAN]]),
        "map": torch.zeros(2, 4, 4).long(),
    },
    {"kind": torch.tensor([0])},  # of a source that has the labels of one task
]


class Batches:
    def target_batches(self):
        return iter(BATCHES)


def test_labels_are_read_with_their_gaps():
    labels = read_labels(TASKS, Batches())
    assert {name: found.kind for name, found in labels.items()} == {
        "kind": "categories", "sold": "categories", "tags": "categories", "grade": "numbers", "calls": "numbers",
        "place": "numbers",
    }  # fmt: skip
    expected = {
        "kind": [[2], [NAN], [0]],
        "sold": [[1], [NAN], [NAN]],
        "tags": [[1, NAN], [NAN, NAN], [NAN, NAN]],
        "grade": [[0], [NAN], [NAN]],
        "calls": [[4], [NAN], [NAN]],
        "place": [[-1, 2], [NAN, NAN], [NAN, NAN]],
    }
    for name, values in expected.items():
        numpy.testing.assert_array_equal(labels[name].values, numpy.array(values, dtype=float))
