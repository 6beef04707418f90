"""Labels of columns: their order, their number, and what is no label; from files and through the command line."""

import math
from pathlib import Path

import numpy
import pandas
import pytest
import torch
from helpers import read_record, run_folders

from mtlrun.datasets import SPLITS, Images, MultiTaskDataset, Table, TensorSplit
from mtlrun.errors import DataError

KINDS = {
    "classes": "mtlrun.tasks.Classification", "levels": "mtlrun.tasks.Ordinal", "several": "mtlrun.tasks.MultiLabel",
    "binary": "mtlrun.tasks.BinaryClassification", "number": "mtlrun.tasks.Regression", "count": "mtlrun.tasks.Count",
}  # fmt: skip


def write(columns, name="rows.csv"):
    """Write columns of labels, repeated in each split, beside an input."""
    count = max(len(cells) for cells in columns.values())
    rows = [["part", "x", *columns]]
    for part in SPLITS:
        rows += [[part, row, *(cells[row % len(cells)] for cells in columns.values())] for row in range(count)]
    Path(name).write_text("\n".join(",".join(map(str, row)) for row in rows) + "\n")
    return name


def table(kind, cells, **options):
    """Return a dataset with one task, k, of labels in one column, or in several if `cells` is a mapping."""
    columns = cells if isinstance(cells, dict) else {"k": cells}
    given = {"tasks": ["k"], "kinds": [KINDS[kind]], "split_column": "part", "inputs": ["x"],
             "targets": {"k": list(columns)}} | options  # fmt: skip
    return Table(write(columns), **given)


def targets(kind, cells, **options):
    return table(kind, cells, **options).split("train").targets["k"].tolist()


# ---------------------------------------------------------------------------------------------------------- order


def test_levels_are_in_the_order_of_the_data_or_of_the_config():
    assert targets("levels", ["low", "high", "medium"]) == [0, 2, 1]  # which is certain
    assert targets("levels", ["low", "high", "medium"], classes={"k": ["high", "medium", "low"]}) == [2, 0, 1]
    grades = ["faint", "strong", "clear"]
    assert targets("levels", grades, classes={"k": ["faint", "clear", "strong"]}) == [0, 2, 1]
    assert targets("levels", [10, 9, 2]) == [2, 1, 0]
    assert targets("levels", ["1.5", "-2", "+1e1"]) == [1, 0, 2]
    assert targets("levels", ["yes", "no"]) == [1, 0]
    with pytest.raises(DataError, match=r"column k: the order of the levels of task k is not in the data; bring them "
                       r"into order, from the lowest to the highest, in 'dataset.classes.k=\[clear,faint,strong\]', "
                       r"where they are sorted by the alphabet. Labels found: "
                       r"clear \(3\), faint \(3\), strong \(3\)"):  # fmt: skip
        table("levels", grades)


def test_the_advice_on_the_order_works_as_it_stands(mtlrun):
    write({"k": ["very low", "low", "true", "middle"], "y": [1, 2]})
    command = ["dataset=csv", "dataset.path=rows.csv", "dataset.split_column=part", "+task@tasks.k=ordinal",
               "trainer=smoke", "runtime.quiet=true"]  # fmt: skip
    code, _, err = mtlrun(*command)
    assert code == 2
    advice = err.split("highest, in '")[1].split("', where")[0]
    assert advice == 'dataset.classes.k=[low,middle,"true","very low"]'
    code, _, err = mtlrun(*command, advice)
    assert code == 0, err
    assert read_record(run_folders()[0])["task_sizes"] == {"k": {"num_levels": 4}}


def test_ordered_categories_of_parquet_keep_their_order():
    kind = pandas.CategoricalDtype(["low", "medium", "high", "unused"], ordered=True)
    frame = pandas.DataFrame({
        "part": numpy.repeat(SPLITS, 3), "x": range(9), "k": pandas.Series(["high", "low", "medium"] * 3, dtype=kind),
    })  # fmt: skip
    frame.to_parquet("rows.parquet")
    for name in ("levels", "classes"):
        dataset = Table("rows.parquet", tasks=["k"], kinds=[KINDS[name]], split_column="part")
        assert dataset.split("val").targets["k"].tolist() == [2, 0, 1]
        assert dataset.task_sizes == {"k": 3}


