"""Samples that lie on a device: the batches are those of the CPU, and to make them waits for nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import read_record, run_folders
from pretended import DEVICE, Accelerator, OnDevice
from scipy import sparse
from small_trainings import runs_on_device

from mtlrun.config.settings import Runtime
from mtlrun.datasets import Loader, MultiTaskDataset, TensorSplit
from mtlrun.datasets.base import BatchSplit
from mtlrun.datasets.files.augmentation import AugmentedInMemory
from mtlrun.datasets.files.pixels import ByteSplit, Scale
from mtlrun.datasets.files.shifting import Augmentation
from mtlrun.datasets.oxford_pets import PetBytes
from mtlrun.datasets.tox21 import SparseSplit
from mtlrun.errors import ConfigError, DataError
from mtlrun.setup.loaders import find_labeled
from mtlrun.setup.placing import place_splits
from mtlrun.tasks import Classification, Regression, Segmentation
from mtlrun.training.batch import LabeledBatch

COUNT = 23
CPU = torch.device("cpu")
TASKS = {"class": Classification(3), "size": Regression(), "segmentation": Segmentation(5)}


def make_targets():
    """Return classes, all known, and numbers, a third of them missing."""
    sizes = torch.arange(COUNT).float()
    sizes[::3] = torch.nan
    return {"class": torch.arange(COUNT) % 3, "size": sizes}


def make_bytes(**options):
    pixels = torch.randint(0, 256, (COUNT, 3, 16, 16), dtype=torch.uint8)
    return ByteSplit(pixels, Scale("imagenet"), make_targets(), **options)


def make_dense():
    maps = {"depth": torch.rand(COUNT, 1, 8, 12), "normals": torch.randn(COUNT, 3, 8, 12)}
    maps["segmentation"] = torch.randint(0, 5, (COUNT, 8, 12))
    return AugmentedInMemory(TensorSplit(torch.rand(COUNT, 3, 8, 12), maps), inverse_depth=False)


SPLITS = {
    "numbers": lambda: TensorSplit(torch.randn(COUNT, 4), make_targets()),
    "sources": lambda: TensorSplit(
        torch.randn(COUNT, 4), make_targets(), sources={"a": torch.arange(9), "b": torch.arange(9, COUNT)}
    ),
    "weights": lambda: TensorSplit(torch.randn(COUNT, 4), make_targets(), sample_weights=torch.arange(COUNT) % 4 / 2),
    "weights of a task": lambda: TensorSplit(
        torch.randn(COUNT, 4), make_targets(), sample_weights={"size": torch.rand(COUNT)}
    ),
    "images": make_bytes,
    "augmented images": lambda: make_bytes(augmentation=Augmentation(["shift", "flip"])),
    "sparse": lambda: SparseSplit(sparse.random_array((COUNT, 6), density=0.3, format="csr", rng=0), make_targets()),
    "pets": lambda: PetBytes(make_bytes(), torch.randint(0, 3, (COUNT, 16, 16), dtype=torch.uint8)),
    "augmented maps": make_dense,
}


def make_loader(split, **options):
    sources = bool(split.sources)
    names = set(split[0][1])
    tasks = {name: task for name, task in TASKS.items() if name in names}
    labeled = find_labeled(split, "train", tasks)
    return Loader(split, 5, shuffle=True, seed=3, per_source=sources, labeled=labeled, **options), tasks


def contents(loader, tasks, device):
    """Yield the tensors of all batches of two epochs, one of them from its second batch on."""
    for epoch, start in ((0, 0), (1, 1)):
        for loaded in loader.batches(epoch, start):
            parts = loaded if isinstance(loaded, dict) else {"": loaded}
            for inputs, targets, *_ in parts.values():
                yield inputs
                yield from targets.values()
            for samples in LabeledBatch.load(tasks, loaded, device).source_batches:
                yield from samples.targets.values()
                yield from samples.sample_weights.values()
                yield from (index for index in samples.label_index.values() if index is not None)


@pytest.mark.parametrize("name", SPLITS)
def test_batches_are_those_of_the_cpu_and_nothing_waits_for_them(name):
    split = SPLITS[name]()
    expected = list(contents(*make_loader(split), CPU))
    with Accelerator() as accelerator:
        loader, tasks = make_loader(split.to(DEVICE), num_workers=2)  # who are of no use here, and are not started
        accelerator.waits.clear()
        found = list(contents(loader, tasks, DEVICE))
        assert not accelerator.waits
        assert all(isinstance(tensor, OnDevice) for tensor in found)
    assert len(found) == len(expected) > 4
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.held, other, rtol=0, atol=0, equal_nan=True)


def test_labels_that_only_the_device_holds_are_checked_once():
    with Accelerator():
        split = PetBytes(make_bytes(), torch.full((COUNT, 16, 16), 7, dtype=torch.uint8)).to(DEVICE)
        with pytest.raises(
            DataError, match=r"train split, task segmentation: in the samples from number 0 on: targets"
        ):
            find_labeled(split, "train", {"segmentation": Segmentation(5)})


def test_a_run_on_a_table_that_lies_on_a_device_is_the_one_in_memory(mtlrun):
    rows = [f"{number % 7},{number % 5},{number % 7 + number % 5}" for number in range(40)]
    Path("t.csv").write_text("\n".join(["x,z,y", *rows]) + "\n")
    words = [
        "dataset=csv", "dataset.path=t.csv", "+task@tasks.y=regression", "backbone.hidden=[4]", "trainer.epochs=1",
        "runtime.quiet=true", "trainer.baselines=false",
    ]  # fmt: skip
    with runs_on_device():
        code, _, err = mtlrun(*words, "dataset.cache=device", "runtime.root=device")
    assert code == 0, err
    assert mtlrun(*words, "runtime.root=memory")[0] == 0
    here, there = (read_record(*run_folders(root)) for root in ("device", "memory"))
    assert (here["environment"]["cache"], there["environment"]["cache"]) == ("device", "memory")
    assert (here["run_id"], here["splits"]) == (there["run_id"], there["splits"])
    assert here["test"]["y"] == pytest.approx(there["test"]["y"], rel=1e-4, nan_ok=True)


@pytest.mark.gpu
@pytest.mark.parametrize("name", SPLITS)
def test_batches_of_a_gpu_are_those_of_the_cpu_and_nothing_waits_for_them(name):
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    device = torch.device("cuda:0")
    split = SPLITS[name]()
    expected = list(contents(*make_loader(split), CPU))
    loader, tasks = make_loader(split.to(device))
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = list(contents(loader, tasks, device))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    same = split.same_everywhere
    for one, other in zip(found, expected, strict=True):
        assert one.device == device
        tolerance = {"rtol": 0, "atol": 0} if same else {"rtol": 1e-5, "atol": 1e-5}
        torch.testing.assert_close(one.cpu(), other, equal_nan=True, **tolerance)


class Stub(BatchSplit):
    """A split of so many bytes, which notes where it was moved."""

    same_everywhere = True
    device = CPU

    def __init__(self, nbytes):
        self.nbytes = nbytes

    nbytes = 0

    def __len__(self):
        return 4

    def __getitem__(self, index):
        raise NotImplementedError

    def batch(self, indices):
        raise NotImplementedError

    def to(self, device):
        moved = Stub(self.nbytes)
        moved.device = torch.device(device)
        return moved


class OtherBatches(TensorSplit):
    """A split of a user's, of which nobody knows whether it makes the same batches on a GPU."""

    def batch(self, indices):
        return super().batch(indices)


