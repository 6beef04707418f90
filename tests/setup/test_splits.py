"""Summaries of the splits in the record: label counts and fingerprints; and the sample IDs in splits.json."""

import json

import pytest
import torch
from helpers import QUICK, read_record, run_folders

from mtlrun.datasets import Loader, MultiDigits, TensorSplit
from mtlrun.datasets.base import as_split
from mtlrun.datasets.tables.inputs.keys import count_repeated, keys_of
from mtlrun.records.record import SplitSummary
from mtlrun.setup import split_summary
from mtlrun.tasks import Classification, Regression

TASKS = {"kind": Classification(3), "size": Regression()}


def make_split(inputs=None, kinds=(0, 1, 2, -1), **options):
    targets = {"kind": torch.tensor(kinds), "size": torch.tensor([1.0, float("nan"), float("nan"), 2.0])}
    return TensorSplit(torch.arange(8.0).view(4, 2) if inputs is None else inputs, targets, **options)


def summarize(split, tasks, limit_batches=None):
    return split_summary.summarize(Loader(split, 2, shuffle=False, limit_batches=limit_batches), tasks)


def test_labels_are_counted_without_missing_ones():
    summary = summarize(make_split(), TASKS)
    assert summary.samples == 4
    assert summary.labeled == {"kind": 3, "size": 2}


@pytest.mark.parametrize(
    "other",
    [
        make_split(inputs=torch.arange(8.0).view(4, 2) + 1),
        make_split(inputs=torch.arange(8.0).view(4, 2).double()),
        make_split(kinds=(0, 1, 1, -1)),
        make_split(sample_ids=[0, 1, 2, 3]),
    ],
)
def test_different_splits_have_different_fingerprints(other):
    assert summarize(make_split(), TASKS).fingerprint == summarize(make_split(), TASKS).fingerprint
    assert summarize(make_split(), TASKS).fingerprint != summarize(other, TASKS).fingerprint


def test_a_split_without_targets_is_summarized_by_its_number_of_samples():
    summary = summarize(as_split([0, 1, 2]), TASKS)
    assert (summary.samples, summary.labeled, summary.fingerprint) == (3, {}, None)
    assert (summary.available, summary.repeated) == (3, None)


def test_the_record_holds_counts_and_fingerprints_that_no_seed_changes(quick):
    first, second = (read_record(quick(f"seed={seed}"))["splits"] for seed in (0, 1))
    assert first == second
    assert len({split["fingerprint"] for split in first.values()}) == 3
    assert first["train"]["labeled"] == {"left": 1024, "right": 1024}  # 4 batches of 256
    assert first["train"]["available"] == 1077
    other = read_record(quick("dataset.pairs_seed=1"))["splits"]
    assert other["train"]["fingerprint"] != first["train"]["fingerprint"]


@pytest.mark.parametrize(("limit", "samples", "labeled"), [(1, 2, {"kind": 2, "size": 1}), (2, 4, None), (9, 4, None)])
def test_counts_are_those_of_the_batches_that_are_used(limit, samples, labeled):
    whole, summary = (summarize(make_split(), TASKS, limit_batches=n) for n in (None, limit))
    assert (summary.samples, summary.available) == (samples, 4)
    assert summary.labeled == (labeled or whole.labeled)
    assert summary.fingerprint == whole.fingerprint


def test_limit_batches_shows_on_the_screen_and_in_the_record(mtlrun):
    options = [option for option in QUICK if "quiet" not in option and "limit_batches" not in option]
    code, out, err = mtlrun(*options, "trainer.limit_batches=2", "trainer.eval_batch_size=100", "trainer.epochs=1")
    assert code == 0, err
    lines = [line.split() for line in out.splitlines()]
    assert ["all", "1,077", "360", "360"] in lines
    assert ["used", "512", "200", "200"] in lines
    splits = read_record(run_folders()[0])["splits"]
    assert {name: split["labeled"] for name, split in splits.items()} == {
        "train": {"left": 512, "right": 512},
        "val": {"left": 200, "right": 200},
        "test": {"left": 200, "right": 200},
    }


def test_keys_are_equal_for_equal_vectors_and_for_no_others():
    generator = torch.Generator().manual_seed(0)
    # Vectors of small whole numbers, and neighbors in float32: they differ in few bits.
    grid = torch.cartesian_prod(*[torch.arange(12.0)] * 4)
    near = torch.ones(5000, 3)
    near[:, 1] += torch.arange(5000) * 2.0**-23
    near[:, 2] -= torch.arange(5000) * 2.0**-24
    for vectors in (grid, grid.flip(1), near, grid.to(torch.int64), grid.double() * 1e-300):
        keys = keys_of(vectors)
        assert len(set(keys.tolist())) == len(vectors)
        order = torch.randperm(len(vectors), generator=generator)
        assert keys_of(vectors[order]).tolist() == keys[order.numpy()].tolist()
    assert keys_of(torch.tensor([[0.0, 1], [-0.0, 1]])).tolist()[0] == keys_of(torch.tensor([[-0.0, 1]])).tolist()[0]
    assert count_repeated(keys_of(grid[:100]), keys_of(grid.flip(0)[:-50])) == 50


