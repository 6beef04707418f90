"""Batches of several sources."""

from collections import Counter
from itertools import chain

import pytest
import torch
import yaml
from helpers import read_record, run_folders
from torch.utils.data import Dataset

from mtlrun.datasets import Loader, MultiTaskDataset, Sampling, TensorSplit
from mtlrun.datasets.batches.sampling import draws_per_epoch
from mtlrun.errors import ConfigError, DataError

# 12 samples of a, 6 of b, 3 of c; not in one piece, since nothing says that they are.
SOURCES = {"a": torch.arange(0, 24, 2), "b": torch.arange(1, 12, 2), "c": torch.tensor([13, 15, 17])}
SIZES = [12, 6, 3]
ALL = ["proportional", "round_robin", "temperature", "cycle", "min"]


def source_of(index):
    return next(name for name, source in SOURCES.items() if index in source)


def counts(batch):
    found = Counter(source_of(index) for index in batch.tolist())
    return [found[name] for name in SOURCES]


def plan(epoch=0, seed=0, batch_size=6, **options):
    return Sampling(**options).plan(SOURCES, batch_size, seed, epoch)


def drawn(batches, source):
    return [index for index in chain(*(batch.tolist() for batch in batches)) if source_of(index) == source]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"strategy": "proportional"}, [12, 6, 3]),
        ({"strategy": "round_robin"}, [12, 12, 12]),
        ({"strategy": "cycle"}, [12, 12, 12]),
        ({"strategy": "min"}, [3, 3, 3]),
        # 21 samples by 12 : 6 : 3 and, for square roots, by 3.464 : 2.449 : 1.732, that is 9.51, 6.73 and 4.76.
        ({"strategy": "temperature", "temperature": 1.0}, [12, 6, 3]),
        ({"strategy": "temperature", "temperature": 2.0}, [9, 7, 5]),
        ({"strategy": "temperature", "temperature": 1e6}, [7, 7, 7]),
        # 1e-3 would leave b and c without any.
        ({"strategy": "temperature", "temperature": 1e-3}, [19, 1, 1]),
        # 7 batches of 6 samples: twice the split.
        ({"strategy": "proportional", "epoch_length": 7}, [24, 12, 6]),
        ({"strategy": "min", "epoch_length": 7}, [14, 14, 14]),
        ({"strategy": "proportional", "epoch_length": 7, "batches": "single"}, [24, 12, 6]),
        ({"strategy": "cycle", "epoch_length": 7}, [18, 12, 12]),
    ],
)
def test_counts_of_an_epoch(options, expected):
    sampling = Sampling(**options)
    assert sampling.counts(SIZES, 6) == expected
    batches = plan(**options)
    assert counts(torch.cat(batches)) == expected
    assert sampling.num_batches(SIZES, 6) == len(batches) == options.get("epoch_length", len(batches))


def test_mixed_batches_have_the_batch_size_but_for_the_last():
    assert [len(batch) for batch in plan(strategy="proportional")] == [6, 6, 6, 3]
    assert [len(batch) for batch in plan(strategy="round_robin")] == [6] * 6
    assert [len(batch) for batch in plan(strategy="min", batch_size=5)] == [5, 4]


@pytest.mark.parametrize("strategy", ["round_robin", "min"])
def test_mixed_batches_in_turn_have_equally_many_of_each_source(strategy):
    assert [counts(batch) for batch in plan(strategy=strategy, batch_size=3)] == [[1, 1, 1]] * (
        12 if strategy == "round_robin" else 3
    )
    for batch in plan(strategy=strategy, batch_size=4):
        assert max(counts(batch)) - min(counts(batch)) <= 1


def test_sources_are_shuffled_within_a_batch():
    first = {source_of(int(batch[0])) for batch in plan(strategy="round_robin")}
    assert len(first) > 1


