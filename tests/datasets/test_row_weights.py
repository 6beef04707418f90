"""Weights of rows, and of tasks by their size, from a table to the curves."""

import json
from pathlib import Path

import pytest
import torch
from helpers import run_folders

from mtlrun.datasets import Loader, Table, TensorSplit
from mtlrun.errors import DataError

COLUMNS = ["part", "a", "b", "y", "k", "w"]
ROWS = [("train", "pq"[n // 4 % 2], "uvw"[n % 3], n if n % 2 else "", "ab"[n % 2], n % 4) for n in range(24)]
ROWS += [(part, "p", "u", 1.0, "a", 5) for part in ("val", "test") for _ in range(4)]
CSV = [
    "dataset=csv", "dataset.path=rows.csv", "dataset.split_column=part", "+task@tasks.y=regression",
    "+task@tasks.k=classification", "trainer.epochs=1", "trainer.batch_size=64", "trainer.log_every=1",
    "runtime.quiet=true",
]  # fmt: skip


def write(rows=ROWS):
    Path("rows.csv").write_text("\n".join(",".join(map(str, row)) for row in [COLUMNS, *rows]) + "\n")


def table(**options):
    given = {"split_column": "part", "weight_column": "w", "tasks": ["y", "k"],
             "kinds": ["mtlrun.tasks.Regression", "mtlrun.tasks.Classification"]} | options  # fmt: skip
    return Table("rows.csv", **given)


def first_losses(folder):
    lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return next(line for line in lines if line["split"] == "train")


def test_weights_belong_to_the_training_split_and_are_no_input():
    write()
    dataset = table()
    assert dataset.input_shape == (5,)
    assert dataset.split("train").sample_weights.tolist() == [n % 4 for n in range(24)]
    assert dataset.split("val").sample_weights is None
    ((_, targets, weights),) = Loader(dataset.split("train"), 24, shuffle=True).batches()
    numbers = targets["y"].round().long()
    there = targets["y"].isfinite()
    assert weights[there].tolist() == (numbers[there] % 4).tolist()
    assert table(weight_column=None).split("train").sample_weights is None


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_carry_the_weights_of_their_samples(num_workers):
    split = TensorSplit(torch.arange(13.0), {})
    split.sample_weights = split.inputs + 100
    batches = list(Loader(split, 5, shuffle=True, num_workers=num_workers).batches())
    assert [len(weights) for _, _, weights in batches] == [5, 5, 3]
    assert all(torch.equal(weights, inputs + 100) for inputs, _, weights in batches)


def test_a_run_weighs_its_training_rows(mtlrun):
    write()
    assert mtlrun(*CSV, "dataset.weight_column=w")[0] == 0
    assert mtlrun(*CSV, "dataset.inputs=[a,b]", "runtime.root=plain")[0] == 0
    (weighted,), (plain,) = run_folders(), run_folders("plain")
    # As a table does that holds row n n % 4 times. All rows are in one batch, and no statistics are taken of them.
    write([row for row in ROWS for _ in range(row[-1] if row[0] == "train" else 1)])
    assert mtlrun(*CSV, "dataset.inputs=[a,b]", "runtime.root=copies")[0] == 0
    found, expected, plain = (first_losses(folder) for folder in [weighted, *run_folders("copies"), plain])
    for task in ("y", "k"):
        assert found[f"train/{task}/loss"] == pytest.approx(expected[f"train/{task}/loss"], rel=1e-5)
        assert found[f"train/{task}/loss"] != pytest.approx(plain[f"train/{task}/loss"], rel=1e-3)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("-1", "rows.csv, column w, row 4: a weight must be a number >= 0, found -1"),
        ("", "rows.csv, column w, row 4: a weight must be a number >= 0, the cell is empty"),
        ("much", "rows.csv, column w, row 4: 'much' is not a finite number"),
    ],
)
def test_a_cell_that_is_no_weight_is_named(cell, message):
    write([*ROWS[:2], (*ROWS[2][:-1], cell), *ROWS[3:]])
    with pytest.raises(DataError, match=message):
        table()


def test_weights_of_zero_alone_and_absent_columns_are_refused():
    write([(*row[:-1], 0) for row in ROWS])
    with pytest.raises(DataError, match=r"rows\.csv, column w: every weight of the training split is 0"):
        table()
    with pytest.raises(DataError, match=r"there is no column .v. for dataset\.weight_column"):
        table(weight_column="v")


# ----------------------------------------------------------------------------------------------- weights of tasks


def test_a_task_may_be_weighted_by_its_fraction_of_labels(mtlrun):
    write()
    assert mtlrun(*CSV, "dataset.inputs=[a,b]", "weighting=static", "tasks.y.weight=size", "tasks.k.weight=2")[0] == 0
    losses = first_losses(run_folders()[0])
    assert losses["weight/y"] == pytest.approx(0.5)  # 12 of 24 rows
    assert losses["weight/k"] == pytest.approx(2.0)


def test_weights_by_size_work_below_a_gradient_method_too(mtlrun):
    write()
    options = ["dataset.inputs=[a,b]", "weighting=pcgrad", "weighting/losses=static", "tasks.y.weight=size"]
    code, _, err = mtlrun(*CSV, *options)
    assert code == 0, err


def test_other_weightings_refuse_weights_by_size(mtlrun):
    write()
    code, _, err = mtlrun(*CSV, "tasks.y.weight=size")
    assert code == 2
    assert "tasks.y.weight=size has no effect with weighting=equal; use weighting=static" in err
    code, _, err = mtlrun(*CSV, "weighting=static", "tasks.y.weight=sizes")
    assert code == 2
    assert "tasks.y.weight must be" in err
    assert not run_folders()
