"""A table of one's own, on small files."""

import math
import sys
from pathlib import Path

import numpy
import pandas
import pytest
import torch

from mtlrun.datasets import SPLITS, Table
from mtlrun.datasets.tables.reading.read import read
from mtlrun.datasets.tables.splits.division import SplitKeys, split_rows
from mtlrun.errors import DataError

REGRESSION, CLASSIFICATION = "mtlrun.tasks.Regression", "mtlrun.tasks.Classification"
# Rows 2 to 9 of the file; the first four are training.
SMALL = """part,a,b,c,flat,y,k
train,1,red,,5,1.5,cat
train,3,blue,2,5,2.5,dog
train,,red,4,5,,cat
train,5,,6,5,3.5,ant
val,7,green,8,9,4,dog
val,3,blue,,5,5,cat
test,,red,2,5,6,
test,1,,4,5,7,ant
"""


def write(text, name="table.csv"):
    Path(name).write_text(text)
    return name


def small(text=SMALL, **options):
    given = {"tasks": ["y", "k"], "kinds": [REGRESSION, CLASSIFICATION], "split_column": "part"} | options
    return Table(write(text), **given)


def test_inputs_are_scaled_and_encoded_by_training_alone():
    dataset = small()
    assert dataset.features == [
        "a", "a is empty", "b=blue", "b=red", "b is empty", "c", "c is empty", "flat",
    ]  # fmt: skip
    assert dataset.input_shape == (8,)
    a, c = math.sqrt(8 / 3), math.sqrt(8 / 3)  # of 1, 3, 5 and of 2, 4, 6
    expected = {
        "train": [
            [-2 / a, 0, 0, 1, 0, 0, 1, 0],
            [0, 0, 1, 0, 0, -2 / c, 0, 0],
            [0, 1, 0, 1, 0, 0, 0, 0],
            [2 / a, 0, 0, 0, 1, 2 / c, 0, 0],
        ],
        "val": [[4 / a, 0, 0, 0, 0, 4 / c, 0, 0], [0, 0, 1, 0, 0, 0, 1, 0]],  # green is not known, flat stays 0
        "test": [[0, 1, 0, 1, 0, -2 / c, 0, 0], [-2 / a, 0, 0, 0, 1, 0, 0, 0]],
    }
    for name in SPLITS:
        torch.testing.assert_close(dataset.split(name).inputs, torch.tensor(expected[name], dtype=torch.float32))


def test_targets_are_numbers_and_classes_with_missing_labels():
    dataset = small()
    assert dataset.task_names == ("y", "k")
    assert dataset.classes == {"k": ["ant", "cat", "dog"]}
    train, test = dataset.split("train"), dataset.split("test")
    torch.testing.assert_close(train.targets["y"], torch.tensor([1.5, 2.5, torch.nan, 3.5]).double(), equal_nan=True)
    assert train.targets["k"].tolist() == [1, 2, 1, 0]
    assert train.targets["k"].dtype == torch.int64
    assert test.targets["k"].tolist() == [-1, 0]
    assert test.sample_ids == [8, 9]


def test_inputs_may_be_chosen_and_numbers_be_categories():
    assert small(inputs=["a", "c"], categorical=["a"]).features == [
        "a=1",
        "a=3",
        "a=5",
        "a is empty",
        "c",
        "c is empty",
    ]


def test_a_target_may_have_several_columns_or_another_name():
    dataset = Table(
        write(SMALL), tasks=["place", "kind"], kinds=[REGRESSION, CLASSIFICATION],
        targets={"place": ["y", "flat"], "kind": "k"}, inputs=["a"], split_column="part",
    )  # fmt: skip
    assert dataset.split("val").targets["place"].tolist() == [[4, 9], [5, 5]]
    assert dataset.split("val").targets["kind"].tolist() == [2, 1]


def test_a_target_that_is_not_trained_is_no_input():
    dataset = small(tasks=["y"], kinds=[REGRESSION], targets={"y": "y", "k": "k"})
    assert not [name for name in dataset.features if name.startswith("k")]
    assert [name for name in small(tasks=["y"], kinds=[REGRESSION]).features if name.startswith("k")]


def test_classes_are_sorted_by_value_or_in_the_given_order():
    text = "part,x,k\n" + "".join(f"{part},1,{k}\n" for part in SPLITS for k in (10, 2, 1))
    options = {"tasks": ["k"], "kinds": [CLASSIFICATION]}
    assert small(text, **options).split("val").targets["k"].tolist() == [2, 1, 0]
    given = small(text, classes={"k": [10, 1, 2]}, **options)
    assert given.split("val").targets["k"].tolist() == [0, 2, 1]


