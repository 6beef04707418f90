"""Doubts about a run: few steps, small splits and unsuitable targets are on the screen and in the record."""

from contextlib import nullcontext
from pathlib import Path

import numpy
import pytest
import torch
from helpers import read_record, run_folders
from scipy.stats import binomtest

from mtlrun.config.compose import compose
from mtlrun.errors import ConfigError
from mtlrun.records.record import SplitSummary
from mtlrun.setup.doubts import doubt_splits
from mtlrun.setup.prepare import prepare
from mtlrun.tasks import Classification, Count, Regression

KEYS = ["dataset=csv", "dataset.path=table.csv", "+task@tasks.y=regression", "+task@tasks.k=binary"]
RANDOM = numpy.random.default_rng(0)


def write(rows, y=None):
    y = RANDOM.normal(size=rows) if y is None else y
    lines = [f"{RANDOM.normal():.6f},{y[row]},{RANDOM.choice(['no', 'yes'])}" for row in range(rows)]
    Path("table.csv").write_text("\n".join(["x,y,k", *lines]) + "\n")


def notes(*overrides):
    return prepare(compose([*KEYS, *overrides])).notes


def test_doubts_are_on_the_screen_and_in_the_record(mtlrun):
    write(60)
    code, out, err = mtlrun(*KEYS, "trainer.epochs=2", "trainer.batch_size=16")
    assert code == 0, err
    record = read_record(run_folders()[0])
    train, small, steps = record["notes"]
    assert train == "the train split has 42 samples: little can be learned from so few"
    assert small.startswith("the val split has 9 samples and the test split has 9 samples: with 9, an accuracy of 0.78")
    assert small.endswith("-m study=folds tests on every row")
    assert steps == (
        "the run makes 6 steps (2 epochs of 3 batches), and a network needs hundreds to learn anything; set "
        "trainer.epochs=167, say, or a smaller trainer.batch_size"
    )
    assert all(note in out.split("epoch 1,")[0] for note in record["notes"])


def test_folds_are_advised_where_they_are_allowed_alone():
    table = ["x,day,k,part"]
    table += [f"{RANDOM.normal():.6f},{row},{'no' if row % 2 else 'yes'},{('train', 'val', 'test')[row // 4 % 3]}"
              for row in range(60)]  # fmt: skip
    for name in ("table", "other"):
        Path(f"{name}.csv").write_text("\n".join(table) + "\n")
    keys = ["dataset=csv", "dataset.path=table.csv", "+task@tasks.k=binary", "dataset.inputs=[x]"]
    for others, allowed in [
        ([], True), (["dataset.split_column=part"], False), (["dataset.time_column=day"], False),
        (["dataset.path={train:table.csv,test:other.csv}"], False),
    ]:  # fmt: skip
        found = [note for note in prepare(compose([*keys, *others])).notes if "the val split has" in note]
        assert len(found) == 1
        assert ("study=folds" in found[0]) == allowed
        folds = ["dataset.num_folds=5", "dataset.fold=0"]
        with nullcontext() if allowed else pytest.raises(ConfigError, match="num_folds must be null"):
            prepare(compose([*keys, *others, *folds]))


def test_enough_rows_and_steps_raise_no_doubt():
    write(400)
    assert notes("trainer.batch_size=16", "trainer.epochs=6", "scheduler.warmup_epochs=6") == []


def test_a_warm_up_that_the_training_does_not_outlast_is_pointed_out():
    write(400)
    assert notes("trainer.batch_size=16", "trainer.epochs=6", "scheduler.warmup_epochs=8") == [
        "scheduler.warmup_epochs=8 is longer than the training, 6 epochs: the learning rates rise to 75 % of their "
        "values only"
    ]
    few = notes("trainer.batch_size=400", "trainer.epochs=99")
    assert few[0].startswith("the run makes 99 steps (99 epochs of 1 batch)")
    assert notes("trainer.epochs=null", "trainer.steps=99")[0].endswith("set trainer.steps=500, say")
    assert notes("trainer.batch_size=16", "trainer.limit_batches=2", "trainer.epochs=1") == []  # a trial


@pytest.mark.parametrize("samples", [5, 34, 49])
def test_the_interval_of_an_accuracy_is_that_of_scipy(samples):
    def summary(number):
        return SplitSummary(samples=number, labeled={}, fingerprint=None, available=number)

    splits = {"train": summary(900), "val": summary(100), "test": summary(samples)}
    (line,) = doubt_splits(splits, {"k": Classification(3)}, {})
    low, high = binomtest(round(0.8 * samples), samples).proportion_ci(method="wilson")
    assert f"may be anything from {low:.2f} to {high:.2f} (95 % interval)" in line
    (line,) = doubt_splits(splits, {"y": Regression()}, {})
    errors = RANDOM.normal(size=(20_000, samples))
    measured = numpy.sqrt(numpy.square(errors).mean(axis=1))
    percent = float(line.split("within ")[1].split(" %")[0]) / 100
    assert (numpy.abs(measured - 1) < percent).mean() == pytest.approx(0.95, abs=0.02)


def test_numbers_far_from_1_that_are_learned_as_they_are_are_pointed_out():
    write(400, 2e5 + 5e4 * RANDOM.normal(size=400))
    long = ["trainer.batch_size=16", "trainer.epochs=6"]
    assert notes(*long) == []
    (line,) = notes(*long, "tasks.y.standardize=false")
    assert line.startswith("task y: numbers of about 2.0")
    assert line.endswith("set tasks.y.standardize=true")


@pytest.mark.parametrize(
    ("task", "target", "expected"),
    [
        (Regression(), [1e-5, 2e-5, 3e-5], "numbers that differ by 8.16e-06"), (Regression(), [1.0, 2.0, 50.0], None),
        (Regression(standardize=True), [1e-5, 2e9, 3e-5], None), (Count(), [5000, 0, 100], "numbers of about 2.89e+03"),
        (Count(standardize=True), [5000, 0, 100], None), (Count(), [5, 0, 1], None),
        (Regression(), [3.0, 3.0, 3.0], "all labels for training are the same"),
        (Regression(2, standardize=True), [[1.0, 2.0], [3.0, 2.0]], "number 1: all labels for training are the same"),
        (Regression(2, standardize=True), [[1.0, 20.0], [3.0, 2000.0]], "its numbers spread from 1 to 990, so rmse"),
        (Regression(2, standardize=True), [[1.0, 2.0], [3.0, 20.0]], None),
    ],
)  # fmt: skip
def test_tasks_doubt_targets_they_learn_badly(task, target, expected):
    found = task.doubt_targets(torch.tensor(target), "tasks.y")
    assert [line.startswith(expected) for line in found] == ([True] if expected else [])


@pytest.mark.parametrize("dataset", ["kendall_toy", "gradnorm_toy", "mmoe_synthetic", "multidigits", "toy2d"])
def test_shipped_data_raise_no_doubt(dataset):
    assert prepare(compose([f"dataset={dataset}", "trainer.steps=500", "trainer.epochs=null"])).notes == []
