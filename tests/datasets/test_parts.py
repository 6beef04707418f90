"""Which samples of a batch are labeled, known before they are loaded."""

import pytest
import torch

from mtlrun.datasets.batches.parts import Labels

COUNT = 200


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_positions_are_those_of_the_masks(size):
    masks = {"all": None, "none": torch.zeros(COUNT, dtype=torch.bool), "every": torch.ones(COUNT, dtype=torch.bool)}
    masks |= {f"task {number}": torch.rand(COUNT) < 0.8 for number in range(5)}
    indices = torch.randint(0, COUNT, (size,))
    part = Labels(masks).divide({"source": indices})["source"]
    assert part.indices is indices
    assert part.positions.keys() == masks.keys()
    for task, mask in masks.items():
        expected = torch.arange(size) if mask is None else mask[indices].nonzero().squeeze(1)
        if len(expected) == size:
            assert part.positions[task] is None
        else:
            assert torch.equal(part.positions[task], expected)


def test_of_tasks_whose_labels_are_not_known_nothing_is_said():
    assert Labels({}).divide({"": torch.arange(3)})[""].positions == {}
