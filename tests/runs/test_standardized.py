"""Standardized targets, from a table to the record: what a task learns, and the unit of its results."""

import json
from pathlib import Path

import numpy
import pytest
import torch
import yaml
from helpers import CONF, read_record, run_folders, train_until_step

from mtlrun.config.compose import compose
from mtlrun.runs.run import run
from mtlrun.setup.prepare import prepare

GENERATOR = numpy.random.default_rng(0)
AREA = GENERATOR.normal(100, 30, 120)
#: Far from 0, in units far from 1: seconds since 1970, and counts of thousands.
SOLD_AT = 1_700_000_000 + numpy.round(AREA)
VISITS = GENERATOR.poisson(5000 * numpy.exp(AREA / 100))
PART = numpy.array(["train", "val", "test"])[numpy.arange(120) % 10 // 7 + (numpy.arange(120) % 10 == 9)]
KEYS = [
    "dataset=csv", "dataset.path=shops.csv", "dataset.split_column=part", "+task@tasks.sold_at=regression",
    "+task@tasks.visits=count", "backbone.hidden=[16]", "trainer.batch_size=16", "trainer.epochs=2",
    "runtime.quiet=true",
]  # fmt: skip


def write(weights=None):
    columns = {"part": PART, "area": AREA, "sold_at": SOLD_AT.astype(int), "visits": VISITS}
    columns |= {} if weights is None else {"w": weights}
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    Path("shops.csv").write_text("\n".join(lines) + "\n")


def learned(*overrides):
    return prepare(compose([*KEYS, *overrides])).learned["tasks"]


def test_targets_of_any_unit_are_learned_at_once_and_results_are_in_the_unit_of_the_file(mtlrun):
    write()
    code, _, err = mtlrun(*KEYS, "trainer.epochs=40", "optimizer.lr=0.01", "seed=3")
    assert code == 0, err
    (folder,) = run_folders()
    record, test = read_record(folder), PART == "test"
    for task, numbers in (("sold_at", SOLD_AT), ("visits", VISITS)):
        assert record["test"][task]["rmse"] < 0.5 * numbers[test].std()
        assert record["trivial"]["test"][task]["rmse"] == pytest.approx(numbers[test].std(), rel=1e-6)
    assert record["trivial"]["test"]["sold_at"]["r2"] == pytest.approx(0, abs=1e-6)
    assert record["learned"]["tasks"] == json.loads((folder / "learned.json").read_text())["tasks"]
    assert record["learned"]["tasks"]["visits"]["mean"] == pytest.approx(VISITS[PART == "train"].mean())
    seconds = record["learned"]["tasks"]["sold_at"]
    assert seconds == {
        "means": [pytest.approx(SOLD_AT[PART == "train"].mean(), rel=1e-15)],
        "stds": [pytest.approx(SOLD_AT[PART == "train"].std(), rel=1e-12)],
    }


def test_what_a_task_learns_depends_on_the_training_split_alone():
    write()
    expected = learned()
    assert learned("trainer.limit_batches=1", "seed=5", "trainer.batch_size=7") == expected
    assert learned("dataset.split_column=null", "dataset.split_seed=1") != expected
    outliers = PART != "train"
    outliers[numpy.flatnonzero(PART == "train")[:20]] = True
    write(weights=numpy.where(outliers, 0, 2))
    weighted = learned("dataset.weight_column=w")  # rows of weight 0 are not trained on
    assert weighted["visits"]["mean"] == pytest.approx(VISITS[~outliers].mean())
    assert weighted["sold_at"]["stds"] == [pytest.approx(SOLD_AT[~outliers].std())]
    assert learned("dataset.weight_column={visits: w}")["sold_at"] == expected["sold_at"]


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(monkeypatch):
    write()
    whole = run(compose([*KEYS, "runtime.root=whole"]))
    config = compose([*KEYS, "runtime.root=parts"])
    train_until_step(config, 5, monkeypatch)
    continued = run(config)
    assert continued.resumed == 1
    for part in ("val", "test", "selection", "skills", "trivial", "learned", "splits"):
        assert getattr(continued, part) == getattr(whole, part), part


def test_published_sets_of_numbers_are_not_standardized():
    found = []
    for path in sorted((CONF / "dataset").glob("*.yaml")):
        content = yaml.safe_load(path.read_text())
        added = [entry for entry in content.get("defaults", []) if isinstance(entry, dict)]
        for key, kinds in ((key, kinds) for entry in added for key, kinds in entry.items()):
            if {"regression", "count"} & set(kinds if isinstance(kinds, list) else [kinds]):
                found.append(path.stem)
                assert content["tasks"][key.rpartition(".")[2]]["standardize"] is False, path
    assert {"kendall_toy", "gradnorm_toy", "mmoe_synthetic"} <= {*found}


@pytest.mark.parametrize("key", ["dataset.standardize_targets=[sold_at]", "+dataset.standardize_targets=[sold_at]"])
def test_the_key_of_earlier_versions_is_refused_with_what_replaces_it(mtlrun, key):
    write()
    code, _, err = mtlrun(*KEYS, key)
    assert code == 2
    assert "dataset.standardize_targets is no longer a key" in err
    assert "tasks.sold_at.standardize=true" in err
    assert not Path("outputs").exists()
    assert len(err.strip().splitlines()) == 1, err


def test_standardizing_can_be_left_out():
    write()
    parts = prepare(compose([*KEYS, "tasks.sold_at.standardize=false", "tasks.visits.standardize=false"]))
    assert "tasks" not in parts.learned
    prediction = torch.tensor([[1.0], [2.0]])
    assert torch.equal(parts.tasks["sold_at"].metric_inputs(prediction, torch.zeros(2))[0], prediction[:, 0].double())
    assert torch.equal(parts.tasks["visits"].log_rate(prediction), prediction[:, 0].double())
