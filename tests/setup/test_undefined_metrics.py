"""What the labels of a split do not define: the lines about it, and the advice."""

import pytest
import torch

from mtlrun.datasets import Loader, TensorSplit
from mtlrun.datasets.base import MultiTaskDataset
from mtlrun.errors import ConfigError
from mtlrun.setup.undefined import find_undefined
from mtlrun.tasks import BinaryClassification, MultiLabel, Regression, Task


class Given(MultiTaskDataset):
    """A dataset of given targets, {split: {task: targets}}."""

    input_shape = (1,)

    def __init__(self, **targets):
        self._targets = targets
        self.task_names = tuple(targets["val"])

    def split(self, name):
        targets = self._targets[name]
        return TensorSplit(torch.zeros(len(next(iter(targets.values()))), 1), targets)


def find(dataset, tasks, limit_batches=None):
    loaders = {
        name: Loader(dataset.split(name), 2, shuffle=False, limit_batches=limit_batches)
        for name in ("train", "val", "test")
    }
    return find_undefined(dataset, tasks, loaders)


def one(targets):
    return {"y": torch.tensor(targets)}


def test_labels_that_a_limit_leaves_out_are_there_again_without_it():
    dataset = Given(train=one([0, 1]), val=one([0, 0, 1, 1]), test=one([0, 1, 1, 1]))
    (line,) = find(dataset, {"y": BinaryClassification()}, limit_batches=1).describe({})
    assert "since all 2 labels are 0, so checkpoints are compared by the loss" in line
    assert "; use the whole split: trainer.limit_batches=null or compare by accuracy: trainer.monitor=y/acc" in line
    assert find(dataset, {"y": BinaryClassification()}).describe({}) == []


def test_a_metric_besides_the_main_one_is_named_without_a_consequence_for_the_selection():
    dataset = Given(train=one([1.0, 2.0]), val=one([3.0]), test=one([3.0, 3.0]))
    undefined = find(dataset, {"y": Regression()})
    val, test = undefined.describe({"train": {"y": 2}, "val": {"y": 1}, "test": {"y": 2}})
    assert val == (
        "val split, task y: r2 and spearman are not defined, since the only label is 3; add samples with the labels "
        "that it lacks"
    )
    assert test.startswith(
        "test split, task y: r2 and spearman are not defined, since all 2 labels are 3, so the result is without them"
    )
    undefined.check_monitor("y/rmse")
    with pytest.raises(ConfigError, match=r"y/r2: r2 is not defined .*; use trainer.monitor=y/rmse or add samples"):
        undefined.check_monitor("y/r2")


def test_labels_that_a_mean_leaves_out_are_named():
    labels = torch.tensor([[0, 1, 0], [0, 1, 1]])
    dataset = Given(train={"y": labels}, val={"y": labels}, test={"y": torch.tensor([[0, 1, 1], [1, 0, 0]])})
    dataset.classes = {"y": ["cold", "wet", "warm"]}
    lines = find(dataset, {"y": MultiLabel(3)}).describe({})
    assert lines == [
        "val split, task y: the mean of auroc is without cold, wet, not defined there",
        "val split, task y: the mean of map is without cold, not defined there",
    ]


def test_kinds_that_declare_nothing_and_targets_that_are_not_in_memory_are_passed_over():
    class Mine(BinaryClassification):
        undefined_metrics = Task.undefined_metrics

    same = one([0, 0])
    assert find(Given(train=same, val=same, test=same), {"y": Mine()}).reasons == {}
