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
    "dataset=csv", "backbone=mlp", "dataset.path=rows.csv", "dataset.split_column=part", "+task@tasks.y=regression",
    "tasks.y.standardize=false",  # mean and deviation are those of the rows as they are, and copies change them
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


KINDS = {"y": "regression", "k": "classification", "b": "binary", "m": "multilabel", "o": "ordinal", "c": "count"}


def write_all_kinds(copied=False):
    """Write a table with a target of each kind of task, w_<task> being its weights; or rows copied as often instead."""
    rows = []
    for n in range(24):
        w = n % 4  # what the labels depend on, so that weights by it change each loss
        labels = [n * 7 % 5 / 4 + w, "ab"[w > 1], int(w == 3), int(w > 0), int(w == 1), max(w - 1, 0), 2 * w + n % 3]
        rows.append(["train", "pq"[n // 4 % 2], n % 5, *labels, *((n + shift) % 4 for shift in range(len(KINDS)))])
    rows += [[part, *row[1:]] for part in ("val", "test") for row in rows[:6]]
    header = ["part", "p", "x", "y", "k", "b", "m1", "m2", "o", "c", *(f"w_{task}" for task in KINDS)]
    if copied:  # by w_y, as all tasks have the same rows
        rows = [row for row in rows for _ in range(row[header.index("w_y")] if row[0] == "train" else 1)]
    Path("rows.csv").write_text("\n".join(",".join(map(str, row)) for row in [header, *rows]) + "\n")


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_each_kind_of_task_may_have_weights_that_other_tasks_do_not_see(mtlrun, micro_batches):
    command = ["dataset=csv", "backbone=mlp", "dataset.path=rows.csv", "dataset.split_column=part",
               "dataset.inputs=[p]", "trainer.epochs=1", "trainer.batch_size=256", "trainer.log_every=1",
               "runtime.quiet=true", "dataset.targets.m=[m1,m2]", "tasks.m.class_weights=[1,3]",
               "tasks.k.class_weights=[2,1]"]  # fmt: skip
    command[6:6] = [f"+task@tasks.{task}={kind}" for task, kind in KINDS.items()]
    command += ["tasks.y.standardize=false", "tasks.c.standardize=false"]

    def losses(root, *more, copied=False):
        write_all_kinds(copied)
        code, _, err = mtlrun(*command, f"runtime.root={root}", f"trainer.micro_batches={micro_batches}", *more)
        assert code == 0, err
        found = first_losses(run_folders(root)[0])
        return {task: found[f"train/{task}/loss"] for task in KINDS}

    plain, copies, common = losses("plain"), losses("copies", copied=True), losses("all", "dataset.weight_column=w_y")
    assert common == pytest.approx(copies, rel=1e-5)
    for task in KINDS:
        assert copies[task] != pytest.approx(plain[task], rel=1e-4)
    some = losses("some", *(f"dataset.weight_column.{task}=w_y" for task in ("k", "m", "c")))
    assert some == pytest.approx({t: copies[t] if t in ("k", "m", "c") else plain[t] for t in KINDS}, rel=1e-5)
    others = losses("others", "dataset.weight_column={y: w_y, b: w_y, o: w_y}")
    assert others == pytest.approx({t: copies[t] if t in ("y", "b", "o") else plain[t] for t in KINDS}, rel=1e-5)


def test_weights_of_one_task_are_no_input_and_have_their_own_columns():
    write_all_kinds()
    given = {"tasks": ["y", "k"], "targets": {"y": "y", "k": "k", "o": "o"}, "inputs": None}
    dataset = table(**given, weight_column={"y": "w_y", "k": "w_k", "o": "w_o"})
    assert not [name for name in dataset.features if name in ("w_y", "w_k", "w_o")]
    split = dataset.split("train")
    assert {task: weights.tolist()[:3] for task, weights in split.sample_weights.items()} == {
        "y": [0, 1, 2], "k": [1, 2, 3], "o": [0, 1, 2],
    }  # fmt: skip
    _, _, weights = next(iter(Loader(split, 5, shuffle=False).batches()))
    assert weights["k"].tolist() == [1, 2, 3, 0, 1]
    with pytest.raises(ValueError, match=r"^weight_column must name tasks \(y, k\), found 'z'"):
        table(**given, weight_column={"z": "w_y"})
    with pytest.raises(DataError, match=r"there is no column 'w' for dataset\.weight_column"):
        table(**given, weight_column={"y": "w"})


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