def test_targets_of_numbers_keep_all_their_digits_in_the_unit_of_the_file():
    text = "part,x,y\n" + "".join(f"{part},1,{1_700_000_000 + row}.25\n" for row, part in enumerate(SPLITS))
    for kind in (REGRESSION, "mtlrun.tasks.Count"):
        content = text if kind == REGRESSION else text.replace(".25", "")
        dataset = small(content, tasks=["y"], kinds=[kind])
        found = [dataset.split(part).targets["y"].item() for part in SPLITS]
        assert found == [1_700_000_000 + row + 0.25 * (kind == REGRESSION) for row in range(3)]
    own = small(text, tasks=["y"], kinds=["mtlrun.tasks.Objective"])  # stands for a kind that does not ask for float64
    assert own.split("train").targets["y"].dtype == torch.float32


def drawn(**options):
    lines = [f"{number},{number % 9},{'ab'[number % 4 == 0]}" for number in range(100)]
    return split_rows(read(write("x,group,stratum\n" + "\n".join(lines) + "\n")), SplitKeys(**options)).rows


@pytest.mark.parametrize("options", [{}, {"group_column": "group"}, {"stratify": ["stratum"]}])
def test_drawn_splits_hold_each_row_once_and_depend_on_their_seed_alone(options):
    rows = drawn(**options)
    assert sorted(numpy.concatenate(list(rows.values()))) == list(range(100))
    numpy.random.seed(5)
    again, other = drawn(**options), drawn(split_seed=1, **options)
    assert all((rows[name] == again[name]).all() for name in SPLITS)
    assert rows["train"].tolist() != other["train"].tolist()


def test_drawn_splits_have_their_fractions():
    assert {name: len(rows) for name, rows in drawn().items()} == {"train": 70, "val": 15, "test": 15}
    assert {name: len(rows) for name, rows in drawn(fractions=[0.5, 0.2, 0.3]).items()} == {
        "train": 50, "val": 20, "test": 30,
    }  # fmt: skip