@pytest.mark.parametrize(("no", "yes"), [("0", "1"), ("No", "YES"), ("FALSE", "True"), ("n", "Y"), ("nein", "ja"),
                                         ("0.0", "1.0"), ("-1", "1"), ("positive", "negative")[::-1]])  # fmt: skip
def test_no_and_yes_have_their_known_order(no, yes):
    assert targets("binary", [yes, no, "", no]) == [1, 0, -1, 0]
    other = {"k": [yes, no, "", no], "j": [no, yes, yes, ""]}
    torch.testing.assert_close(
        torch.tensor(targets("several", other)), torch.tensor([[1, 0], [0, 1], [torch.nan, 1], [0, torch.nan]]),
        equal_nan=True,
    )  # fmt: skip


def test_which_of_two_other_labels_is_yes_is_said():
    dataset = table("binary", ["cat", "dog"])
    assert dataset.split("train").targets["k"].tolist() == [0, 1]
    assert dataset.notes == [
        "task k: 'dog' is yes (1) and 'cat' is no (0), by the alphabet; for the other order: tasks.k.positive=cat"
    ]
    assert targets("binary", ["cat", "dog"], classes={"k": ["dog", "cat"]}) == [1, 0]
    assert not table("binary", ["yes", "no"]).notes
    assert table("binary", [1, 2]).notes == ["task k: the label 1 is no (0) and 2 is yes (1), by value"]
    with pytest.raises(DataError, match=r"the labels of task k are -1 \(3\), 0 \(3\), and 0 would be yes"):
        table("binary", [-1, 0])


def test_labels_that_are_numbers_are_numbered_by_value_and_that_is_said():
    dataset = table("classes", [5, 9, 7])
    assert dataset.split("train").targets["k"].tolist() == [0, 2, 1]
    assert dataset.notes == ["task k: the labels are numbered by value: 5 is 0, 7 is 1, 9 is 2"]
    assert not table("classes", [0, 2, 1]).notes
    assert targets("classes", ["1", "1.0", "2", " 2 "]) == [0, 0, 1, 1]
    assert table("classes", ["0", "1.0", "1", "2"]).notes == [
        "rows.csv, column k: '1.0' and '1' are one label, as the same number"
    ]
    assert targets("classes", ["a ", " a", "b"]) == [0, 0, 1]
    assert table("classes", ["Red", "red", "dark  blue", "dark blue", "green"]).notes == [
        "task k: labels that differ only in case or spaces are different classes: 'Red' and 'red'; 'dark  blue' and "
        "'dark blue'; if they are the same, write them alike in the file"
    ]


def test_classes_must_be_those_of_the_file():
    for given, message in (
        ([0, 1], r"rows.csv, column k, row 4: '2' is none of dataset.classes.k: 0, 1; add it there, or make it a mis"),
        ([0, 1, 2, 3], r"column k: no cell holds '3' of dataset.classes.k; leave that out. Labels found: 0 \(3\), 1"),
    ):
        with pytest.raises(DataError, match=message):
            table("classes", [0, 1, 2], classes={"k": given})


# ------------------------------------------------------------------------------------------------- missing labels


def test_minus_one_is_missing_only_if_the_config_says_so():
    missing = {"missing": ["", -1]}
    assert targets("number", [-1, 2.5, 1]) == [-1, 2.5, 1]
    assert math.isnan(targets("number", [-1, 2.5, 1], **missing)[0])
    assert targets("classes", [-1, 0, 1]) == [0, 1, 2]
    assert targets("classes", [-1, 0, 1], **missing) == [-1, 0, 1]
    assert targets("binary", [-1, 0, 1], **missing) == [-1, 0, 1]
    assert math.isnan(targets("count", [-1, 0, 4], **missing)[0])
    (_, note) = table("classes", [-1, 0, 1]).notes
    assert "labels are -1 (3), 0 (3), 1 (3); if '-1' (first in row 2) stands for a missing label: 'dataset.miss" in note
    with pytest.raises(DataError, match=r"column k: task k is binary, and the column has 3 labels: -1 \(3\), 0 .* "
                       r"'dataset.missing=\[\"\",NA,\"NaN\",\"nan\",\"null\",-1\]'"):  # fmt: skip
        table("binary", [-1, 0, 1])
    with pytest.raises(DataError, match=r"row 2: -1 is not a count: task k predicts whole numbers >= 0"):
        table("count", [-1, 0, 4])
    with pytest.raises(DataError, match=r"row 3: 0.5 is not a count"):
        table("count", [1, 0.5, 4])


