"""Splits in memory, and the loader."""

import random
from itertools import chain, islice

import numpy
import pytest
import torch
from torch.utils.data import Dataset

from mtlrun.datasets import Loader, TensorSplit
from mtlrun.datasets.batches.fetching import check_finite
from mtlrun.errors import DataError

COUNT = 23


class Augmented(Dataset):
    """Adds numbers from all three global generators to each sample."""

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        noise = torch.tensor([torch.rand(()).item(), random.random(), numpy.random.random()], dtype=torch.float64)
        return index + noise, {"number": torch.tensor(index)}


def in_memory():
    return TensorSplit(torch.arange(COUNT, dtype=torch.float64), {"number": torch.arange(COUNT)})


@pytest.fixture(params=[in_memory, Augmented], ids=["in memory", "augmented"])
def split(request):
    return request.param()


def make(split, batch_size=5, **options):
    return Loader(split, batch_size, **({"shuffle": True, "seed": 3} | options))


def numbers(loader, epoch=0, start=0):
    return [targets["number"].tolist() for _, targets in loader.batches(epoch, start)]


def inputs(loader, epoch=0, start=0):
    return torch.cat([batch for batch, _ in loader.batches(epoch, start)])


def global_state():
    return random.getstate(), numpy.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()


def test_each_sample_comes_once_per_epoch(split):
    batches = numbers(make(split))
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3]
    assert sorted(chain(*batches)) == list(range(COUNT))


def test_inputs_belong_to_their_targets(split):
    for batch, targets in make(split).batches():
        values = batch if batch.dim() == 1 else batch[:, 0]
        assert torch.equal(values.floor().long(), targets["number"])


def test_without_shuffling_samples_come_in_the_order_of_the_split(split):
    loader = make(split, shuffle=False)
    assert list(chain(*numbers(loader, epoch=4))) == list(range(COUNT))


def test_order_follows_the_seed_and_the_epoch(split):
    loader = make(split)
    assert numbers(make(split), epoch=1) == numbers(loader, epoch=1)
    orders = [numbers(loader, epoch=0), numbers(loader, epoch=1), numbers(make(split, seed=4), epoch=0)]
    assert all(one != other for index, one in enumerate(orders) for other in orders[:index])


def test_order_does_not_depend_on_the_global_generators(split):
    torch.manual_seed(1)
    expected = inputs(make(split))
    torch.manual_seed(2)
    random.seed(2)
    numpy.random.seed(2)
    assert torch.equal(inputs(make(split)), expected)


@pytest.mark.parametrize("start", [0, 1, 4, 5])
def test_starting_later_drops_the_batches_before(split, start):
    loader = make(split)
    everything = list(loader.batches(2))
    found = list(loader.batches(2, start=start))
    assert len(found) == 5 - start
    for (batch, targets), (expected, expected_targets) in zip(found, everything[start:], strict=True):
        assert torch.equal(batch, expected)
        assert torch.equal(targets["number"], expected_targets["number"])


@pytest.mark.parametrize("start", [0, 3])
def test_number_of_workers_does_not_change_the_batches(split, start):
    alone = list(make(split).batches(1, start))
    with_workers = list(make(split, num_workers=2).batches(1, start))
    assert len(alone) == len(with_workers) == 5 - start
    for (batch, targets), (expected, expected_targets) in zip(with_workers, alone, strict=True):
        assert torch.equal(batch, expected)
        assert torch.equal(targets["number"], expected_targets["number"])


def test_augmentation_differs_between_samples_epochs_and_seeds():
    def noise(loader, epoch):
        found = inputs(loader, epoch)
        return found - found.floor()

    loader = make(Augmented())
    everything = torch.cat([noise(loader, 0), noise(loader, 1), noise(make(Augmented(), seed=4), 0)])
    for generator in range(3):
        assert len(everything[:, generator].unique()) == 3 * COUNT