def test_no_group_is_in_two_splits():
    groups = [set(rows % 9) for rows in drawn(group_column="group").values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 9


def test_strata_have_equal_fractions_in_all_splits():
    shares = [(rows % 4 == 0).sum() for rows in drawn(stratify=["stratum"], fractions=[0.6, 0.2, 0.2]).values()]
    assert shares == [15, 5, 5]


def test_an_empty_row_keeps_its_number():
    text = SMALL.replace("train,3", "\n,,,,,,\ntrain,3")
    assert small(text).split("train").sample_ids == [2, 5, 6, 7]
    wrong = text.replace("test,1,,4,5,7", "test,1,,4,5,seven")
    with pytest.raises(DataError, match=r"table.csv, column y, row 11: 'seven' is not a finite number"):
        small(wrong)


def test_ids_are_those_of_the_column():
    text = "id,x,y,part\n007,1,1,train\n008,2,2,val\n009,3,3,test\n"
    dataset = small(text, id_column="id", tasks=["y"], kinds=[REGRESSION])
    assert dataset.split("train").sample_ids == ["007"]
    assert dataset.features == ["x"]
    options = {"id_column": "id", "tasks": ["y"], "kinds": [REGRESSION]}
    with pytest.raises(DataError, match=r"column id, row 4: '007' is the id of row 2 too"):
        small(text.replace("009", "007"), **options)
    with pytest.raises(DataError, match=r"column id, row 3: the cell is empty; every row needs an id"):
        small(text.replace("008", ""), **options)
    with pytest.raises(DataError, match=r"the cell is empty, or holds what dataset.missing counts as empty \(8\)"):
        small(text, missing=["8"], **options)


@pytest.mark.parametrize(
    ("old", "new", "options", "message"),
    [
        ("1.5", "inf", {}, r"table.csv, column y, row 2: 'inf' is not a finite number"),
        ("train,5", "train,five", {}, r"column a: 'five' in row 5, where most of the column are numbers; correct"),
        ("train,5", "train,five", {"categorical": ["a"]}, None),
        ("ant\nval", "dog\nval", {}, r"row 9: 'ant' is in the test split and not in train"),
        ("", "", {"classes": {"k": ["cat", "dog"]}}, r"column k, row 5: 'ant' is none of dataset.classes.k: cat, dog"),
        ("", "", {"targets": {"y": "z"}}, r"no column 'z' for task y; it has: part, a, b"),
        ("", "", {"targets": {"k": ["k", "b"]}}, r"dataset.targets.k: classes are read from one column"),
        ("", "", {"inputs": ["a", "y"]}, r"dataset.inputs: 'y' is what a task is to predict"),
        ("", "", {"inputs": ["d"]}, r"no column 'd' for dataset.inputs"),
        ("", "", {"inputs": []}, r"no column is left for the inputs"),
        ("", "", {"inputs": ["a"], "categorical": ["b"]}, r"dataset.categorical: 'b' is none of the inputs; they"),
        ("", "", {"dates": ["part"]}, r"dataset.dates: 'part' describes rows .*; leave it out"),
        ("", "", {"max_categories": 2}, r"column b: 3 different texts in training, such as 'red', more than"),
        ("", "", {"group_column": "b"}, r"column b, row 5: the cell is empty; every row needs a group"),
        ("", "", {"group_column": "flat"}, r"row 7: the group '5' is in the val split here, and in the train .* 2"),
        ("", "", {"split_column": None, "stratify": "k"}, r"column k: most of its values are in one or two"),
        ("", "", {"split_column": None, "fractions": [0.9, 0.05, 0.05]}, r"the val split is empty: 8 rows are too few"),
        ("", "", {"separator": ";"}, r"the header is one cell with dataset.separator=';'"),
        ("part,a,b", "part,a,a", {}, r"the header has the column 'a' twice"),
        ("train,1,red", "train,1,red,more", {}, r"table.csv, row 2: found 8 cells, and the header names 7 columns; an"),
        ("ant\nval", "ant\nval,7\nval", {}, r"table.csv, row 6: found 2 cells, and the header names 7 columns; an em"),
        ("train,1", '"train,1', {}, r"row 2: found 1 cell, and the header names 7 columns; a quote that is"),
        (SMALL, "", {}, r"table.csv: the file is empty"),
        (SMALL, "part,y,k\n", {}, r"there are no rows beneath the header"),
    ],
)  # fmt: skip
def test_errors_name_what_is_wrong_and_where(old, new, options, message):
    text = SMALL.replace(old, new, 1) if old else SMALL
    if message is None:
        assert "a=five" in small(text, **options).features
        return
    with pytest.raises(DataError, match=message):
        small(text, **options)


def test_a_column_without_a_value_in_training_is_refused():
    text = "part,x,y\ntrain,,1\nval,1,2\ntest,1,2\n"
    with pytest.raises(DataError, match="column x: every cell of the training split is empty"):
        small(text, tasks=["y"], kinds=[REGRESSION])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": None}, "path must name a CSV"),
        ({"tasks": [], "kinds": []}, "tasks must name one or more tasks"),
        ({"kinds": [REGRESSION]}, "kinds must name a class for each of y, k"),
        ({"fractions": [0.5, 0.4, 0.2]}, "fractions must be three numbers > 0 that sum to 1"),
        ({"fractions": [1, 0, 0]}, r"fractions\[0\] must be in \(0, 1\), found 1"),
        ({"split_seed": -1}, "split_seed must be >= 0, found -1"),
        ({"classes": {"k": "cat"}}, "classes must map tasks to lists of labels, found k: 'cat'"),
        ({"max_categories": 0}, "max_categories must be >= 1, found 0"),
        ({"cache": "none"}, "cache must be one of 'auto', 'memory', 'device', found 'none'"),
    ],
)
def test_arguments_out_of_bounds_are_refused(options, message):
    given = {"path": write(SMALL), "tasks": ["y", "k"], "kinds": [REGRESSION, CLASSIFICATION], "split_column": "part"}
    with pytest.raises(ValueError, match=f"^{message}"):
        Table(**(given | options))


def test_parquet_has_typed_columns_and_rows_from_1():
    frame = pandas.DataFrame({
        "part": ["train", "train", "val", "test"], "x": [1, 3, 5, 7], "b": [True, False, True, True],
        "k": [2.0, 1.0, numpy.nan, 1.0], "t": ["u", "NA", "v", "u"],
    })  # fmt: skip
    frame.to_parquet("table.parquet")
    dataset = Table("table.parquet", tasks=["k"], kinds=[CLASSIFICATION], split_column="part")
    assert dataset.features == ["x", "b=False", "b=True", "t=u", "t is empty"]
    assert dataset.classes == {"k": ["1", "2"]}
    assert dataset.split("train").inputs.tolist() == [[-1, 0, 1, 1, 0], [1, 1, 0, 0, 1]]
    assert dataset.split("val").targets["k"].tolist() == [-1]
    assert dataset.split("test").sample_ids == [4]


def test_unreadable_parquet_is_refused_with_the_reason(monkeypatch):
    with pytest.raises(DataError, match=r"table.parquet: not a readable Parquet file: Parquet file size is 0 bytes"):
        read(write("", "table.parquet"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match="reading Parquet files needs pyarrow: pip install pyarrow"):
        read("table.parquet")