def test_minus_one_among_several_labels_is_no_or_refused():
    dataset = table("several", {"a": [1, -1], "b": [-1, -1]})
    assert dataset.split("train").targets["k"].tolist() == [[1, 0], [0, 0]]
    assert "task k: the label -1 is no (0) and 1 is yes (1); -1 is not a missing label" in dataset.notes
    for columns in ({"a": [1, -1, 0], "b": [0, 1]}, {"a": [1, -1], "b": [0, 1]}):
        with pytest.raises(
            DataError, match=r"rows.csv, column a, row 3: '-1' is neither no nor yes.* 'dataset.missing="
        ):
            table("several", columns)
        found = targets("several", columns, missing=["", -1])
        assert math.isnan(found[1][0])


def test_a_label_alone_is_refused_and_keeps_its_meaning():
    for kind in ("classes", "binary", "levels"):
        with pytest.raises(DataError, match=r"rows.csv, column k: every label is '1', so task k has nothing to learn"):
            table(kind, [1, 1, ""])
        with pytest.raises(DataError, match=r"rows.csv, column k: every cell is empty, so task k has no label"):
            table(kind, {"k": ["", ""], "other": [1, 2]}, targets={"k": "k"})
    with pytest.raises(DataError, match=r"each of the columns a, b holds one label only"):
        table("several", {"a": [1], "b": [0]})
    dataset = table("several", {"a": [1], "b": [0, 1], "c": ["no"]})
    assert dataset.split("train").targets["k"].tolist() == [[1, 0, 0], [1, 1, 0]]
    assert [note[:35] for note in dataset.notes] == [
        "rows.csv, column a: every label is ", "rows.csv, column c: every label is ",
    ]  # fmt: skip


@pytest.mark.parametrize("word", ["N/A", "none", "?", "Unknown"])
def test_words_for_missing_labels_are_pointed_out(word):
    cells = ["no", "yes", word]
    for kind in ("classes", "binary"):
        with pytest.raises(DataError) as caught:
            table(kind, cells)
        assert f"'{word}' (first in row 4) stands for a missing label: 'dataset.missing=[" in str(caught.value)
    assert targets("classes", cells, missing=["", word]) == [0, 1, -1]
    assert sorted(targets("classes", cells, classes={"k": ["no", "yes", word]})) == [0, 1, 2]
    dataset = table("classes", cells, sizes=[3])  # somebody who counts it as a class
    assert f"'{word}' (first in row 4)" in dataset.notes[0]


def test_labels_of_images_follow_the_same_rules():
    write({"k": ["low", "high"], "file": ["a.png"]}, "photos.csv")
    Path("photos").mkdir()
    Path("photos/a.png").write_text("")
    for kind, message in (("levels", "the order of the levels of task k"), ("several", "'k' is one column")):
        with pytest.raises(DataError, match=message):
            Images("photos", "photos.csv", tasks=["k"], kinds=[KINDS[kind]], split_column="part")


# ---------------------------------------------------------------------------------------------------------- number

RUN = ["dataset=csv", "dataset.path=rows.csv", "dataset.split_column=part", "dataset.inputs=[x]", "trainer=smoke",
       "runtime.quiet=true", "+task@tasks.k=classification", "+task@tasks.g=ordinal", "+task@tasks.t=multilabel",
       "dataset.targets.t=[a,b]"]  # fmt: skip


