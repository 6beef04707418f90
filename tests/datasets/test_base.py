"""What all splits in memory have in common, and what datasets say of where inputs are kept."""

import pytest
import torch

from mtlrun.datasets import MultiDigits, MultiMNIST, NYUv2, OmniglotAlphabets, Scenes, Split, TensorSplit
from mtlrun.datasets.base import as_split


def make(**options):
    return TensorSplit(torch.arange(12).view(4, 3), {"a": torch.arange(4)}, **options)


def test_a_split_has_the_sample_ids_and_sources_it_was_given():
    split = make(sample_ids=range(7, 11), sources={"one": torch.tensor([0, 2]), "two": torch.tensor([1, 3])})
    assert split.sample_ids == [7, 8, 9, 10]
    assert {source: indices.tolist() for source, indices in split.sources.items()} == {"one": [0, 2], "two": [1, 3]}
    assert (make().sample_ids, make().sources) == (None, None)


def test_all_attributes_of_a_split_are_optional():
    class Squares(Split):
        def __len__(self):
            return 5

        def __getitem__(self, index):
            return torch.tensor(index), {"square": index**2}

    split = Squares()
    assert (split.targets, split.sample_ids, split.sources, split.sample_weights) == (None, None, None, None)
    assert (len(split), split[3][1]) == (5, {"square": 9})
    assert as_split(split) is split


def test_a_plain_dataset_becomes_a_split_with_the_attributes_that_it_has():
    class Plain:
        def __init__(self):
            self.targets = [7, 8]  # as in torchvision's datasets: not by task
            self.sources = {"one": torch.tensor([0, 1])}

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return torch.zeros(1), {"a": self.targets[index]}

    plain = Plain()
    split = as_split(plain)
    assert (len(split), split[0][1], split[1][1]) == (2, {"a": 7}, {"a": 8})
    assert (split.targets, split.sample_ids, split.sources, split.sample_weights) == (None, None, plain.sources, None)


def test_too_few_identifiers_are_refused():
    with pytest.raises(ValueError, match="there are 3 sample_ids for 4 inputs"):
        make(sample_ids=["a", "b", "c"])


def test_samples_can_lie_on_a_device_and_what_is_known_of_targets_stays():
    split = make(sample_ids=range(4), sources={"one": torch.arange(4)})
    moved = split.to("meta")
    assert (len(moved), moved.sample_ids) == (4, split.sample_ids)
    assert moved.sources.keys() == {"one"}
    for indices in ([3, 0], torch.tensor([3, 0])):
        inputs, targets = moved.batch(indices)
        assert (inputs.device.type, inputs.shape) == ("meta", (2, 3))
        assert targets["a"].device.type == "meta"
    assert moved.targets["a"].tolist() == [0, 1, 2, 3]
    inputs, targets = moved[2]
    assert (inputs.device.type, inputs.shape, targets["a"].item()) == ("meta", (3,), 2)
    assert split.inputs.device.type == "cpu"
    assert split.to("cpu").batch([3, 0])[0].tolist() == [[9, 10, 11], [0, 1, 2]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_on_a_gpu_are_those_on_the_cpu_and_need_no_synchronization():
    split = make()
    moved = split.to("cuda")
    order = torch.tensor([2, 0, 3])
    torch.cuda.set_sync_debug_mode("error")
    try:
        inputs, _ = moved.batch(order)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert inputs.cpu().tolist() == split.batch(order)[0].tolist()


@pytest.mark.parametrize(
    ("dataset", "cache", "allowed"),
    [
        (MultiDigits, "none", "'auto', 'memory', 'device'"),
        (Scenes, "none", "'auto', 'memory', 'device'"),
        (MultiMNIST, "none", "'auto', 'memory', 'device'"),
        (OmniglotAlphabets, "none", "'auto', 'memory', 'device'"),
        (NYUv2, "gpu", "'auto', 'memory', 'device', 'none'"),
    ],
)
def test_a_cache_that_a_dataset_does_not_have_is_refused(dataset, cache, allowed):
    with pytest.raises(ValueError, match=f"^cache must be one of {allowed}, found '{cache}'"):
        dataset("nowhere", cache=cache) if dataset is NYUv2 else dataset(cache=cache)


def test_the_command_line_lists_the_allowed_caches(mtlrun):
    code, _, err = mtlrun("dataset=multidigits", "dataset.cache=none")
    assert code == 2
    assert "dataset.cache must be one of 'auto', 'memory', 'device', found 'none'" in err
    assert MultiDigits(cache="device").cache == "device"
