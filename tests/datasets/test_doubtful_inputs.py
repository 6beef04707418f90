"""Doubts about the columns of a table: names of rows, and copies of targets; and none about real columns."""

import time
from pathlib import Path

import numpy
import pytest
from sklearn import datasets

from mtlrun.datasets.table import Table

REGRESSION, CLASSIFICATION = "mtlrun.tasks.Regression", "mtlrun.tasks.Classification"
RANDOM = numpy.random.default_rng(0)
ROWS = 200
X = RANDOM.normal(size=ROWS)
PRICE = numpy.round(1e5 * numpy.exp(X + 0.3 * RANDOM.normal(size=ROWS)))
KIND = numpy.array(["flat", "house", "villa"])[RANDOM.integers(0, 3, ROWS)]


def doubts(columns=None, *, tasks=("price", "kind"), kinds=(REGRESSION, CLASSIFICATION), **options):
    """Return the notes on a table of a real input x, the targets, and further columns."""
    given = {"x": X, "price": PRICE, "kind": KIND} | (columns or {})
    lines = [",".join(given), *(",".join(map(str, row)) for row in zip(*given.values(), strict=True))]
    Path("table.csv").write_text("\n".join(lines) + "\n")
    return Table("table.csv", tasks=tasks, kinds=kinds, max_categories=1000, **options).notes


GROWS = 1_700_000_000 + numpy.cumsum(RANDOM.integers(1, 10**6, ROWS))


@pytest.mark.parametrize(
    ("values", "grows"),
    [
        (numpy.arange(ROWS), True), (numpy.arange(ROWS)[::-1] + 7, True), (RANDOM.permutation(ROWS), False),
        (RANDOM.permutation(1000)[:ROWS], False), (GROWS, True), ([f"n{row:04}" for row in range(ROWS)], False),
        (["" if row % 9 == 4 else row + 1000 for row in range(ROWS)], True),
    ],
)  # fmt: skip
def test_a_column_that_only_names_or_numbers_the_rows_is_pointed_out(values, grows):
    columns = {"ref": values, "note": ["a"] * ROWS}
    (line,) = (
        line for line in doubts(columns, exclude=["note"]) if line.startswith("column ref of the inputs: another")
    )
    assert "'dataset.exclude=[note,ref]'" in line
    assert "dataset.id_column=ref" in line
    assert ("dataset.time_column=ref" in line) == grows
    assert doubts(columns, exclude=["ref"]) == []
    assert any("take it out of dataset.inputs" in line for line in doubts(columns, inputs=["x", "ref"]))


def test_numbers_that_stand_for_empty_cells_are_pointed_out():
    some = numpy.arange(ROWS) % 9 == 0
    fever, age = numpy.where(some, -999, 36.5 + X.round(1)), numpy.where(some, 99, 20 + numpy.arange(ROWS) % 25)
    (line,) = doubts({"fever": fever, "age": age, "price": numpy.where(some, -1, PRICE.clip(1e4) / 1e7)})
    assert f"fever (-999 in {some.sum()} rows, all others from {(36.5 + X[~some].round(1)).min():g} to" in line
    assert "age (99 in 23 rows, all others from 20 to 44)" in line
    assert "price (-1 in 23 rows, " in line  # also of targets
    assert '\'dataset.missing=["",NA,"NaN","nan","null","-999","99","-1"]\'' in line
    codes = [-1, 0, 1, 9]
    harmless = {"score": 60 + numpy.arange(ROWS) % 40, "code": RANDOM.choice(codes, ROWS), "profit": X - 1}
    assert doubts(harmless | {"once": numpy.where(numpy.arange(ROWS) == 7, 999, X)}) == []


