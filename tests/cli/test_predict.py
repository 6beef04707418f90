"""dataset.predict on the command line: the same run as with all tasks written down, shown before training."""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from helpers import read_record, run_folders

from mtlrun.config.compose import compose
from mtlrun.records.identity import run_id

COMMAND = ["dataset=csv", "dataset.path=penguins.csv", "trainer.epochs=1"]
EXPLICIT = ["+task@tasks.species=classification", "+task@tasks.sex=binary", "+task@tasks.mass=regression",
            "dataset.targets.mass=\"mass (g)\""]  # fmt: skip
PREDICT = 'dataset.predict=[species,sex,"mass (g)"]'


@pytest.fixture(autouse=True)
def _penguins():
    lay("penguins.csv")


def lay(path, species=("Adelie", "Gentoo", "Chinstrap"), rows=60):
    sex = ["male", "female", ""]
    lines = ["bill,species,sex,mass (g)"]
    lines += [
        f"{30 + 7 * row % 31},{species[row % len(species)]},{sex[row // 2 % 3]},{3000 + 25 * (row % 40)}"
        for row in range(rows)
    ]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("\n".join(lines) + "\n")


def test_tasks_are_shown_with_what_was_found_before_training(mtlrun):
    code, out, err = mtlrun(*COMMAND, PREDICT)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[:4] == [
        "found in the data; to choose another kind of task: +task@tasks.<name>=<kind>",
        "  species: classification: 3 classes, Adelie (20), Chinstrap (20), Gentoo (20)",
        "  sex: binary: female (20), male (20), 20 empty; positive is male, by the alphabet; for the other: "
        "tasks.sex.positive=female",
        "  mass_g: regression: 40 different whole numbers from 3000 to 3975; from column 'mass (g)'",
    ]
    assert sum("tasks.sex.positive=female" in line for line in lines) == 1  # and not once more as a note
    (folder,) = run_folders()
    assert folder.name.startswith("hard-equal-lr0.001-s0-penguins-")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["found"]["species"] == lines[1].removeprefix("  species: ")
    assert config["tasks"]["sex"]["_target_"] == "mtlrun.tasks.BinaryClassification"
    assert config["dataset"]["targets"] == {"mass_g": "mass (g)"}
    assert lines[1] in (folder / "run.log").read_text()


def test_the_run_is_that_of_the_tasks_written_down(mtlrun):
    quick = [*COMMAND, "runtime.quiet=true"]
    assert mtlrun(*quick, *EXPLICIT, "tasks.sex.class_weights=balanced")[0] == 0
    target = 'dataset.targets.mass="mass (g)"'
    code, out, _ = mtlrun(*quick, PREDICT, target, "tasks.sex.class_weights=balanced")
    assert code == 0
    (folder,) = run_folders()  # the same run
    assert f"{folder}: completed" in out
    code, out, _ = mtlrun(
        *quick,
        "dataset.predict=[species,sex,mass]",
        target,
        "tasks.sex.class_weights=balanced",
        "+task@tasks.sex=binary",
    )
    assert (code, len(run_folders())) == (0, 1)


def test_sweeps_over_keys_of_tasks_that_are_found(mtlrun):
    code, _, err = mtlrun(
        "-m", *COMMAND, "runtime.quiet=true", "dataset.predict=[sex],[sex,species]",
        "tasks.sex.class_weights=none,balanced", "tasks.sex.label_smoothing=0.1",
    )  # fmt: skip
    assert code == 0, err
    records = [read_record(folder) for folder in run_folders()]
    found = {
        (tuple(record["config"]["tasks"]), record["config"]["tasks"]["sex"]["class_weights"]) for record in records
    }
    assert found == {(tasks, weights) for tasks in [("sex",), ("sex", "species")] for weights in ("none", "balanced")}
    assert {record["config"]["tasks"]["sex"]["label_smoothing"] for record in records} == {0.1}
    code, _, err = mtlrun("-m", *COMMAND, "dataset.predict=[sex]", "tasks.sex.class_wights=none,balanced")
    assert code == 2
    assert err.count("tasks.sex.class_wights: unknown key; did you mean 'class_weights'?") == 1