def test_numbers_of_labels_are_those_of_the_data(mtlrun):
    write({"k": ["u", "v", "w"], "g": [1, 2, 3, 4], "a": [0, 1], "b": ["no", "no", "yes"]})
    code, _, err = mtlrun(*RUN)
    assert code == 0, err
    (folder,) = run_folders()
    record = read_record(folder)
    assert record["task_sizes"] == {"k": {"num_classes": 3}, "g": {"num_levels": 4}, "t": {"num_labels": 2}}
    assert record["config"]["tasks"]["k"]["num_classes"] is None
    assert "tasks.g.num_levels=4, from the data" in (folder / "run.log").read_text()
    code, _, err = mtlrun(*RUN, "tasks.k.num_classes=3", "tasks.g.num_levels=4", "tasks.t.num_labels=2", "seed=1")
    assert code == 0, err


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("k.num_classes=2", "column k: tasks.k.num_classes=2, and the column has 3 labels: u (6), v (3), w (3)"),
        ("k.num_classes=7", "column k: tasks.k.num_classes=7, and the column has 3 labels: u (6), v (3), w (3)"),
        ("g.num_levels=5", "column g: tasks.g.num_levels=5, and the column has 4 labels: 1 (3), 2 (3), 3 (3), 4 (3)"),
        ("t.num_labels=3", "rows.csv: tasks.t.num_labels=3, and there are 2 labels: a, b; tasks.t.num_labels=null"),
    ],
)
def test_a_wrong_number_of_labels_is_refused(size, message, mtlrun):
    write({"k": ["u", "v", "w"], "g": [1, 2, 3, 4], "a": [0, 1], "b": ["no", "no", "yes"]})
    code, _, err = mtlrun(*RUN, f"tasks.{size}")
    assert code == 2
    assert message in err
    assert not run_folders()


class Mine(MultiTaskDataset):
    """A dataset of somebody's, which knows the number of its classes if it is asked to."""

    input_shape, task_names = (1,), ("k",)

    def __init__(self, known: bool = False) -> None:
        self.task_sizes = {"k": 2} if known else {}

    def split(self, name):
        return TensorSplit(torch.arange(8.0)[:, None], {"k": torch.arange(8) % 2})


def test_other_datasets_give_the_number_or_it_must_be_written(mtlrun):
    Path("conf/dataset").mkdir(parents=True)
    Path("conf/dataset/mine.yaml").write_text(
        "# @package _global_\n# Mine.\ndefaults: [{/task@tasks.k: classification}, {override /backbone: mlp}]\n"
        f"dataset: {{_target_: {__name__}.Mine, known: false}}\n"
    )
    command = ["--config-dir", "conf", "dataset=mine", "trainer=smoke", "runtime.quiet=true"]
    code, _, err = mtlrun(*command, "trainer.batch_size=0")
    assert code == 2
    assert (
        "tasks.k.num_classes must be given, since dataset=mine does not know it: write tasks.k.num_classes=<nu" in err
    )
    assert "trainer.batch_size must be >= 1" in err
    for more in (["tasks.k.num_classes=2"], ["dataset.known=true"]):
        code, _, err = mtlrun(*command, *more)
        assert code == 0, err


# ----------------------------------------------------------------------------------------------- lists and weights


def test_a_cell_may_list_labels():
    cells = ["dog;cat", "", ";", " cat ; bird;", "dog"]
    dataset = table("several", cells, label_separator=";")
    assert dataset.classes == {"k": ["bird", "cat", "dog"]}
    assert dataset.task_sizes == {"k": 3}
    expected = [[0, 1, 1], [math.nan] * 3, [0, 0, 0], [1, 1, 0], [0, 0, 1]]
    torch.testing.assert_close(torch.tensor(targets("several", cells, label_separator=";")), torch.tensor(expected),
                               equal_nan=True)  # fmt: skip
    given = {"classes": {"k": ["dog", "bird", "cat"]}, "label_separator": ";"}
    assert targets("several", cells, **given)[3] == [0, 1, 1]
    assert table("several", ["10|2", "9", "2"], label_separator="|").classes == {"k": ["2", "9", "10"]}
    for more, message in (
        (
            {},
            r"task k predicts several labels, and 'k' is one column; name a column for each label, .*in a cell, as in "
            r"'dataset.label_separator=\";\"'$",
        ),
        (
            {"label_separator": ";", "classes": {"k": ["cat", "dog"]}},
            r"row 5: 'bird' is none of dataset.classes.k: cat,",
        ),
        (
            {"label_separator": ";", "classes": {"k": ["cat", "dog", "bird", "cow"]}},
            r"no cell holds 'cow' of dataset.cl",
        ),
        ({"label_separator": ";", "sizes": [4]}, r"tasks.k.num_labels=4, and there are 3 labels: bird, cat, dog"),
    ):
        with pytest.raises(DataError, match=message):
            table("several", cells, **more)
    with pytest.raises(DataError, match=r"needs two or more different ones for task k, found 'a'"):
        table("several", ["a", "a"], label_separator=";")


