"""dataset.predict: the kind of each task is found in its column."""

import random
import re
import subprocess
import sys
from pathlib import Path

import numpy
import pandas
import pytest
import torch
from torch import nn

from mtlrun.config.compose import compose
from mtlrun.config.schema import RESERVED
from mtlrun.datasets.tables.labels.levels import order_of_levels
from mtlrun.datasets.tables.reading import source
from mtlrun.errors import ConfigError, DataError
from mtlrun.setup.prepare import prepare

ROWS = 120
VISITS = [0, 7, 0, 1, 1, 2, 0, 1, 3, 4, 0, 2, 5, 0, 1, 10, 0, 6, 8, 12]
RANDOM = random.Random(0)


def column(make):
    return [make(row) for row in range(ROWS)]


def write(**columns):
    names = list(columns)
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(f'"{cell}"' if "," in str(cell) else str(cell) for cell in row) for row in rows]
    Path("t.csv").write_text("\n".join([",".join(names), *lines]) + "\n")


def found(*overrides, predict="y"):
    return compose(["dataset=csv", "dataset.path=t.csv", f"dataset.predict=[{predict}]", *overrides])


def kinds(config):
    return {task: re.sub(r".*\.", "", node["_target_"]) for task, node in config["tasks"].items()}


KINDS = {
    "price": (lambda row: 75_000 + 997 * row % 5_000, "Regression"),
    "decimals": (lambda row: row / 4, "Regression"),
    "negative": (lambda row: row % 40 - 20, "Regression"),
    "stars": (lambda row: row % 5 / 2, "Regression"),  # halves
    "year": (lambda row: 1990 + row % 30, "Regression"),
    "age": (lambda row: row * 7 % 90, "Regression"),  # from 0 on, but not mostly small
    "gain": (lambda row: 0 if row % 10 else row * 100, "Regression"),  # from 0 on, with gaps
    "visits": (lambda row: VISITS[row % 20], "Count"),
    "digit": (lambda row: row % 10, "Classification"),
    "rooms": (lambda row: [0, 0, 1, 2, 0, 1, 4, 3][row % 8], "Classification"),
    "code": (lambda row: [6, 12, 16, 0][row % 4], "Classification"),
    "word": (lambda row: ["a", "b", "c"][row % 3], "Classification"),
    "flag": (lambda row: row % 2, "BinaryClassification"),
    "signed": (lambda row: row % 2 * 2 - 1, "BinaryClassification"),
    "halves": (lambda row: [0.5, 1.5][row % 2], "BinaryClassification"),
    "answer": (lambda row: ["No", "Yes"][row % 2], "BinaryClassification"),
    "level": (lambda row: ["high", "low", "medium"][row % 3], "Ordinal"),
    "size": (lambda row: ["S", "M", "L", "XL"][row % 4], "Ordinal"),
    "range": (lambda row: ["18-25", "<18", "65+", "26-64"][row % 4], "Ordinal"),
    "tags": (lambda row: ["a;b", "b;c;a", "c", "a;c", "b;c", "", "a;b;c"][row % 7], "MultiLabel"),
}  # fmt: skip


def test_numbers_that_hardly_differ_are_written_with_the_digits_that_differ():
    write(x=column(float), near=column(lambda row: f"{1e9 + 0.37 * row:.2f}"), far=column(lambda row: row + 0.25))
    lines = found(predict="near,far")["found"]
    assert lines["near"] == "regression: numbers from 1000000000 to 1000000044"
    assert lines["far"] == "regression: numbers from 0.25 to 119.25"