def test_a_yaml_of_ones_own_may_predict_and_set_keys(mtlrun):
    Path("conf/dataset").mkdir(parents=True)
    Path("conf/dataset/birds.yaml").write_text(
        "# @package _global_\ndefaults: [csv]\ndataset: {path: penguins.csv, predict: [species, sex]}\n"
        "tasks: {sex: {class_weights: balanced, label_smoothing: 0.1}}\n"
    )
    config = compose(["dataset=birds", "tasks.sex.label_smoothing=0.2"], "conf")
    assert list(config["tasks"]) == ["species", "sex"]
    assert config["tasks"]["sex"]["class_weights"] == "balanced"
    assert config["tasks"]["sex"]["label_smoothing"] == 0.2
    assert run_id(config).startswith("hard-equal-lr0.001-s0-birds-")  # an option of the user's has a name
    code, _, err = mtlrun("--config-dir", "conf", "dataset=birds", "~tasks.sex")
    assert (code, err) == (2, "mtlrun: ~tasks.sex: dataset.predict asks for this task; leave it out there\n")
    code, _, err = mtlrun("--config-dir", "conf", "dataset=birds", "~tasks.species")
    assert code == 2
    assert "~tasks.species: there is no such key; what dataset.predict asks for is to be left out there" in err
    code, _, err = mtlrun("--config-dir", "conf", "dataset=birds", "trainer.epochs=1", "runtime.quiet=true")
    assert code == 0, err


def test_cfg_job_shows_the_tasks_that_are_found(mtlrun):
    code, out, err = mtlrun(*COMMAND, "dataset.predict=[sex]", "tasks.sex.class_weights=balanced", "--cfg", "job")
    assert code == 0, err
    shown = yaml.safe_load(out)
    assert shown["tasks"]["sex"]["_target_"] == "mtlrun.tasks.BinaryClassification"
    assert shown["tasks"]["sex"]["class_weights"] == "balanced"
    assert shown["tasks"]["sex"]["lr"] == "${optimizer.lr}"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("data/penguins.csv.gz", "penguins"),
        ("Größe der Wale (2).csv", "Größe_der_Wale_2"),
        (".hidden.csv", "hidden"),
        ("{train: adult_train.csv, test: adult_test.csv}", "adult"),
        ("{train: adult/train.csv, test: adult/test.csv}", "adult"),
        ("{train: train.csv, test: test.csv}", "train"),
        (f"{'x' * 200}.csv", "x" * 60),
    ],
)
def test_a_run_is_named_after_its_file(path, name):
    quoted = path if path.startswith("{") else f'"{path}"'
    config = compose(["dataset=csv", f"dataset.path={quoted}", "+task@tasks.sex=binary"])
    assert run_id(config).startswith(f"hard-equal-lr0.001-s0-{name}-")
    assert config["names"]["dataset"] == "csv"
    named = compose(["dataset=csv", f"dataset.path={quoted}", "+task@tasks.sex=binary", "dataset.name=mine"])
    assert "-s0-mine-" in run_id(named)
    assert "name" not in config["dataset"]


def test_images_are_named_after_their_table_and_other_datasets_by_their_option():
    images = compose(["dataset=images", "dataset.root=a", "dataset.labels=photos.csv", "+task@tasks.k=binary"])
    assert "-s0-photos-" in run_id(images)
    assert "-s0-multidigits-" in run_id(compose([]))


def test_notes_on_labels_do_not_repeat_what_was_found(mtlrun):
    grades = [f"{row % 7},{1 + row % 2},{(5, 7, 9)[row % 3]},{'ab'[row % 2]}" for row in range(60)]
    Path("grades.csv").write_text("\n".join(["x,sex,grade,letter (a or b)", *grades]) + "\n")
    predict = 'dataset.predict=[sex,grade,"letter (a or b)"]'
    code, out, err = mtlrun("dataset=csv", "dataset.path=grades.csv", predict, "trainer.epochs=1")
    assert code == 0, err
    (folder,) = run_folders()
    notes = [note for note in read_record(folder)["notes"] if note.startswith("task ")]
    assert notes == ["task sex: the label 1 is no (0) and 2 is yes (1), by value",
                     "task grade: the labels are numbered by value: 5 is 0, 7 is 1, 9 is 2",
                     "task letter_a_or_b: 'b' is yes (1) and 'a' is no (0), by the alphabet; for the other order: "
                     "tasks.letter_a_or_b.positive=a"]  # fmt: skip
    assert not any(note in out for note in notes)
    assert "sex: binary: 1 (30), 2 (30); positive is 2; for the other: tasks.sex.positive=1" in out


def test_the_result_names_the_positive_class_and_counts_of_others(mtlrun):
    arguments = [*COMMAND, "dataset.predict=[species,sex]", "tasks.sex.positive=female"]
    code, out, err = mtlrun(*arguments)
    assert code == 0, err
    (folder,) = run_folders()
    targets = read_record(folder)["learned"]["targets"]
    assert targets["sex"]["positive"] == "female"
    count = targets["sex"]["labels"]
    of_split = ", ".join(
        f"{count['female'][split]} of {count['female'][split] + count['male'][split]} in {split}"
        for split in ("train", "val", "test")
    )
    line = f"sex: positive is female ({of_split})"
    assert line in out.splitlines()
    assert any(
        re.fullmatch(r"species: Adelie \(\d+/\d+/\d+\), .* in train/val/test", text) for text in out.splitlines()
    )
    assert line in mtlrun(*arguments)[1].splitlines()  # when it is shown again, too