def test_labels_are_counted_in_each_split():
    dataset = table("classes", ["b", "a", "b", ""])
    assert dataset.label_counts() == {"k": {"a": dict.fromkeys(SPLITS, 1), "b": dict.fromkeys(SPLITS, 2)}}
    dataset = table("several", {"u": [1, 0, ""], "v": [0, 1, 1]})
    assert dataset.label_counts() == {"k": {"u": dict.fromkeys(SPLITS, 1), "v": dict.fromkeys(SPLITS, 2)}}
    with pytest.raises(ValueError, match=r"^classes: there is no task 'kk'; did you mean 'k'\? the tasks are: k"):
        table("classes", [0, 1], classes={"kk": [0, 1]})


def test_a_label_that_no_row_of_training_lists_is_said():
    Path("t.csv").write_text("part,x,k\ntrain,1,a;b\ntrain,2,b\nval,3,a\ntest,4,b;c\n")
    dataset = Table("t.csv", tasks=["k"], kinds=[KINDS["several"]], split_column="part", label_separator=";")
    assert dataset.notes == ["task k: no row of training has 'c', so that cannot be learned"]


def test_lists_of_parquet_are_labels():
    frame = pandas.DataFrame({"part": numpy.repeat(SPLITS, 4), "x": range(12), "k": [["b", "a"], [], None, ["b"]] * 3})
    frame.to_parquet("rows.parquet")
    dataset = Table("rows.parquet", tasks=["k"], kinds=[KINDS["several"]], split_column="part")
    assert dataset.classes == {"k": ["a", "b"]}
    expected = torch.tensor([[1, 1], [0, 0], [math.nan] * 2, [0, 1]])
    torch.testing.assert_close(dataset.split("test").targets["k"], expected, equal_nan=True)


def test_booleans_of_parquet_are_no_and_yes():
    frame = pandas.DataFrame({
        "part": numpy.repeat(SPLITS, 4), "x": range(12), "a": [True, False, False, True] * 3, "b": [1, 0, None, 1] * 3,
        "c": pandas.array([False, None, True, True] * 3, dtype="boolean"),
    })  # fmt: skip
    frame.to_parquet("rows.parquet")
    kinds = [KINDS["several"], KINDS["binary"]]
    dataset = Table("rows.parquet", tasks=["k", "c"], kinds=kinds, targets={"k": ["a", "b"]}, split_column="part")
    assert dataset.split("val").targets["c"].tolist() == [0, -1, 1, 1]
    expected = torch.tensor([[1, 1], [0, 0], [0, math.nan], [1, 1]])
    torch.testing.assert_close(dataset.split("val").targets["k"], expected, equal_nan=True)


def test_labels_in_lists_may_be_weighted(mtlrun):
    write({"t": ["a;b", "a", ";", "b"]})
    command = [*RUN[:6], "+task@tasks.t=multilabel", 'dataset.label_separator=";"']
    for weights in ("balanced", "[1,3]"):
        code, _, err = mtlrun(*command, f"tasks.t.class_weights={weights}")
        assert code == 0, err
    code, _, err = mtlrun(*command, "tasks.t.class_weights=[1,3,2]")
    assert code == 2
    assert "tasks.t.class_weights must be 2 numbers" in err


def test_words_are_no_numbers_and_the_message_names_the_kinds_for_them():
    for kind in ("number", "count"):
        with pytest.raises(
            DataError, match=r"task k predicts numbers, and the column has words, such as 'low'; add it as"
        ):
            table(kind, ["low", "high"])