@pytest.mark.parametrize("strategy", ALL)
def test_single_batches_are_of_one_source(strategy):
    batches = plan(strategy=strategy, batches="single", batch_size=5)
    assert all(sorted(counts(batch))[:2] == [0, 0] for batch in batches)
    per_source = {name: [len(batch) for batch in batches if source_of(int(batch[0])) == name] for name in SOURCES}
    quota = Sampling(strategy).counts(SIZES, 5)
    assert {name: sorted(lengths) for name, lengths in per_source.items()} == {
        name: sorted([5] * (count // 5) + [count % 5] * (count % 5 > 0))
        for name, count in zip(SOURCES, quota, strict=True)
    }


def test_cycle_takes_the_sources_in_a_fixed_order():
    order = [source_of(int(batch[0])) for batch in plan(strategy="cycle")]
    assert order == ["a", "b", "c"] * 2


def test_single_batches_take_turns_in_an_order_that_changes():
    order = [source_of(int(batch[0])) for batch in plan(strategy="round_robin", batches="single", batch_size=1)]
    turns = [tuple(order[start : start + 3]) for start in range(0, len(order), 3)]
    assert {tuple(sorted(turn)) for turn in turns} == {("a", "b", "c")}
    assert len(set(turns)) > 1


def test_proportional_single_batches_are_shuffled():
    order = [source_of(int(batch[0])) for batch in plan(batches="single", batch_size=1)]
    assert order != sorted(order)


@pytest.mark.parametrize("strategy", ALL)
@pytest.mark.parametrize("batches", [None, "single"])
@pytest.mark.parametrize("epoch_length", [None, 4])
def test_no_sample_comes_twice_before_all_of_its_source_have_come(strategy, batches, epoch_length):
    # Batch by batch, over epochs that end in the middle of passes.
    sampling = Sampling(strategy, batches, epoch_length=epoch_length)
    times = Counter()
    for batch in chain(*(sampling.plan(SOURCES, 4, 0, epoch) for epoch in range(9))):
        times.update(batch.tolist())
        for source in SOURCES.values():
            seen = [times[index] for index in source.tolist()]
            assert max(seen) - min(seen) <= 1
    assert all(times.values())


def test_passes_come_one_after_the_other_and_each_in_another_order():
    once = drawn(plan(strategy="cycle"), "c")
    passes = [once[start : start + 3] for start in range(0, 12, 3)]
    assert [sorted(found) for found in passes] == [[13, 15, 17]] * 4
    assert len({tuple(found) for found in passes}) > 1


def test_a_pass_goes_on_in_the_next_epoch():
    first, second = (drawn(plan(epoch, strategy="min", batch_size=1), "a") for epoch in (0, 1))
    assert len(first) == len(second) == 3
    assert not set(first) & set(second)


@pytest.mark.parametrize("strategy", ALL)
@pytest.mark.parametrize("batches", [None, "single"])
def test_the_plan_follows_from_seed_and_epoch(strategy, batches):
    def numbers(epoch, seed):
        found = [batch.tolist() for batch in plan(epoch, seed, strategy=strategy, batches=batches)]
        torch.rand(3)  # the global generator has no part in it
        return found

    assert numbers(3, 1) == numbers(3, 1)
    assert numbers(3, 1) != numbers(4, 1)
    assert numbers(3, 1) != numbers(3, 2)


def test_sources_of_equal_size_have_different_orders():
    sources = {"a": torch.arange(50), "b": torch.arange(50, 100)}
    (batch,) = Sampling("cycle").plan(sources, 50, 0, 0)[:1]
    (other,) = Sampling("cycle").plan(sources, 50, 0, 0)[1:]
    assert (other - 50).tolist() != batch.tolist()


def test_very_unequal_sizes_and_low_temperatures_leave_each_source_a_sample():
    assert Sampling("temperature", temperature=0.01).counts([10**6, 10], 100) == [10**6 + 9, 1]
    assert Sampling(epoch_length=1).counts([10**6, 10, 1], 4) == [2, 1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"strategy": "cycle", "batches": "mixed"},
            "batches must be single, or null, with strategy=cycle, found mixed",
        ),
        ({"temperature": 0.0}, "temperature must be > 0, found 0.0"),
        ({"epoch_length": 0}, "epoch_length must be >= 1, or null for the strategy's own, found 0"),
    ],
)
def test_arguments_out_of_bounds_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batches": "single", "epoch_length": 2}, "epoch_length=2: so many batches of one source each have no place"),
        ({"epoch_length": 1}, "epoch_length=1: so many batches of 2 samples have no place for each of the 3 sources"),
    ],
)
def test_epochs_too_short_for_all_sources_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Sampling(**options).counts(SIZES, 2)


