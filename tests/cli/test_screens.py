"""What is shown on screens of any width, in pipes, and where there is nothing but ASCII."""

import io
import os
import re
import sys
from pathlib import Path

import pytest
from helpers import QUICK
from rich.console import Console

from mtlrun.cli import compare, status, streams
from mtlrun.cli.main import COMMANDS, dispatch
from mtlrun.config.listing import item
from mtlrun.records.display import make_console
from mtlrun.records.heartbeat import Heartbeat
from mtlrun.records.overview import Entry
from mtlrun.records.record import Record
from mtlrun.training.observers.console import ProgressLine

TASKS = ["house", "a_task_with_a_long_name", *(f"task_{number}" for number in range(9))]
KEY = "tasks.a_task_with_a_long_name.loss_scale"


def write_runs():
    """Write records of two configs with two seeds each, and of baselines."""
    linear = {task: {"rmse": 0.5} for task in TASKS}
    for lr in (0.001, 0.01):
        for seed in (0, 1):
            config = {
                "names": {"dataset": "d", "model": "hard" if lr == 0.01 else "cross_stitch", "weighting": "equal"},
                "seed": seed,
                "optimizer": {"lr": lr},
                "tasks": {task: {"_target_": "mtlrun.tasks.Regression"} for task in TASKS},
            }
            config["tasks"][TASKS[1]]["loss_scale"] = lr * 2
            values = {task: {"rmse": 1 + lr + seed / 7} for task in TASKS}
            record = Record(f"run-{lr}-{seed}", config, status="completed", test=values, baselines={"linear": linear})
            record.main_metrics = dict.fromkeys(TASKS, "rmse")
            record.directions = {task: {"rmse": "min"} for task in TASKS}
            folder = Path("runs", record.run_id)
            folder.mkdir(parents=True)
            record.write(folder)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("width", [40, 80, 100, 300])
def test_compare_neither_wraps_a_value_nor_cuts_what_tells_rows_apart(width, encoding, monkeypatch):
    write_runs()
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    console = make_console()
    console.width = width
    monkeypatch.setattr(compare, "make_console", lambda: console)
    assert compare.main(["runs"]) == 0
    stream.flush()
    text = raw.getvalue().decode(encoding)
    lines = text.splitlines()
    sign, arrow = ("+/-", "v") if encoding == "ascii" else ("±", "↓")
    assert len(re.findall(rf"1\.\d{{4}} {re.escape(sign)} 0\.\d{{4}}", text)) == 2 * len(TASKS)
    for task in TASKS:
        assert sum(f"{task} rmse {arrow}" in line for line in lines) == 1
    for part in ("model", "cross_stitch", "optimizer.lr", "0.001", KEY, "baseline linear"):
        assert part in text
    assert "…" not in text
    tables = [line for line in lines if not re.match(r" #\d  \w|[a-z]", line)]
    assert max(map(len, tables)) <= width
    assert all(line == line.rstrip() for line in tables)


@pytest.mark.parametrize("width", [80, 100, 300])
def test_status_keeps_the_names_of_runs_whole(width, monkeypatch, capsys):
    names = [f"multidigits-cross_stitch-nash_mtl-s{seed}-0123abcd" for seed in range(2)]
    failed = Record(
        names[0], {}, status="failed", error="RuntimeError: what \n happened " + 20 * "there ", total_steps=9
    )
    failed.write(Path())
    beat = Heartbeat(total_steps=1000, step=10, metrics={"left": {"accuracy": 0.5}})
    entries = [Entry(names[0], Path(), "failed", failed), Entry(names[1], Path(), "running", None, beat)]
    monkeypatch.setattr(status, "read_entries", lambda roots: entries)
    monkeypatch.setattr(status, "make_console", lambda: Console(width=width, force_terminal=True, color_system=None))
    assert status.main(["."]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, progress in zip(names, ("0/9", "10/1000"), strict=True):
        assert any(re.match(rf" ?\w+ +{name} +{progress}", line) for line in lines), lines
    assert sum("RuntimeError: what happened there" in line for line in lines) == 1
    assert (len(lines) == 4) == (width == 300)


@pytest.mark.parametrize("width", [20, 40, 80, 100, 200])
def test_the_progress_has_step_and_time_in_one_line(width):
    line = ProgressLine(0, 12_000)
    line.step = 4_000
    line.losses = ["loss left 0.512", "a_task_with_a_long_name 0.613"]
    line.metrics = [f"task_{number} accuracy 0.9123" for number in range(9)]
    console = Console(file=io.StringIO(), width=width)
    console.print(line)
    (shown,) = console.file.getvalue().splitlines()
    assert len(shown) <= width
    assert shown.startswith("step 4000/12000  0:0")
    if width >= 40:
        assert shown.startswith("step 4000/12000  0:00:00, 0:00:00 left")
    if width >= 80:
        last = "loss left 0.512, +10 more" if width < 200 else "task_0 accuracy 0.9123"
        assert last in shown


def test_every_command_has_a_line_in_the_help(mtlrun):
    _, out, _ = mtlrun("--help")
    for command in COMMANDS:
        assert len(re.findall(rf"^mtlrun {command} .*  \w+", out, re.MULTILINE)) == 1


def test_a_list_in_a_pipe_has_one_line_for_each_option_and_no_padding(mtlrun):
    _, out, _ = mtlrun("list", "weightings")
    assert "  " not in out
    lines = out.splitlines()
    assert lines[1].startswith("name\tsummary\t")
    assert {line.count("\t") for line in lines[1:]} == {lines[1].count("\t")}


def test_brackets_and_colons_of_a_name_are_shown_as_they_are(capsys):
    console = make_console()
    console.print("[bold]x[/bold] [/] :smile:")
    assert capsys.readouterr().out == "[bold]x[/bold] [/] :smile:\n"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Paris", "Paris"),
        ("Paris, TX", "'Paris, TX'"),
        ("a,b", "a,b"),
        ("", "''"),
        (" a", "' a'"),
        ("'a'", "\"'a'\""),
        ("two\nlines", r"'two\nlines'"),
        ("\x1b[31m", r"'\x1b[31m'"),
        ("größe", "größe"),
    ],
)
def test_a_name_in_a_list_is_quoted_where_it_could_be_taken_for_others(name, shown):
    assert item(name) == shown


def test_labels_with_commas_are_quoted_wherever_they_are_listed(mtlrun):
    places = ["Paris, TX", "Paris, FR", "Ulm"]
    rows = [f'{number % 3},"{places[number % 3]}"' for number in range(60)]
    Path("t.csv").write_text("\n".join(["x,place", *rows]) + "\n")
    code, out, err = mtlrun("dataset=csv", "dataset.path=t.csv", "dataset.predict=[place]", "trainer=smoke")
    assert code == 0, err
    assert len(re.findall(r"[^'\"]Paris, TX", out)) == 0
    assert out.count("'Paris, TX'") >= 3


def test_a_run_and_its_result_are_shown_in_ascii(monkeypatch):
    reading, writing = os.pipe()
    original = os.fdopen(writing, "w", encoding="ascii")
    monkeypatch.setattr(sys, "stdout", streams.Stream(original, writing, "standard output"))
    code = dispatch([*QUICK[:-1], "runtime.root=größe"])
    sys.stdout.flush()
    original.close()
    with os.fdopen(reading, "rb") as output:
        text = output.read().decode("ascii")
    assert code == 0
    assert "accuracy ^" in text
    assert "loss = log_loss v" in text
    assert "gr\\xf6\\xdfe" in text
    assert "├" not in text