def test_predict_without_a_file_is_refused_in_one_line(mtlrun):
    expected = "mtlrun: dataset.path must name a CSV or Parquet file, as in dataset.path=houses.csv, found null\n"
    assert mtlrun("dataset=csv", "dataset.predict=[a]") == (2, "", expected)


def test_a_positive_class_is_a_label_of_a_table(mtlrun):
    code, _, err = mtlrun(*COMMAND, "dataset.predict=[sex]", "tasks.sex.positive=femal")
    assert code == 2
    assert (
        "no cell holds the label of tasks.sex.positive=femal; did you mean 'female'? labels found: female, male" in err
    )
    code, _, err = mtlrun(*COMMAND, "+task@tasks.sex=binary", "tasks.sex.positive=true")
    assert code == 2
    assert "tasks.sex.positive must be" in err
    assert not run_folders()


def test_other_tasks_of_the_data_are_not_asked_for_a_positive_class(mtlrun):
    code, _, err = mtlrun("+task@tasks.left=binary", "~tasks.left.num_classes", "tasks.left.positive=x")
    assert code == 2
    assert "tasks.left.positive=x: the labels of dataset=multidigits are 0 and 1" in err


def test_compare_keeps_tables_apart(mtlrun):
    quick = ["trainer.epochs=1", "runtime.quiet=true", "dataset=csv"]
    lay("a/birds.csv")
    lay("b/birds.csv", species=("one", "two"))
    for path in ("penguins.csv", "a/birds.csv", "b/birds.csv"):
        assert mtlrun(*quick, f"dataset.path={path}", "dataset.predict=[species]")[0] == 0
    Path("moved").mkdir()
    shutil.copy("a/birds.csv", "moved/birds.csv")
    assert mtlrun(*quick, "dataset.path=moved/birds.csv", "dataset.predict=[species]", "seed=1")[0] == 0
    code, out, err = mtlrun("compare", "outputs")
    assert code == 0, err
    lines = [line.strip() for line in out.splitlines()]
    assert "penguins" in lines
    birds = [line for line in lines if line.startswith("birds")]
    assert len(birds) == 2
    first = next(lines.index(line) for line in birds if line != "birds (b/birds.csv)")
    assert "species accuracy ↑" in lines[first + 1]  # the same data in another place: one row of two seeds
    assert lines[first + 2].endswith(" 2")
    second = lines.index("birds (b/birds.csv)")
    assert "species auroc ↑" in lines[second + 1]


def test_a_file_that_becomes_another_table_gets_a_table_of_its_own(mtlrun):
    """A cell that is corrected does not make another table, other columns do; square brackets are no markup."""
    quick = [*COMMAND, "runtime.quiet=true"]
    assert mtlrun(*quick, "dataset.predict=[sex]")[0] == 0
    lay("penguins.csv", rows=61)
    assert mtlrun(*quick, "dataset.predict=[sex]", "seed=1")[0] == 0
    code, out, _ = mtlrun("compare", "outputs")
    assert code == 0
    assert out.splitlines()[0].split()[0] == "data"
    assert len([line for line in out.splitlines() if line.endswith(" 1 of 2, 1 missing")]) == 2
    lines = ["left,right,sex,[/b]", *(f"{row},{row % 7},{row % 2},{row % 3 / 2}" for row in range(60))]
    Path("penguins.csv").write_text("\n".join(lines) + "\n")
    assert mtlrun(*quick, "dataset.predict=[sex]")[0] == 0  # a finished run, of the table before
    assert mtlrun(*quick, "dataset.predict=[sex]", "seed=2")[0] == 0
    assert mtlrun(*quick, "dataset.predict=[sex]", 'dataset.inputs=["[/b]"]', "seed=2")[0] == 0
    code, out, _ = mtlrun("compare", "outputs")
    assert code == 0
    titles = [line.strip() for line in out.splitlines() if line.strip().startswith("penguins")]
    assert len(titles) == 2
    assert all(title.startswith("penguins (penguins.csv)") for title in titles)
    assert "[/b]" in out


def test_tasks_of_one_name_and_several_kinds_have_columns_of_their_own(mtlrun):
    quick = [*COMMAND, "runtime.quiet=true", 'dataset.targets.mass="mass (g)"']
    for kind in ("regression", "count", "ordinal"):
        assert mtlrun(*quick, f"+task@tasks.mass={kind}")[0] == 0
    code, out, err = mtlrun("compare", "outputs")
    assert code == 0, err
    head = out.splitlines()[0]
    assert "mass mae (Count) ↓" in head
    assert "mass mae (Ordinal) ↓" in head
    rows = [line.split() for line in out.splitlines()[1:4]]
    assert all(row.count("-") == 2 for row in rows)