def test_draws_per_epoch_by_hand():
    labeled = {"one": torch.tensor([True, False, True, False]), "two": torch.tensor([False, True, False, False])}
    batches = [torch.tensor([0, 1, 0]), torch.tensor([3, 1, 2, 0])]
    assert draws_per_epoch(batches, labeled) == {"one": (2, 4), "two": (1, 2)}


# ------------------------------------------------------------------------------------------------ in the loader


class Lazy(Dataset):
    """Each sample is its index."""

    sources = SOURCES

    def __len__(self):
        return 24

    def __getitem__(self, index):
        return torch.tensor(float(index)), {"number": torch.tensor(index)}


def in_memory():
    split = TensorSplit(torch.arange(24.0), {"number": torch.arange(24)})
    split.sources = SOURCES
    return split


def make(split, **options):
    return Loader(split, 5, **({"shuffle": True, "seed": 3, "sampling": Sampling("round_robin")} | options))


def numbers(loader, epoch=0, start=0):
    return [targets["number"].tolist() for _, targets in loader.batches(epoch, start)]


@pytest.mark.parametrize("split", [in_memory(), Lazy()], ids=["in memory", "lazy"])
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("start", [0, 5])
def test_loader_gives_the_plan_from_any_position_on(split, num_workers, start):
    expected = [batch.tolist() for batch in plan(4, 3, 5, strategy="round_robin")]
    loader = make(split, num_workers=num_workers)
    assert loader.num_batches == len(expected) == 8
    assert numbers(loader, 4, start) == expected[start:]


def test_without_sampling_nothing_changes():
    plain = TensorSplit(torch.arange(24.0), {"number": torch.arange(24)})
    assert numbers(make(in_memory(), sampling=None)) == numbers(make(plain, sampling=None))
    ordered = make(in_memory(), sampling=None, shuffle=False)
    assert list(chain(*numbers(ordered, 2))) == list(range(24))


def test_limit_cuts_the_epoch():
    assert numbers(make(in_memory(), limit_batches=3)) == numbers(make(in_memory()))[:3]
    assert make(in_memory(), limit_batches=3).num_batches == 3


def test_orders_with_an_independent_seed_are_unrelated():
    loader = make(in_memory())
    assert numbers(loader.with_independent_seed()) != numbers(loader)


@pytest.mark.parametrize(
    ("sampling", "limit", "size"),
    [
        (Sampling("round_robin"), None, 1),  # 36 samples
        (Sampling("round_robin"), 3, 5),
        (Sampling("min"), None, 4),
        (Sampling("proportional", "single"), None, 1),  # of b, after one of 5
        (Sampling("proportional", "single"), 1, 1),
    ],
)
def test_smallest_batch_has_the_size_of_the_smallest_and_samples_of_all_sources(sampling, limit, size):
    _, targets = make(in_memory(), sampling=sampling, limit_batches=limit).smallest_batch()
    assert targets["number"].tolist() == [0, 1, 13, 2, 3][:size]


