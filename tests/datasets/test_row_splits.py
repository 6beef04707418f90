"""How the rows of a table are divided: splits that are given or drawn, strata, groups, time, folds and rare labels."""

import json
import re
import shlex
from collections import Counter
from pathlib import Path

import numpy
import pytest
from helpers import read_record, run_folders
from PIL import Image
from sklearn.model_selection import StratifiedGroupKFold

from mtlrun.datasets import SPLITS, Table
from mtlrun.datasets.tables.reading.read import read
from mtlrun.datasets.tables.splits.division import SplitKeys, split_rows
from mtlrun.errors import DataError

REGRESSION, CLASSIFICATION = "mtlrun.tasks.Regression", "mtlrun.tasks.Classification"
COMMAND = ["dataset=csv", "dataset.path=t.csv", "+task@tasks.y=regression", "trainer=smoke"]


def write(name="t.csv", **columns):
    """Write a table; its columns are lists of cells."""
    lines = [",".join(columns), *(",".join(map(str, cells)) for cells in zip(*columns.values(), strict=True))]
    Path(name).write_text("\n".join(lines) + "\n")
    return name


def divide(label_columns=(), given=None, **keys):
    return split_rows(read("t.csv"), SplitKeys(**keys), given, label_columns)


def sizes(rows):
    return [len(rows[name]) for name in SPLITS]


def table(path="t.csv", **options):
    return Table(path, **({"tasks": ["k"], "kinds": [CLASSIFICATION]} | options))


# ---------------------------------------------------------------------------------------------------------- given


def test_usual_names_are_understood_and_validation_is_drawn_from_train():
    numbers = list(range(100))
    names = ["Train", "TRAINING", " train ", "Testing", "test"] * 20
    write(x=numbers, part=names)
    found = divide(split_column="part")
    assert sizes(found.rows) == [49, 11, 40]
    assert all(names[row].lower().startswith("test") for row in found.rows["test"])
    (note,) = found.notes
    assert note.startswith("column part has no val: 11 of the 60 train rows are val")
    assert divide(split_column="part", split_seed=1).rows["val"].tolist() != found.rows["val"].tolist()
    write(x=numbers, part=["train", "Valid", "dev", "VALIDATION", "test"] * 20)
    assert sizes(divide(split_column="part").rows) == [20, 60, 20]


def test_validation_drawn_from_train_is_stratified_grouped_or_the_latest():
    write(part=["train"] * 80 + ["test"] * 20, k=["a", "b", "b", "b"] * 25, g=[row // 5 for row in range(100)],
          t=[1000 - row for row in range(100)])  # fmt: skip
    fractions = [0.6, 0.2, 0.2]
    rows = divide(split_column="part", stratify=["k"], fractions=fractions).rows
    assert [(rows[name] % 4 == 0).sum() for name in SPLITS] == [15, 5, 5]
    rows = divide(split_column="part", group_column="g", fractions=fractions).rows
    assert sizes(rows) == [60, 20, 20]
    assert not set(rows["train"] // 5) & set(rows["val"] // 5)
    assert divide(split_column="part", time_column="t", fractions=fractions).rows["val"].tolist() == list(range(20))
    write(part=["train", "val", "test"] * 4, k=["a"] * 12)
    with pytest.raises(DataError, match=r"dataset\.stratify must be null: column part gives train, val and test"):
        divide(split_column="part", stratify=["k"])


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["0", "0", "0", "2", "1"], [12, 4, 4]),
        (["train", "train", "train", "holdout", "val"], [12, 4, 4]),
        (["a b", "a b", "c:d", "c:d", "c:d"], [10, 2, 8]),
        (["", "train", "train", "train", "test"], [10, 2, 4]),
        (["True", "True", "False", "False", "False"], [10, 2, 8]),
        (["check", "learn", "learn", "learn", "learn"], [13, 3, 4]),
        (["1", "2", "3", "4", "5"], [12, 4, 4]),
    ],
)
def test_the_line_that_an_unknown_name_asks_for_works_as_it_is_printed(mtlrun, cells, expected):
    write(x=range(20), y=range(20), part=cells * 4)
    command = [*COMMAND, "dataset.split_column=part"]
    code, _, err = mtlrun(*command)
    assert code == 2
    assert "t.csv, column part, row 2" in err or "holdout" in err
    (advice,) = re.findall(r"'dataset\.splits=[^']*'", err)
    code, out, err = mtlrun(*command, *shlex.split(advice))
    assert code == 0, err
    (folder,) = run_folders()
    splits = read_record(folder)["splits"]
    assert [splits[name]["samples"] for name in SPLITS] == expected
    assert ("4 of 20 rows are left out" in out) == (cells[0] == "")


