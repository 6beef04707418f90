"""Names that are no plain words: of folders, columns, classes and files; those that cannot be are refused."""

import csv
import os
import shutil
from pathlib import Path

import pytest
from helpers import QUICK, read_record, run_folders
from test_messages import refused

from mtlrun.config.compose import compose
from mtlrun.errors import ConfigError
from mtlrun.records.folder import check_writable
from mtlrun.records.identity import run_folder


def test_folders_that_cannot_be_are_refused_with_their_reason(mtlrun):
    Path("file").touch()
    Path("dangling").symlink_to("nowhere")
    Path("loop").symlink_to("loop")
    for root, reason in {
        "": "runtime.root must name a folder, found ''",
        "null": "runtime.root must be a text, found ",
        "[/red]": "runtime.root must be a text, found ",
        "3": "runtime.root must be a text, found 3",
        "file": "runtime.root: file is a file",
        "file/below": "runtime.root: file is a file",
        "/dev/null": "runtime.root: /dev/null is a file",
        "dangling": "runtime.root: dangling is a link to nowhere",
        "loop/below": "runtime.root: loop is a link to loop",
        "n" * 300: "runtime.root: a name of 300 bytes in its path is longer than the 255",
        "ö" * 150: "runtime.root: a name of 300 bytes in its path is longer than the 255",
        "/".join(["n" * 200] * 25): "runtime.root: a path of ",
        "a\nb": "runtime.root: 'a\\nb/runs/",
        "a\x1b[31mb": "runtime.root: 'a\\x1b[31mb/runs/",
        os.fsdecode(b"\xff"): "runtime.root: '\\udcff/runs/",
    }.items():
        problems = refused(mtlrun, *QUICK, f"runtime.root={root}", "seed=-1")
        assert len(problems) == 2, problems
        assert any(problem.startswith(reason) for problem in problems), (root, problems)
    for study in ("/absolute", "..", "a/../b", "a/", "a b", "-a", "null", "n" * 300):
        (problem,) = refused(mtlrun, *QUICK, f"runtime.study={study}")
        assert problem.startswith(("runtime.study must be a ", "runtime.root: a name of 300 bytes")), problem


def test_what_has_the_place_of_a_runs_file_is_named_and_left_alone(mtlrun):
    folder = run_folder(compose(QUICK))
    for name in ("checkpoints/last.pt", "checkpoints/.best.pt.tmp", "metrics.jsonl", "run.log", "predictions.csv",
                 "events.out.tfevents.1", ".lock", ".heartbeat", "checkpoints"):  # fmt: skip
        path = folder / name
        path.parent.mkdir(parents=True)
        path.touch() if name == "checkpoints" else path.mkdir() if name != "run.log" else os.mkfifo(path)
        with pytest.raises(ConfigError) as raised:
            check_writable(folder)
        (problem,) = raised.value.problems
        kind = {"checkpoints": "no folder", "run.log": "no file"}.get(name, "a folder")
        assert problem.startswith(f"runtime.root: {path} is {kind}, and the run ")
        assert "; move it away, or remove it; " in problem
        if name == "checkpoints/last.pt":
            assert refused(mtlrun, *QUICK) == refused(mtlrun, *QUICK, "runtime.rerun=true") == [problem]
        shutil.rmtree(folder)


@pytest.mark.parametrize("root", ["out[1]", "[/red]", "a b", "-x", ":cat:", "a/../b", "below/", "größe"])
def test_a_folder_may_have_any_name_that_can_be_printed(mtlrun, root):
    if ".." in root:
        Path("a").mkdir()
    for _ in range(2):  # trained, and shown
        code, out, err = mtlrun(*QUICK, f"runtime.root='{root}'")
        assert code == 0, err
        assert f"{root.rstrip('/')}/runs/hard-equal-" in out
    assert len(run_folders(root)) == 1
    code, out, err = mtlrun("compare", root)
    assert code == 0, err
    assert "left accuracy" in out


def test_names_in_a_table_are_shown_as_they_stand_in_it(mtlrun):
    columns, classes = ["x", "[bold]", ":cat: ]["], ["[/red]", ":cat:", "[link=x]"]
    with open("a[b]*.csv", "w", newline="") as file:
        csv.writer(file).writerows([columns, *([n, classes[n % 3], n % 5] for n in range(90))])
    words = ["dataset=csv", 'dataset.path="a[b]*.csv"', "dataset.predict=['[bold]', ':cat: ][']"]
    code, out, err = mtlrun(*words, "trainer=smoke", "trainer.baselines=true")
    assert code == 0, err
    assert all(name in out for name in classes)
    (folder,) = run_folders()
    assert list(read_record(folder)["data"]) == ["a[b]*.csv"]


def test_all_bad_cells_and_images_are_listed_up_to_a_limit(mtlrun):
    rows = [[n, "bad" if n % 9 == 0 else n, f"{n}.png"] for n in range(60)]
    with open("d.csv", "w", newline="") as file:
        csv.writer(file).writerows([["x", "y", "file"], *rows])
    code, _, err = mtlrun("dataset=csv", "dataset.path=d.csv", "+task@tasks.y=regression", "dataset.exclude=[file]")
    assert (code, len(err.splitlines())) == (2, 7), err
    assert err.startswith("mtlrun: 7 cells cannot be used:\n")
    assert err.endswith("- and 2 more\n")
    given = ["dataset=csv", "dataset.path=d.csv", "dataset.exclude=[file]"]
    for words, first, last in [
        (["+task@tasks.x=count"], "cells cannot be used", " is not a count"),
        (["+task@tasks.x=classification", "dataset.classes.x=[0,1,11]"], "labels cannot be used", "'6' likewise"),
    ]:
        Path("d.csv").write_text(
            "x,y,file\n" + "".join(f"{n / 2 if 'count' in words[0] else n % 12},{n},a\n" for n in range(60))
        )
        code, _, err = mtlrun(*given, *words)
        assert (code, len(err.splitlines())) == (2, 7), err
        assert f" {first}:\n" in err
        assert err.splitlines()[-2].endswith(last)
    Path("d.csv").write_text("x,y,file\n" + "".join(f"{n},{n},{n}.png\n" for n in range(60)))
    Path("photos").mkdir()
    for n in range(60):
        Path("photos", f"{n}.png").write_text("no image")
    code, _, err = mtlrun("dataset=images", "dataset.root=photos", "dataset.labels=d.csv", "+task@tasks.x=regression")
    assert (code, len(err.splitlines())) == (2, 7), err
    assert "images cannot be used:\n" in err