def test_dates_that_grow_with_the_rows_are_pointed_out_as_times():
    days = numpy.datetime64("2020-01-01") + numpy.arange(ROWS)
    (line,) = doubts({"day": days}, dates=["day"])
    assert "dataset.time_column=day" in line
    assert doubts({"day": days[RANDOM.integers(0, ROWS, ROWS)]}, dates=["day"]) == []
    assert not any("another value" in line for line in doubts({"day": days}, time_column="day"))


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (KIND, "kind"), (numpy.where(KIND == "flat", 0, numpy.where(KIND == "house", 1, 2)), "kind"),
        (numpy.char.add(KIND, numpy.array(["1", "2"])[RANDOM.integers(0, 2, ROWS)]), "kind"),
        (numpy.where(KIND == "flat", 0, numpy.where(KIND == "house", 1, 2)) + RANDOM.uniform(0, 0.9, ROWS), "kind"),
        (PRICE, "price"), (1.19 * PRICE, "price"), (-numpy.log(PRICE), "price"), (numpy.round(PRICE, -2), "price"),
        (PRICE + 10 * RANDOM.normal(size=ROWS), "price"),
    ],
)  # fmt: skip
def test_a_column_that_copies_or_determines_a_target_is_pointed_out(values, task):
    (line,) = doubts({"copy": values})
    assert line.startswith(f"task {task}: inputs that give its target away: copy (")
    assert "unless it is known before the target is, leave it out: 'dataset.exclude=[copy]'" in line


def test_a_column_that_is_empty_where_a_class_is_gives_it_away():
    died = RANDOM.uniform(size=ROWS) < 0.3
    columns = {"died": numpy.where(died, "yes", "no"), "days": numpy.where(died, RANDOM.normal(size=ROWS), numpy.nan)}
    task = {"tasks": ["died"], "kinds": ["mtlrun.tasks.BinaryClassification"], "exclude": ["price", "kind"]}
    (line,) = doubts(columns, **task)
    assert "days (whether it is empty says which class it is)" in line
    columns["days"][:30] = "nan"
    assert doubts(columns, **task) == []


def test_missing_labels_and_several_numbers_are_looked_at_by_themselves():
    half = numpy.where(numpy.arange(ROWS) < 100, PRICE, numpy.nan)
    columns = {"lat": RANDOM.normal(size=ROWS), "lon": half, "east": 2 * PRICE}
    options = {"tasks": ["place"], "kinds": [REGRESSION], "targets": {"place": ["lat", "lon"], "price": "price"}}
    (line,) = doubts(columns, **options)
    assert line.startswith("task place: inputs that give its target away: east (")


def test_real_columns_are_not_pointed_out():
    real = {
        "decimals": RANDOM.normal(size=ROWS), "strong": PRICE * numpy.exp(0.05 * RANDOM.normal(size=ROWS)),
        "wide": RANDOM.permutation(10**7)[:ROWS], "age": RANDOM.integers(18, 90, ROWS), "same": numpy.ones(ROWS),
        "city": RANDOM.choice(["Ulm", "Rom", "Bonn"], ROWS), "sorted": numpy.sort(RANDOM.integers(0, 150, ROWS)),
        "mostly": numpy.where(RANDOM.uniform(size=ROWS) < 0.05, "flat", KIND),
        "gaps": numpy.where(RANDOM.uniform(size=ROWS) < 0.3, numpy.nan, X), "rare": numpy.eye(1, ROWS, 5)[0],
    }  # fmt: skip
    assert doubts(real) == []


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "diabetes", "digits"])
def test_well_known_tables_raise_no_doubt(name):
    frame = getattr(datasets, f"load_{name}")(as_frame=True).frame
    frame.to_csv("table.csv", index=False)
    kind = REGRESSION if name == "diabetes" else CLASSIFICATION
    assert Table("table.csv", tasks=["target"], kinds=[kind]).notes == []


def test_few_rows_raise_no_doubt():
    lines = ["id,x,y", *(f"{row},{2 * row},{row}" for row in range(20))]
    Path("small.csv").write_text("\n".join(lines))
    assert Table("small.csv", tasks=["y"], kinds=[REGRESSION]).notes == []


def test_large_tables_are_looked_at_quickly():
    from types import SimpleNamespace

    import torch

    from mtlrun.datasets.tables.inputs.doubts import doubt_inputs

    rows = 300_000
    cells = {f"c{index}": SimpleNamespace(numbers=RANDOM.normal(size=rows)) for index in range(49)}
    cells["id"] = SimpleNamespace(numbers=RANDOM.permutation(rows) + 1e6)
    inputs = SimpleNamespace(kinds=dict.fromkeys(cells, "number"), dates={})
    targets = {"y": torch.from_numpy(3 * cells["c7"].numbers), "k": torch.arange(rows) % 3}
    start = time.process_time()
    lines = doubt_inputs(SimpleNamespace(cells=cells), inputs, targets, {"k": []}, numpy.arange(rows), None, [])
    assert time.process_time() - start < 3
    assert [line.split(":")[0] for line in lines] == ["column id of the inputs", "task y"]