def test_augmentation_is_drawn_apart_from_the_order():
    class Draws(Dataset):
        def __len__(self):
            return COUNT

        def __getitem__(self, index):
            return torch.initial_seed(), {"number": index}

    order = numbers(make(Draws(), batch_size=COUNT))[0]
    ((seeds, _),) = make(Draws(), batch_size=COUNT).batches()
    again = torch.randperm(COUNT, generator=torch.Generator().manual_seed(seeds[0].item())).tolist()
    assert again != order


@pytest.mark.parametrize("num_workers", [0, 2])
def test_global_generators_are_left_as_they_are(split, num_workers):
    before = global_state()
    batches = islice(make(split, num_workers=num_workers).batches(), 3)
    assert [global_state() == before for _ in batches] == [True] * 3
    assert global_state() == before


def test_generators_of_gpus_are_left_as_they_are(monkeypatch):
    seeds = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    inputs(make(Augmented()))
    assert seeds == []


def test_global_generators_are_restored_when_a_sample_cannot_be_read():
    class Broken(Augmented):
        def __getitem__(self, index):
            super().__getitem__(index)
            raise OSError("unreadable")

    before = global_state()
    with pytest.raises(DataError, match=r"sample [0-9]+ of the split: OSError: unreadable"):
        next(make(Broken()).batches())
    assert global_state() == before


class Holes(Augmented):
    """Sample 7 has an input that is no number."""

    def __getitem__(self, index):
        inputs, targets = super().__getitem__(index)
        return inputs * (torch.nan if index == 7 else 1), targets


@pytest.mark.parametrize("num_workers", [0, 2])
def test_inputs_that_are_no_numbers_are_named(num_workers):
    with pytest.raises(DataError, match=r"^dataset: sample 7: the input holds NaN or an infinite number"):
        list(make(Holes(), num_workers=num_workers).batches())


def test_large_inputs_may_have_a_sum_that_is_not_finite():
    check_finite(torch.full((2, 3), 3e38), [0, 1], "train")


def test_limit_gives_the_first_batches_of_the_epoch(split):
    limited = make(split, limit_batches=2)
    assert (limited.num_batches, make(split, limit_batches=9).num_batches, make(split).num_batches) == (2, 5, 5)
    assert numbers(limited, epoch=1) == numbers(make(split), epoch=1)[:2]
    assert numbers(limited, epoch=1, start=1) == numbers(make(split), epoch=1)[1:2]


@pytest.mark.parametrize(
    ("batch_size", "limit", "size"),
    [(5, None, 3), (5, 2, 5), (5, 5, 3), (23, None, 23), (100, None, 23), (22, None, 1)],
)
def test_smallest_batch_has_the_size_of_the_smallest_of_an_epoch(split, batch_size, limit, size):
    loader = make(split, batch_size, limit_batches=limit)
    batch, targets = loader.smallest_batch()
    assert min(len(batch) for batch in numbers(loader)) == size
    assert len(batch) == size
    assert targets["number"].tolist() == list(range(size))


def test_split_in_memory_gives_samples_and_batches():
    split = TensorSplit(torch.arange(12).view(4, 3), {"a": torch.arange(4), "b": torch.arange(8).view(4, 2)})
    image, targets = split[2]
    assert len(split) == 4
    assert image.tolist() == [6, 7, 8]
    assert {task: target.tolist() for task, target in targets.items()} == {"a": 2, "b": [4, 5]}
    batch, targets = split.batch([3, 0])
    assert batch.tolist() == [[9, 10, 11], [0, 1, 2]]
    assert {task: target.tolist() for task, target in targets.items()} == {"a": [3, 0], "b": [[6, 7], [0, 1]]}


def test_targets_that_are_too_few_are_refused():
    with pytest.raises(ValueError, match="task a has 3 targets for 4 inputs"):
        TensorSplit(torch.zeros(4, 2), {"a": torch.zeros(3)})