def test_a_mapping_leaves_rows_out_of_everything():
    write(x=[1, 2, 3, 4, 5, "?"], k=["a", "b", "a", "a", "a", "c"], part=["train", "train", "val", "test", "1", "2.0"])
    dataset = table(split_column="part", splits={"1": "test", "2": None})
    assert dataset.classes == {"k": ["a", "b"]}
    assert [dataset.split(name).sample_ids for name in SPLITS] == [[2, 3], [4], [5, 6]]
    assert dataset.notes == ["column part: 1 of 6 rows are left out"]
    with pytest.raises(
        DataError, match=r"no cell of t.csv, column part, is 'Holdout'; it has: train, val, test, 1, 2.0"
    ):
        table(split_column="part", splits={"Holdout": None})
    with pytest.raises(
        DataError, match=r"says test; to test on the val rows, and draw val from train: 'dataset.splits=\{1: "
    ):
        table(split_column="part", splits={"1": None, "2": None, "test": None})


@pytest.mark.parametrize("cells", [["train", "train", "valid"], ["0", "0", "9"], ["train", "train", "Training"]])
def test_a_column_without_test_is_refused_with_the_words_that_settle_it(mtlrun, cells):
    write(x=range(30), y=range(30), part=cells * 10)
    command = [*COMMAND, "dataset.split_column=part"]
    command += ["dataset.splits={0: train, 9: val}"] if "9" in cells else []
    code, _, err = mtlrun(*command)
    assert code == 2
    advice = err.split("from train: ")[1] if "from train" in err else err.split("all splits: ")[1]
    code, _, err = mtlrun(*command, *shlex.split(advice))
    assert code == 0, err
    assert read_record(run_folders()[0])["splits"]["test"]["samples"] == (5 if "Training" in cells else 10)


def test_each_split_may_be_a_file(mtlrun):
    write("a.csv", x=range(40), y=range(40), k=["p", "q"] * 20)
    write("b.csv", k=["q", "p"] * 6, y=range(12), x=range(100, 112))
    command = ["dataset=csv", "dataset.path={train: a.csv, test: b.csv}", "+task@tasks.y=regression", "trainer=smoke"]
    code, out, err = mtlrun(*command)
    assert code == 0, err
    assert "dataset.path has no val: 7 of the 40 train rows are val" in out
    (folder,) = run_folders()
    splits = json.loads((folder / "splits.json").read_text())
    assert splits["test"] == [f"b.csv:{row}" for row in range(2, 14)]
    assert len(set(splits["train"] + splits["val"])) == 40
    dataset = table({"train": "a.csv", "valid": "a.csv", "test": "b.csv"})
    assert [len(dataset.split(name)) for name in SPLITS] == [40, 40, 12]
    assert dataset.split("test").inputs[0, 0] > 5  # scaled by train
    write("b.csv", x=[1], k=["r"], z=[3])
    code, _, err = mtlrun(*command, "seed=1")
    assert code == 2
    assert "b.csv has no column y, as a.csv has; a.csv has no column z, as b.csv has" in err
    write("b.csv", x=[1, "seven"], y=[2, 1], k=["q", "r"])
    code, _, err = mtlrun(*command, "+task@tasks.k=classification", "tasks.k.num_classes=3")
    assert code == 2
    assert (
        "b.csv, column x, row 3: 'seven' is not a number" in err or "b.csv, column k, row 3: 'r' is in the test" in err
    )
    for wrong in ("{train: a.csv}", "{train: a.csv, tset: b.csv}", "{}"):
        code, _, err = mtlrun(f"dataset.path={wrong}", "dataset=csv", "+task@tasks.y=regression")
        assert code == 2
        assert "dataset.path must name a file for" in err
    code, _, err = mtlrun(*command, "dataset.split_column=k")
    assert "dataset.split_column must be null where path names a file for each split" in err


# ---------------------------------------------------------------------------------------------------------- drawn


