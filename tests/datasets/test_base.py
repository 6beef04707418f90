"""What all splits in memory have in common, and what datasets say of where inputs are kept."""

import pytest
import torch

from mtlrun.datasets import MultiDigits, MultiMNIST, NYUv2, OmniglotAlphabets, Scenes, TensorSplit


def make(**options):
    return TensorSplit(torch.arange(12).view(4, 3), {"a": torch.arange(4)}, **options)


def test_a_split_tells_names_and_sources_where_it_has_any():
    split = make(sample_ids=range(7, 11), sources={"one": torch.tensor([0, 2]), "two": torch.tensor([1, 3])})
    assert split.sample_ids == [7, 8, 9, 10]
    assert {source: indices.tolist() for source, indices in split.sources.items()} == {"one": [0, 2], "two": [1, 3]}
    assert (make().sample_ids, make().sources) == (None, None)


def test_too_few_identifiers_are_refused():
    with pytest.raises(ValueError, match="there are 3 sample_ids for 4 inputs"):
        make(sample_ids=["a", "b", "c"])


def test_inputs_can_lie_on_a_device_and_targets_stay():
    split = make(sample_ids=range(4), sources={"one": torch.arange(4)})
    moved = split.to("meta")
    assert (len(moved), moved.sample_ids) == (4, split.sample_ids)
    assert moved.sources.keys() == {"one"}
    for indices in ([3, 0], torch.tensor([3, 0])):
        inputs, targets = moved.batch(indices)
        assert (inputs.device.type, inputs.shape) == ("meta", (2, 3))
        assert targets["a"].tolist() == [3, 0]
    inputs, targets = moved[2]
    assert (inputs.device.type, inputs.shape, targets["a"].item()) == ("meta", (3,), 2)
    assert split.inputs.device.type == "cpu"
    assert split.to("cpu").batch([3, 0])[0].tolist() == [[9, 10, 11], [0, 1, 2]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_on_a_gpu_are_those_on_the_cpu_and_nobody_waits_for_them():
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
        (MultiDigits, "none", "'memory', 'device'"),
        (Scenes, "none", "'memory', 'device'"),
        (MultiMNIST, "none", "'memory', 'device'"),
        (OmniglotAlphabets, "none", "'memory', 'device'"),
        (NYUv2, "device", "'memory', 'none'"),
    ],
)
def test_where_inputs_cannot_be_kept_is_refused(dataset, cache, allowed):
    with pytest.raises(ValueError, match=f"^cache must be one of {allowed}, found '{cache}'"):
        dataset("nowhere", cache=cache) if dataset is NYUv2 else dataset(cache=cache)


def test_the_command_line_names_what_is_allowed(mtlrun):
    code, _, err = mtlrun("dataset=multidigits", "dataset.cache=none")
    assert code == 2
    assert "dataset.cache must be one of 'memory', 'device', found 'none'" in err
    assert MultiDigits(cache="device").cache == "device"
