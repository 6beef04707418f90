"""docs/your_data.md is true: its commands work on its files, as they stand there."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import read_record, run_folders

DOCUMENT = Path(__file__).parents[2] / "docs" / "your_data.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)


@pytest.fixture(autouse=True)
def project():
    """Lay the document's files into the empty folder of the test."""
    Path("houses.csv").write_text(*blocks("csv"))
    Path("make_photos.py").write_text(*blocks("python"))
    Path("conf/dataset").mkdir(parents=True)
    Path("conf/dataset/houses.yaml").write_text(*blocks("yaml"))


def test_the_commands_of_the_document_work(mtlrun):
    shown = []
    for line in "".join(blocks("sh")).splitlines():
        program, *arguments = shlex.split(line)
        if program == "python":
            subprocess.run([sys.executable, *arguments], check=True)
            continue
        code, out, err = mtlrun(*arguments)
        assert code == 0, err
        shown.append(out)
    assert any("Houses: price, kind" in out for out in shown)
    records = [read_record(folder) for folder in run_folders()]
    trained = sorted((record["config"]["names"]["dataset"], *record["config"]["tasks"]) for record in records)
    assert trained == [
        ("csv", "kind"),
        ("csv", "price", "kind"),
        ("houses", "price"),
        ("houses", "price", "kind", "quick"),
        ("houses", "price", "kind", "quick"),
        ("images", "color", "brightness"),
    ]


HOUSES = ["--config-dir", "conf", "dataset=houses"]


@pytest.mark.parametrize(
    ("old", "new", "arguments", "message"),
    [
        ("655000", "about 600000", [], "houses.csv, column price, row 7: 'about 600000' is not a finite number"),
        ("", "", ["+task@tasks.prise=regression"], "there is no column 'prise' for task prise; did you mean 'price'?"),
        (
            "",
            "",
            ["tasks.kind.num_classes=2"],
            "column kind: tasks.kind.num_classes=2, and the column has 3 labels: flat",
        ),
        ("", "", ["dataset.path=nowhere.csv"], "nowhere.csv: there is no such file, as seen from "),
        ("", "", ["dataset.fractions=[0.5,0.5,0.5]"], "dataset.fractions must be three numbers > 0 that sum to 1"),
    ],
)
def test_errors_end_the_command_and_leave_nothing(mtlrun, old, new, arguments, message):
    file = Path("houses.csv")
    file.write_text(file.read_text().replace(old, new) if old else file.read_text())
    code, _, err = mtlrun(*HOUSES, *arguments)
    assert code == 2
    assert message in err
    assert not run_folders()


def test_a_table_without_a_file_or_tasks_is_refused_with_what_to_type(mtlrun):
    code, _, err = mtlrun("dataset=csv")
    assert code == 2
    assert "dataset.path must name a CSV or Parquet file, as in dataset.path=houses.csv" in err
    code, _, err = mtlrun("dataset=csv", "dataset.path=houses.csv")
    assert code == 2
    assert "+task@tasks.<column>=regression" in err


def test_recorded_splits_hold_the_ids_of_the_rows(mtlrun):
    code, _, err = mtlrun(*HOUSES, "trainer=smoke", "seed=3")
    assert code == 0, err
    (folder,) = run_folders()
    splits = json.loads((folder / "splits.json").read_text())
    assert sorted(splits["train"] + splits["val"] + splits["test"]) == [f"h{number:02}" for number in range(1, 25)]
    assert [len(splits[name]) for name in ("train", "val", "test")] == [17, 4, 3]