def write_table(path, rows):
    lines = ["width,height,shape,split", *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join([*lines, ""]))


TABLE = [
    "dataset=csv", "dataset.path=table.csv", "dataset.split_column=split", "+task@tasks.shape=binary", "trainer=smoke",
    "trainer.batch_size=10", "backbone=mlp",
]  # fmt: skip


def test_rows_of_a_table_that_are_also_in_training_are_counted_and_said(mtlrun, tmp_path):
    rows = [(number, number % 7, number % 2, "train") for number in range(30)]
    rows += [(number + 0.5, number % 5, number % 2, "val") for number in range(10)]
    rows += [(number, number % 7, 1 - number % 2, "test") for number in range(25, 33)]  # five of these, other labels
    rows += [(3.5, 3, 1, "test"), (3.5, 3, 0, "test")]  # in val
    write_table(tmp_path / "table.csv", rows)
    code, out, err = mtlrun(*TABLE)
    assert code == 0, err
    record = read_record(run_folders()[0])
    assert [record["splits"][name]["repeated"] for name in ("train", "val", "test")] == [None, 0, 5]
    assert [record["splits"][name]["repeated_in_val"] for name in ("train", "val", "test")] == [None, None, 2]
    line = (
        "5 of 10 test samples have the same inputs as a training sample, 2 of 10 test samples have the same inputs as "
        "a validation sample; metrics on them may be too good"
    )
    assert [note for note in record["notes"] if "same inputs" in note] == [line]
    assert line in " ".join(out.split())


def test_a_line_on_repeated_samples_is_worth_it_from_one_percent_on():
    def lines(samples, repeated, in_val=0):
        counts = {"train": (900, None, None), "val": (samples, 0, None), "test": (samples, repeated, in_val)}
        return split_summary.describe_repeated(
            {name: SplitSummary(number, {}, None, number, *others) for name, (number, *others) in counts.items()}
        )

    assert lines(500, 4, 4) == lines(500, 0) == []
    assert lines(500, 5, 4)[0].startswith("5 of 500 test samples have the same inputs as a training sample; ")
    assert lines(20, 1)[0].startswith("1 of 20 test samples has the same inputs as a training sample; ")
    assert lines(20, 0, 1)[0].startswith("1 of 20 test samples has the same inputs as a validation sample; ")


def test_a_single_row_is_counted_too_and_only_those_that_are_used():
    train = Loader(make_split(), 2, shuffle=True)
    keys = split_summary.keys_of_split(train.split)
    one = TensorSplit(torch.tensor([[2.0, 3.0]]), {})
    assert split_summary.summarize(Loader(one, 2, shuffle=False), {}, train=keys).repeated == 1
    for limit, repeated in ((1, 1), (2, 2), (None, 2)):
        other = TensorSplit(torch.tensor([[2.0, 3.0], [9, 9], [9, 8], [6, 7]]), {})
        loader = Loader(other, 2, shuffle=False, limit_batches=limit)
        assert split_summary.summarize(loader, {}, train=keys).repeated == repeated
    assert split_summary.keys_of_split(TensorSplit(torch.zeros(5, 2), {})) is None


def test_nothing_is_said_where_no_row_is_repeated_or_all_inputs_are_the_same(mtlrun, tmp_path):
    write_table(tmp_path / "table.csv", [(n, n % 3, n % 2, ("train", "val", "test")[n % 3]) for n in range(30)])
    for options in (TABLE, ["dataset=toy2d", "dataset.num_train=4", "trainer=smoke"]):
        code, _, err = mtlrun(*options)
        assert code == 0, err
    notes = [note for folder in run_folders() for note in read_record(folder)["notes"]]
    assert not [note for note in notes if "same inputs" in note]


def test_the_screen_counts_missing_labels(mtlrun, monkeypatch):
    plain = MultiDigits.split

    def split(self, name):
        found = plain(self, name)
        if name == "train":
            found.targets["right"][:77] = -1
        found.sample_ids = [f"{name}-{number}" for number in range(len(found))]
        return found

    monkeypatch.setattr(MultiDigits, "split", split)
    code, out, err = mtlrun(*[option for option in QUICK if "quiet" not in option and "limit" not in option])
    assert code == 0, err
    lines = [line.split() for line in out.splitlines()]
    assert ["all", "1,077", "360", "360"] in lines
    assert ["with", "right", "1,000", "360", "360"] in lines
    assert not any(line[:2] == ["with", "left"] for line in lines)
    (folder,) = run_folders()
    names = json.loads((folder / "splits.json").read_text())
    assert names["val"][:2] == ["val-0", "val-1"]
    assert [len(names[split]) for split in ("train", "val", "test")] == [1077, 360, 360]