def test_several_columns_are_stratified_by_their_combinations_and_rare_ones_by_their_values():
    random = numpy.random.default_rng(0)
    one, two = random.choice(list("abc"), 400, p=[0.6, 0.3, 0.1]), random.choice(list("xyz"), 400, p=[0.7, 0.29, 0.01])
    write(one=one, two=two)
    rows = divide(stratify=["one", "two"]).rows
    assert sorted(numpy.concatenate(list(rows.values()))) == list(range(400))
    for cells in (one, two, numpy.char.add(one, two)):
        for value, count in Counter(cells.tolist()).items():
            found = [(cells[rows[name]] == value).sum() for name in SPLITS]
            assert found == pytest.approx([0.7 * count, 0.15 * count, 0.15 * count], abs=2.6), value


def test_a_rare_value_is_in_train_first():
    write(k=["a"] * 30 + ["b"] + ["c"] * 2 + ["d"] * 3 + ["e"] * 5)
    cells = numpy.array(read("t.csv").texts("k"))
    for seed in range(5):
        found = divide(stratify=["k"], split_seed=seed)
        counts = {value: [int((cells[found.rows[name]] == value).sum()) for name in SPLITS] for value in "abcde"}
        assert counts["a"] in ([21, 4, 5], [22, 4, 4])
        assert counts["b"] == [1, 0, 0]
        assert counts["d"][0] >= 1
        assert counts["e"][0] >= 3
        assert found.notes[-1].startswith("column k: in too few rows, or groups, to be in every split: 'b' (1)")
    write(k=range(30))
    with pytest.raises(DataError, match="column k: most of its values are in one or two rows"):
        divide(stratify=["k"])


def test_stratified_groups_stay_together_and_are_as_even_as_those_of_another_program():
    random = numpy.random.default_rng(1)
    groups = random.integers(0, 60, 600)
    labels = (random.random(600) < random.random(60)[groups] ** 2).astype(int)
    write(g=groups, k=labels)
    rows = divide(group_column="g", stratify=["k"]).rows
    assert sum(len(set(groups[rows[name]])) for name in SPLITS) == len(set(groups))
    assert sizes(rows) == pytest.approx([420, 90, 90], abs=12)
    assert [labels[rows[name]].mean() for name in SPLITS] == pytest.approx([labels.mean()] * 3, abs=0.03)

    def unevenness(parts):
        return max(
            abs((labels[part] == value).sum() * 5 / (labels == value).sum() - 1) for part in parts for value in (0, 1)
        )

    folds = [divide(group_column="g", stratify=["k"], num_folds=5, fold=fold).rows["test"] for fold in range(5)]
    others = [test for _, test in StratifiedGroupKFold(5, shuffle=True, random_state=0).split(labels, labels, groups)]
    assert unevenness(folds) <= unevenness(others)


def test_few_groups_leave_no_split_empty():
    write(g=[0] * 10 + [1] * 10 + [2] * 10)
    assert sorted(sizes(divide(group_column="g").rows)) == [10, 10, 10]
    write(g=[0] * 10 + [1] * 10)
    with pytest.raises(DataError, match="empty: 2 groups of column g cannot be divided into 3 splits; a group is in"):
        divide(group_column="g")
    write(g=[0])
    with pytest.raises(DataError, match="split is empty: 1 row cannot be divided into 3 splits; add rows"):
        divide()


@pytest.mark.parametrize(
    "spell",
    [
        str,
        lambda day: f"2024-{1 + day // 28:02}-{1 + day % 28:02}",
        lambda day: f"{1 + day % 28:02}.{1 + day // 28:02}.2024",
        lambda day: f"{1 + day // 28:02}/{1 + day % 28:02}/2024 12:30",
    ],
)
def test_train_is_the_past(spell):
    random = numpy.random.default_rng(2)
    days = random.integers(0, 90, 200)
    write(when=[spell(int(day)) for day in days])
    rows = divide(time_column="when").rows
    assert days[rows["train"]].max() < days[rows["val"]].min()
    assert days[rows["val"]].max() < days[rows["test"]].min()
    assert sizes(rows) == pytest.approx([140, 30, 30], abs=4)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["01/02/2024", "03/04/2024"], "'01/02/2024' may be day and month or month and day"),
        (["2024-01-01", "soon"] + ["2024-01-02"] * 4, r"column t, row 3: 'soon' is no time"),
        (["1", "2", "three"], r"column t, row 4: 'three' is no time"),
        (["1", "", "2"], r"column t, row 3: the cell is empty; every row needs a time"),
        (["1", "1", "2"], "split is empty: column t has too few different times"),
    ],
)
def test_times_that_leave_a_doubt_are_refused(cells, message):
    write(x=[1] * len(cells), t=cells)
    with pytest.raises(DataError, match=message):
        divide(time_column="t")