def test_each_column_gets_the_kind_that_it_looks_like():
    write(x=column(float), **{name: column(make) for name, (make, _) in KINDS.items()})
    config = found(predict=",".join(KINDS))
    assert kinds(config) == {name: kind for name, (_, kind) in KINDS.items()}
    assert config["dataset"]["classes"] == {}
    learned = prepare(config).learned["targets"]
    assert list(learned["level"]["labels"]) == ["low", "medium", "high"]
    assert list(learned["size"]["labels"]) == ["S", "M", "L", "XL"]
    assert list(learned["range"]["labels"]) == ["<18", "18-25", "26-64", "65+"]
    assert config["dataset"]["label_separator"] == ";"
    assert config["dataset"]["targets"] == {}
    lines = config["found"]
    assert list(lines) == list(KINDS)
    assert lines["answer"] == "binary: No (60), Yes (60); positive is Yes; for the other: tasks.answer.positive=No"
    assert lines["word"] == "classification: 3 classes, a (40), b (40), c (40)"
    assert lines["level"].startswith("ordinal: low (40) < medium (40) < high (40); for another order: ")
    assert "+task@tasks.digit=ordinal" in lines["digit"]
    assert "+task@tasks.digit=regression" in lines["digit"]
    assert "+task@tasks.rooms=count" in lines["rooms"]
    assert re.fullmatch(r"regression: 120 different whole numbers from \d+ to \d+", lines["price"])
    assert lines["age"].endswith("; if they are numbers of things: +task@tasks.age=count")
    assert "+task@tasks.visits=regression" in lines["visits"]
    assert lines["tags"].startswith("multilabel: lists with ';' between labels, a (")
    assert "17 empty" in lines["tags"]


def test_few_rows_of_each_whole_number_are_no_classes():
    write(x=column(float), y=column(lambda row: row % 13 if row < 13 else ""))
    with pytest.raises(DataError, match="one in each row, as numbers of rows are"):
        found()
    write(x=column(float), y=column(lambda row: (row + 3) % 9 + 1 if row < 30 else ""))
    config = found()
    assert kinds(config) == {"y": "Regression"}
    assert "if they are classes: +task@tasks.y=classification" in config["found"]["y"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda row: f"text {row}", "120 different texts in 120 rows, such as 'text 0', are no classes"),
        (lambda row: f"text {row // 2}", "60 different texts in 120 rows"),
        (lambda row: f"2024-01-{row % 28 + 1:02}", "a date or a time, which cannot be predicted as it is"),
        (lambda row: f"{row % 3 + 1}.000,5", "numbers in this notation: "),
        (lambda row: "oops" if row == 5 else row / 3, "for missing labels: 'dataset.missing=.*oops"),
        (lambda row: "1.2.3" if row == 5 else row / 3, "y: '1.2.3' in row 7, where most .* are numbers; correct them"),
        (lambda row: f"{row}%", "y: '0%' in row 2 is a number with a sign; take .* out of the file .*; as classes: "),
        (lambda row: "n/a" if row == 5 else "ab"[row % 2], "if 'n/a' .* stands for a missing label"),
        (lambda row: row, "one in each row, as numbers of rows are"),
        (lambda row: 2**60 + row % 40, "whole numbers of more than 15 digits, as ids are"),
        (lambda row: "same", "every label is 'same', so task y has nothing to learn"),
        (lambda row: "", "every cell is empty, so there is nothing to predict"),
        (lambda row: f"[{row / 7}, {row / 9}]", "2[0-9]{2} different labels in the lists of 120 rows, .* are too many"),
        (lambda row: "[]", "every list is empty, so there is nothing to predict"),
    ],
)
def test_what_cannot_be_predicted_is_refused_in_one_line(make, message):
    write(x=column(float), y=column(make))
    with pytest.raises(DataError, match=message) as raised:
        found()
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("overrides", "predict", "message"),
    [
        ([], "z", "there is no column 'z' for dataset.predict; .*it has: x, y"),
        ([], "", "must name one or more columns to predict, as in dataset.predict=\\[y\\]; t.csv has: x, y"),
        ([], "y,y", "must hold different columns, found 'y' twice"),
        (["dataset.targets.t=y"], "y,t", "names task t twice"),
        (["dataset.id_column=y"], "y", "'y' is dataset.id_column, which describes rows"),
        (["dataset.separator='('"], "y", "dataset.separator must be|t.csv"),
        (["dataset.path=5"], "y", "dataset.path must be a text or a mapping, found 5"),
        (["dataset.missing=NA"], "y", "dataset.missing must be a list"),
        (["dataset.encoding=utf9"], "y", "dataset.encoding must name one that Python knows.*found 'utf9'"),
        (["dataset.encoding=8"], "y", "dataset.encoding must be a text, found 8"),
        (["dataset.targets.z=true"], "y", "dataset.targets.z must be"),
        (["tasks.y.positive=c"], "y", "no cell holds the label of tasks.y.positive=c; labels found: a, b"),
        (["tasks.y.positive=a", "dataset.classes.y=[a,b]"], "y", "dataset.classes.y has it first, as no"),
    ],
)
def test_keys_that_do_not_fit_the_table_are_refused(overrides, predict, message):
    write(x=column(float), y=column(lambda row: "ab"[row % 2]))
    with pytest.raises((ConfigError, DataError), match=message):
        found(*overrides, predict=predict)