def test_draws_are_those_of_the_batches_that_are_given():
    masks = {name: torch.isin(torch.arange(24), source) for name, source in SOURCES.items()}
    assert make(in_memory()).draws_per_epoch(masks) == {"a": (12, 12), "b": (6, 12), "c": (3, 12)}
    assert make(in_memory(), limit_batches=3).draws_per_epoch(masks) == {"a": (12, 5), "b": (6, 5), "c": (3, 5)}


def test_splits_without_sources_and_empty_sources_are_refused():
    with pytest.raises(ConfigError, match="sampling is for datasets whose samples come from several sources"):
        make(TensorSplit(torch.zeros(3), {}))
    split = in_memory()
    split.sources = SOURCES | {"d": torch.tensor([], dtype=torch.int64)}
    with pytest.raises(DataError, match="source d has no samples in the split"):
        make(split)


# ----------------------------------------------------------------------------------------------- in the program


class TwoSources(MultiTaskDataset):
    """Ten samples with a label of task one, five with a label of task two."""

    input_shape = (3,)
    task_names = ("one", "two")

    def __init__(self, sampling: Sampling | None = None) -> None:
        self.sampling = sampling

    def split(self, name):
        inputs = torch.arange(45.0).view(15, 3) / 45
        one, two = inputs[:, 0].clone(), inputs[:, 1].clone()
        one[10:], two[:10] = torch.nan, torch.nan
        split = TensorSplit(inputs, {"one": one, "two": two})
        split.sources = {"one": torch.arange(10), "two": torch.arange(10, 15)}
        return split


@pytest.fixture
def two_sources(mtlrun, tmp_path):
    """Return a function that trains on TwoSources with more overrides: (exit code, log, standard error)."""
    node = {"_target_": f"{__name__}.TwoSources"}
    sampling = {"_target_": "mtlrun.datasets.Sampling", "strategy": "proportional", "batches": None}
    task = {"_target_": "mtlrun.tasks.Regression"}
    content = {"dataset": node | {"sampling": sampling}, "tasks": {"one": task, "two": task}}
    file = tmp_path / "conf" / "dataset" / "two_sources.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\n" + yaml.safe_dump(content))

    def run(*arguments):
        code, _, err = mtlrun(
            "--config-dir", "conf", "dataset=two_sources", "backbone=mlp", "backbone.hidden=[4]",
            "trainer.batch_size=4", "trainer.epochs=2", "runtime.quiet=true", *arguments,
        )  # fmt: skip
        logs = [(folder / "run.log").read_text() for folder in run_folders()]
        return code, "".join(logs), err

    return run


def test_sampling_is_a_key_of_the_dataset_and_its_draws_are_logged(two_sources):
    code, log, err = two_sources("dataset.sampling.strategy=round_robin")
    assert code == 0, err
    assert "task one: 10 samples, 10 drawn per epoch, 2 passes in all" in log
    assert "task two: 5 samples, 10 drawn per epoch, 4 passes in all" in log
    assert read_record(run_folders()[0])["steps"] == 10  # 20 samples an epoch


def test_a_wrong_strategy_is_refused_before_anything_is_written(two_sources):
    code, _, err = two_sources("dataset.sampling.strategy=rund_robin")
    assert code == 2
    assert "dataset.sampling.strategy must be one of 'proportional', 'round_robin'" in err
    code, _, err = two_sources("+dataset.sampling.epoch_length=1", "dataset.sampling.batches=single")
    assert code == 2
    assert "dataset.sampling.epoch_length=1: so many batches of one source each have no place for each of the 2" in err
    assert not run_folders()


class Hole(TwoSources):
    def split(self, name):
        split = super().split(name)
        if name == "val":
            split.inputs[3, 1] = torch.inf
        return split


def test_an_input_that_is_no_number_is_named_before_the_run(two_sources):
    code, _, err = two_sources(f"dataset._target_={__name__}.Hole")
    assert code == 2
    assert "dataset: val split, sample 3: the input holds NaN or an infinite number; only labels may be missing" in err
    assert not run_folders()
