"""Summaries of the splits in the record: label counts and fingerprints; and the sample IDs in splits.json."""

import json

import pytest
import torch
from helpers import QUICK, read_record, run_folders

from mtlrun.datasets import MultiDigits, TensorSplit
from mtlrun.datasets.base import as_split
from mtlrun.setup.split_summary import summarize
from mtlrun.tasks import Classification, Regression

TASKS = {"kind": Classification(3), "size": Regression()}


def make_split(inputs=None, kinds=(0, 1, 2, -1), **options):
    targets = {"kind": torch.tensor(kinds), "size": torch.tensor([1.0, float("nan"), float("nan"), 2.0])}
    return TensorSplit(torch.arange(8.0).view(4, 2) if inputs is None else inputs, targets, **options)


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


def test_the_record_holds_counts_and_fingerprints_that_no_seed_changes(quick):
    first, second = (read_record(quick(f"seed={seed}"))["splits"] for seed in (0, 1))
    assert first == second
    assert len({split["fingerprint"] for split in first.values()}) == 3
    assert first["train"]["labeled"] == {"left": 1077, "right": 1077}
    other = read_record(quick("dataset.pairs_seed=1"))["splits"]
    assert other["train"]["fingerprint"] != first["train"]["fingerprint"]


def test_the_screen_counts_missing_labels(mtlrun, monkeypatch):
    plain = MultiDigits.split

    def split(self, name):
        found = plain(self, name)
        if name == "train":
            found.targets["right"][:77] = -1
        found.sample_ids = [f"{name}-{number}" for number in range(len(found))]
        return found

    monkeypatch.setattr(MultiDigits, "split", split)
    code, out, err = mtlrun(*[option for option in QUICK if "quiet" not in option])
    assert code == 0, err
    lines = [line.split() for line in out.splitlines()]
    assert ["all", "1,077", "360", "360"] in lines
    assert ["with", "right", "1,000", "360", "360"] in lines
    assert not any(line[:2] == ["with", "left"] for line in lines)
    (folder,) = run_folders()
    names = json.loads((folder / "splits.json").read_text())
    assert names["val"][:2] == ["val-0", "val-1"]
    assert [len(names[split]) for split in ("train", "val", "test")] == [1077, 360, 360]