def test_a_first_line_without_names_is_pointed_out():
    for line in ("0.5,1,no", "My table", "x  y  z"):
        Path("t.csv").write_text("\n".join([line, line.replace(" ", ""), ""]))
        with pytest.raises(DataError, match=r"no column 'y' for dataset.predict; .*; the first line must hold the"):
            found()


def test_a_path_may_begin_at_the_users_home(monkeypatch):
    write(x=column(float), y=column(lambda row: "ab"[row % 2]))
    monkeypatch.setenv("HOME", str(Path.cwd()))
    assert kinds(compose(["dataset=csv", "dataset.path=~/t.csv", "dataset.predict=[y]"])) == {
        "y": "BinaryClassification"
    }


def test_what_the_user_sets_counts():
    write(x=column(float), y=column(lambda row: row % 5), s=column(lambda row: "ab"[row % 2]))
    config = found(
        "tasks.s.class_weights=balanced", "tasks.s.positive=a", "+task@tasks.y=ordinal", "optimizer.lr=0.5",
        "tasks.y.lr=0.25", predict="s,y",
    )  # fmt: skip
    assert kinds(config) == {"s": "BinaryClassification", "y": "Ordinal"}
    assert config["tasks"]["s"]["class_weights"] == "balanced"
    assert (config["tasks"]["s"]["lr"], config["tasks"]["y"]["lr"]) == (0.5, 0.25)
    assert config["dataset"]["positives"] == ["a", None]
    assert list(config["found"]) == ["s"]
    assert not {"predict", "task_finder", "name"} & config["dataset"].keys()


def test_columns_whose_names_are_none_of_tasks():
    columns = ["body mass (g)", "Größe", "type", "body mass [g]", "价格", "2nd"]
    write(x=column(float), **{name: column(lambda row: row / 2) for name in columns})
    config = found(predict=",".join(f'"{name}"' for name in columns))
    assert config["dataset"]["targets"] == {
        "body_mass_g": "body mass (g)", "Grosse": "Größe", "task_type": "type", "body_mass_g_2": "body mass [g]",
        "task": "价格", "task_2nd": "2nd",
    }  # fmt: skip
    assert list(config["tasks"]) == list(config["dataset"]["targets"])
    assert config["found"]["task"] == "regression: numbers from 0 to 59.5; from column '价格'"
    config = found('dataset.targets.mass="body mass (g)"', predict='"body mass (g)"')
    assert list(config["tasks"]) == ["mass"]
    config = found("dataset.targets.both=[2nd,Größe]", predict="both")
    assert kinds(config) == {"both": "Regression"}
    assert config["tasks"]["both"]["num_outputs"] == 2


