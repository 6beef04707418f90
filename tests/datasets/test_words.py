"""Names and labels that YAML takes for numbers, booleans or null: read as meant, or refused with what to write."""

from pathlib import Path

import pytest
from helpers import read_record, run_folders

from mtlrun.config.instantiate import check_arguments
from mtlrun.datasets import SPLITS, Images, Table
from mtlrun.datasets.tables.words import label_value

# Columns with the names of numbers and booleans; the labels of `k` are numbers, written in several ways.
ROWS = "1,2,2019,true,part,k\n" + "".join(
    f"{row},{row * 7 % 5},{row / 3},{row % 3},{part},{('01', '1e1', '2.50')[row % 3]}\n"
    for part in SPLITS
    for row in range(12)
)
RUN = ["dataset=csv", "dataset.path=rows.csv", "trainer=smoke", "runtime.quiet=true"]


@pytest.fixture(autouse=True)
def _rows():
    Path("rows.csv").write_text(ROWS)


def table(**options):
    given = {"tasks": ["k"], "kinds": ["mtlrun.tasks.Classification"], "split_column": "part", "inputs": [1]} | options
    return Table("rows.csv", **given)


def test_whole_numbers_are_the_names_of_columns(mtlrun):
    keys = ["dataset.targets.y=2019", "+task@tasks.y=regression", "dataset.inputs=[1,2]", "dataset.categorical=[2]",
            "dataset.split_column=part"]  # fmt: skip
    code, _, err = mtlrun(*RUN, *keys)
    assert code == 0, err
    assert table(inputs=[1, 2], categorical=[2]).features[:2] == ["1", "2=0"]
    drawn = {"split_column": None, "inputs": ["part"]}
    grouped = table(**drawn, group_column=1).rows["train"] % 12
    assert not set(grouped) & set(table(**drawn, group_column=1).rows["test"] % 12)
    assert table(weight_column=1).split("train").sample_weights.tolist() == list(range(12))


def test_a_column_that_is_called_true_needs_quotes(mtlrun):
    for key in ("split_column", "group_column", "id_column", "weight_column", "stratify"):
        code, _, err = mtlrun(*RUN, "+task@tasks.k=classification", f"dataset.{key}=true")
        assert code == 2
        assert f"dataset.{key} must be a text, a whole number" in err
        assert "found True; true, yes and on are booleans in YAML" in err
        assert f"\"dataset.{key}='true'\"" in err
    code, _, err = mtlrun(*RUN, "+task@tasks.k=classification", "dataset.inputs=[1,true]", "dataset.targets.k=false")
    assert code == 2
    assert "dataset.targets.k must be" in err
    assert "\"dataset.targets.k='false'\"" in err
    assert "\"dataset.inputs=['true']\"" in err
    assert not run_folders()
    code, _, err = mtlrun(*RUN, "+task@tasks.k=classification", "dataset.weight_column='true'", "tasks.k.num_classes=3")
    assert code == 0, err


@pytest.mark.parametrize("value", [True, None, 1.5])
def test_what_names_no_column_is_refused_in_python_too(value):
    with pytest.raises(ValueError, match=r"^targets.k must name a column, found .*; a text needs quotes, as in"):
        table(targets={"k": value})
    assert check_arguments(
        Images, {"root": "a", "labels": "b", "tasks": [], "kinds": [], "file_column": value}, "dataset"
    )


def test_numeric_labels_are_compared_as_numbers():
    for classes in ([1, 2.5, 10], ["1.0", "2.5", "1e1"]):
        assert table(classes={"k": classes}).split("val").targets["k"].tolist() == [0, 2, 1] * 4
    with pytest.raises(ValueError, match=r"^classes.k must hold different labels, found 1 and '1.0'"):
        table(classes={"k": [1, "1.0", 2.5]})
    assert label_value("1e3") == label_value("1000.0") == label_value("+1000")
    assert label_value("9007199254740993") != label_value("9007199254740992")
    assert {label_value(text) for text in ("nan", "inf", "1_0", "a1")} == {"nan", "inf", "1_0", "a1"}


def test_labels_that_are_booleans_in_yaml_need_quotes(mtlrun):
    Path("conf/dataset").mkdir(parents=True)
    text = (
        "# @package _global_\n# Yes or no.\ndefaults: [csv, {/task@tasks.k: classification}]\ndataset:\n  path: t.csv\n"
    )
    Path("t.csv").write_text("x,k\n" + "".join(f"{row},{('no', 'yes')[row % 2]}\n" for row in range(40)))
    for labels, code in (("[no, yes]", 2), ("['no', 'yes']", 0)):
        Path("conf/dataset/mine.yaml").write_text(
            text + f"  classes: {{k: {labels}}}\ntasks: {{k: {{num_classes: 2}}}}\n"
        )
        found, _, err = mtlrun("--config-dir", "conf", "dataset=mine", "trainer=smoke", "runtime.quiet=true")
        assert found == code, err
        if code:
            assert "dataset.classes.k must be a list of texts or numbers, found" in err
            assert (
                "false, no and off are booleans in YAML; a text needs quotes, as in "
                "\"dataset.classes.k=['false']\", or 'no', as it stands in the file" in err
            )


def test_keys_of_open_mappings_need_no_plus(mtlrun):
    keys = ["+task@tasks.k=classification", "tasks.k.num_classes=3", "dataset.targets.k=k"]
    code, _, err = mtlrun(*RUN, *keys, "dataset.classes.k=[10,1,2.5]")
    assert code == 0, err
    (folder,) = run_folders()
    assert read_record(folder)["config"]["dataset"]["classes"] == {"k": [10, 1, 2.5]}