def test_a_column_of_times_is_no_input_and_a_group_may_not_span_the_splits():
    write(t=range(20), x=range(20), k=["a", "b"] * 10, g=[row // 4 for row in range(20)])
    grouped = table(time_column="t", group_column="g")
    assert grouped.features == ["x"]
    assert {name: rows.tolist() for name, rows in grouped.rows.items()} == {
        "train": list(range(12)), "val": list(range(12, 16)), "test": list(range(16, 20)),
    }  # fmt: skip
    assert table(time_column="t", inputs=["t"]).features == ["t"]
    write(t=range(20), x=range(20), k=["a", "b"] * 10, g=[0, 1] * 10)
    with pytest.raises(DataError, match="column t has too few different times, or the groups of column g overlap"):
        table(time_column="t", group_column="g")


# ---------------------------------------------------------------------------------------------------------- folds


@pytest.mark.parametrize(
    "keys", [{}, {"stratify": ["k"]}, {"group_column": "g"}, {"group_column": "g", "stratify": ["k"]}]
)
def test_each_row_is_in_one_test_fold(keys):
    random = numpy.random.default_rng(3)
    labels, groups = random.choice(list("aab"), 103), random.integers(0, 25, 103)
    write(k=labels, g=groups)
    all_rows = [divide(num_folds=5, fold=fold, **keys).rows for fold in range(5)]
    assert sorted(numpy.concatenate([rows["test"] for rows in all_rows])) == list(range(103))
    for rows in all_rows:
        assert sorted(numpy.concatenate(list(rows.values()))) == list(range(103))
        if "group_column" in keys:
            assert sum(len(set(groups[rows[name]])) for name in SPLITS) == len(set(groups))
        else:
            assert len(rows["test"]) in (20, 21)
            assert len(rows["val"]) == pytest.approx(0.15 / 0.85 * 83, abs=1.5)
        if "stratify" in keys:
            expected = (labels == "b").sum() / 5
            assert (labels[rows["test"]] == "b").sum() == pytest.approx(
                expected, abs=2 if "group_column" in keys else 1
            )
    with pytest.raises(DataError, match=r"are too few for dataset.num_folds=104"):
        divide(num_folds=104, fold=0, **keys)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"num_folds": 1, "fold": 0}, "num_folds must be >= 2"),
        ({"num_folds": 5}, "fold must be a number from 0 to 4 with num_folds=5, found null; a run for each: mtlrun -m"),
        ({"num_folds": 5, "fold": 5}, "fold must be a number from 0 to 4 with num_folds=5, found 5"),
        ({"fold": 0}, "fold must be null without num_folds"),
        ({"num_folds": 5, "fold": 0, "split_column": "part"}, "num_folds must be null where split_column gives"),
        ({"num_folds": 5, "fold": 0, "time_column": "t"}, "num_folds must be null where time_column is set"),
        ({"stratify": ["k"], "time_column": "t"}, "stratify must be null where time_column is set"),
        ({"splits": {"0": "train"}}, "splits needs split_column"),
        ({"splits": {"0": "tset"}, "split_column": "part"}, "splits must map each value to train, val, test or null"),
    ],
)
def test_keys_that_exclude_each_other_are_refused(keys, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        SplitKeys(**keys)


def test_the_study_of_folds_runs_them_all_and_compare_takes_their_mean(mtlrun):
    write(x=range(30), y=range(30))
    command = [*COMMAND, "dataset.num_folds=3", "runtime.quiet=true"]
    code, _, err = mtlrun("-m", "study=folds", "seed=0,1", *command)
    assert code == 0, err
    records = [read_record(folder) for folder in run_folders()]
    rmse = {(one["config"]["dataset"]["fold"], one["config"]["seed"]): one["test"]["y"]["rmse"] for one in records}
    assert len(rmse) == 6
    tests = [json.loads((folder / "splits.json").read_text())["test"] for folder in run_folders()]
    assert sorted(row for rows in tests for row in rows) == sorted([*range(2, 32)] * 2)
    folds = [(rmse[fold, 0] + rmse[fold, 1]) / 2 for fold in range(3)]
    code, out, _ = mtlrun("compare", "outputs/folds")
    assert f"{numpy.mean(folds):.4f} ± {numpy.std(folds, ddof=1):.4f}" in out
    assert out.splitlines()[1].split()[-2:] == ["3", "2"]
    assert "with folds: mean ± standard deviation over the folds" in out
    code, _, err = mtlrun(*command, "dataset.num_folds=4", "dataset.fold=1", "runtime.study=folds")
    assert code == 0, err
    code, out, _ = mtlrun("compare", "outputs/folds")
    assert "1 of 4" in out


# ----------------------------------------------------------------------------------------------------- rare labels


def test_a_label_that_a_drawing_leaves_out_of_train_is_moved_there():
    write(x=range(20), k=["a"] * 9 + ["b"] + ["a"] * 10)
    left_out = [seed for seed in range(20) if 9 not in divide(split_seed=seed).rows["train"]]
    assert left_out
    for seed in left_out:
        found = divide(["k"], split_seed=seed)
        assert 9 in found.rows["train"]
        assert sum(sizes(found.rows)) == 20
        assert found.notes == ["t.csv, column k, row 11 is in train, since no other row there is 'b'"]
        assert table(split_seed=seed).classes == {"k": ["a", "b"]}
    write(x=range(20), k=["a"] * 9 + ["b"] + ["a"] * 10, g=[row // 2 for row in range(20)])
    for seed in range(20):
        rows = divide(["k"], split_seed=seed, group_column="g", fractions=[0.5, 0.25, 0.25]).rows
        assert {8, 9} <= set(rows["train"])


@pytest.mark.parametrize("way", ["classes", "missing"])
def test_both_ways_on_from_a_label_that_given_splits_do_not_train_work_as_printed(mtlrun, way):
    write(
        x=range(30),
        y=range(30),
        k=["a", "b b"] * 10 + ["a"] * 9 + ["true"],
        part=["train"] * 15 + ["val"] * 5 + ["test"] * 10,
    )
    command = [*COMMAND, "+task@tasks.k=classification", "tasks.k.num_classes=3", "dataset.split_column=part"]
    code, _, err = mtlrun(*command)
    assert code == 2
    assert "t.csv, column k, row 31: 'true' is in the test split and not in train" in err
    pattern = "'dataset.classes[^']*'" if way == "classes" else r"'dataset\.missing[^']*' tasks.k.num_classes=null"
    extra = shlex.split(re.search(pattern, err)[0])
    code, out, err = mtlrun(*command, *extra)
    assert code == 0, err
    assert ("row 31: 'true' is in the test split and not in train, so every prediction" in out) == (way == "classes")
    (folder,) = run_folders()
    assert read_record(folder)["splits"]["test"]["labeled"]["k"] == (10 if way == "classes" else 9)


def test_folds_go_on_with_a_label_that_only_the_test_fold_has():
    write(x=range(20), k=["a", "b"] * 9 + ["c", "a"])
    notes = [table(num_folds=4, fold=fold).notes for fold in range(4)]
    assert sum("row 20: 'c' is in the test split and not in train" in " ".join(note) for note in notes) == 1


# ------------------------------------------------------------------------------------------------------ small splits


def test_tiny_splits_and_tasks_without_labels_are_pointed_out(mtlrun):
    write(
        x=range(30), y=range(30), z=[*range(25), "", "", "", "", ""], part=["train"] * 12 + ["val"] * 13 + ["test"] * 5
    )
    code, out, err = mtlrun(*COMMAND, "+task@tasks.z=regression", "dataset.split_column=part", "runtime.quiet=true")
    assert code == 0, err
    assert "the train split has 12 samples: little can be learned from so few" in out
    assert "the val split has 13 samples and the test split has 5 samples: with 5, an error is known within" in out
    assert "the test split has no label of task z, so it has no result" in out


def test_the_tables_of_images_may_be_one_per_split(mtlrun):
    Path("p").mkdir()
    for number in range(30):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(f"p/{number}.png")
    write("a.csv", file=[f"{number}.png" for number in range(20)], y=range(20))
    write("b.csv", file=[f"{number}.png" for number in range(20, 30)], y=range(10))
    command = ["dataset=images", "dataset.root=p", "dataset.size=4", "backbone=mlp", "+task@tasks.y=regression"]
    code, out, err = mtlrun(*command, "dataset.labels={train: a.csv, test: b.csv}", "trainer=smoke")
    assert code == 0, err
    assert "dataset.labels has no val: 4 of the 20 train rows are val" in out