def test_names_that_tasks_cannot_have_are_known_without_pytorch():
    of_pytorch = {name for name in dir(nn.ModuleDict) if re.fullmatch(r"[A-Za-z]\w*", name)}
    assert of_pytorch <= RESERVED


def test_parquet_gives_order_and_lists():
    pytest.importorskip("pyarrow")
    grades = pandas.Categorical(
        [["ok", "bad", "fine"][row % 3] for row in range(ROWS)], ["bad", "ok", "fine"], ordered=True
    )
    lists = [[["a"], ["b", "c"], [], ["a", "c"]][row % 4] for row in range(ROWS)]
    frame = pandas.DataFrame(
        {"x": numpy.arange(ROWS) / 3, "grade": grades, "tags": lists, "sure": numpy.arange(ROWS) % 3 == 0}
    )
    frame.to_parquet("t.parquet")
    config = compose(["dataset=csv", "dataset.path=t.parquet", "dataset.predict=[grade,tags,sure]"])
    assert kinds(config) == {"grade": "Ordinal", "tags": "MultiLabel", "sure": "BinaryClassification"}
    assert config["dataset"]["classes"] == {}
    assert config["found"]["grade"] == (
        "ordinal: bad (40) < ok (40) < fine (40), in the order of the file; for another order: "
        "'dataset.classes.grade=[bad,ok,fine]'; if it does not matter: +task@tasks.grade=classification"
    )
    assert "positive is True" in config["found"]["sure"]


def test_the_order_of_levels_is_certain_or_unknown():
    certain = [
        ["low", "medium", "high"], ["very_low", "medium", "very high"], ["XS", "S", "M"], ["Never", "Often", "Always"],
        ["strongly disagree", "neutral", "agree"], ["<18", "18-25", "26-40", "40+"], ["under 5", "5 to 9", "over 9"],
        ["$1,000-2,000", "$2,001-3,000", "> $3,000"],
    ]  # fmt: skip
    for levels in certain:
        shuffled = RANDOM.sample(levels, len(levels))
        order = order_of_levels(shuffled)
        assert order is not None, levels
        assert [shuffled[place] for place in order] == levels
    for names in (["a", "b", "c"], ["low", "high"], ["low", "medium", "red"], ["med", "medium", "high"], ["2-1", "1-2"],
                  ["1-5", "3-8", "9-10"], ["A", "B", "C", "D", "F"], ["Mon", "Tue", "Wed"]):  # fmt: skip
        assert order_of_levels(names) is None, names


def test_a_table_is_read_once(monkeypatch):
    calls, read = [], source.read
    monkeypatch.setattr(source, "read", lambda *arguments, **keys: calls.append(arguments) or read(*arguments, **keys))
    write(x=column(float), y=column(lambda row: row % 3), s=column(lambda row: "ab"[row % 2]))
    config = found(predict="y,s")
    parts = prepare(config)
    assert len(calls) == 1
    Path("t.csv").write_text(Path("t.csv").read_text() + "0.5,2,a\n")
    explicit = prepare({**config, "dataset": {**config["dataset"]}})
    assert len(calls) == 2  # what was read ahead is used up
    assert sum(len(loader.split) for loader in explicit.loaders.values()) == ROWS + 1
    targets = parts.dataset.split("train").targets
    assert torch.equal(targets["y"].unique(), torch.arange(3))


def test_a_file_that_changes_after_it_was_read_ahead_is_read_again():
    write(x=column(float), y=column(lambda row: row % 3))
    config = found()
    Path("t.csv").write_text(Path("t.csv").read_text() + "0.5,2\n")
    assert sum(len(loader.split) for loader in prepare(config).loaders.values()) == ROWS + 1


def test_tasks_are_found_without_pytorch(tmp_path):
    write(x=column(float), y=column(lambda row: row % 3))
    program = (
        "import sys; from mtlrun.config.compose import compose; "
        "compose(['dataset=csv', 'dataset.path=t.csv', 'dataset.predict=[y]']); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"