class Data(MultiTaskDataset):
    input_shape = (4,)
    task_names = ()

    def split(self, name):
        raise NotImplementedError


def placed(cache, device, splits, num_workers=0):
    """Return the device of each split."""
    dataset = Data()
    dataset.cache = cache
    runtime = replace(Runtime(), num_workers=num_workers)
    found = place_splits(dataset, dict(zip(("train", "val", "test"), splits, strict=True)), runtime, device)
    return [split.device.type for split in found.values()]


def test_auto_moves_samples_to_a_gpu_that_has_room_for_four_times_as_many(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (400 * 2**20, 800 * 2**20))
    cuda, size = torch.device("cuda:0"), 40 * 2**20
    shared = Stub(size)  # validation and test may be one split
    assert placed("auto", cuda, [Stub(size), shared, shared]) == ["cuda"] * 3
    assert "80 MiB of 400 that are free" in caplog.text
    assert placed("auto", cuda, [Stub(size), Stub(size), Stub(size)]) == ["cpu"] * 3
    assert "stay in memory" in caplog.text
    assert placed("device", cuda, [Stub(size), Stub(size), Stub(size)]) == ["cuda"] * 3
    assert placed("memory", cuda, [Stub(1)] * 3) == ["cpu"] * 3
    assert placed("auto", CPU, [Stub(1)] * 3) == ["cpu"] * 3
    assert placed("auto", cuda, [Stub(1)] * 3, num_workers=2) == ["cuda"] * 3
    other = OtherBatches(torch.zeros(4, 1), {})
    assert placed("auto", cuda, [Stub(1), other, Stub(1)]) == ["cpu"] * 3


def test_workers_cannot_make_batches_on_a_gpu(monkeypatch):
    with pytest.raises(ConfigError, match=r"runtime\.num_workers=2: with dataset\.cache=device"):
        placed("device", torch.device("cuda:0"), [Stub(1)] * 3, num_workers=2)
    assert placed("device", CPU, [Stub(1)] * 3, num_workers=2) == ["cpu"] * 3
