"""A log or event file that has lost its end: nothing is made up in its place, what is missing is said."""

import re

import pytest
from helpers import QUICK, curves, run_folders, train_until_step

from mtlrun.config.compose import compose
from mtlrun.runs.run import run


def config_of(root):
    return compose([*QUICK, "trainer.log_every=2", f"runtime.root={root}"])


def read(folder):
    """Return the lines of metrics.jsonl, and [(tag, step, value)] of the curves."""
    found = curves(folder)
    points = [(tag, event.step, event.value) for tag in found.Tags()["scalars"] for event in found.Scalars(tag)]
    return (folder / "metrics.jsonl").read_bytes().splitlines(), points


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "cut in its head"])
@pytest.mark.parametrize("file", ["metrics.jsonl", "events.out.tfevents.*"])
def test_a_file_that_lost_its_end_goes_on_without_it(file, damage, monkeypatch):
    run(config_of("whole"))
    lines, points = read(run_folders("whole")[0])
    config = config_of("parts")
    train_until_step(config, 8, monkeypatch)
    (folder,) = run_folders("parts")
    (path,) = folder.glob(file)
    content = path.read_bytes()
    size = {"gone": 0, "empty": 0, "cut": len(content) - 20, "cut in its head": 100}[damage]
    path.write_bytes(content[:size])
    if damage == "gone":
        path.unlink()
    run(config)
    found_lines, found_points = read(folder)  # both can be read
    (path,) = folder.glob(file)
    assert b"\0" * 20 not in path.read_bytes()
    if file == "metrics.jsonl":
        kept = content[:size].count(b"\n")
        assert found_lines == lines[:kept] + lines[content.count(b"\n") :]
        assert found_points == points
    else:
        assert found_lines == lines
        assert set(found_points) < set(points)
        assert {point for point in points if point[1] > 8} < set(found_points)
        assert len(set(found_points)) == len(found_points)
    (warning,) = re.findall(
        r"WARNING (\S+): (\d+) of the (\d+) bytes.* after step (\d+) to", (folder / "run.log").read_text()
    )
    assert warning[0] == str(path)
    assert 0 < int(warning[1]) <= int(warning[2]) == len(content)
    assert int(warning[3]) < 8
    assert (int(warning[3]) == 0) == (damage != "cut")
    assert "config/text_summary" in curves(folder).Tags()["tensors"]


def test_a_run_that_was_killed_in_a_line_of_its_log_goes_on_in_another(monkeypatch):
    config = config_of("parts")
    train_until_step(config, 8, monkeypatch)
    (folder,) = run_folders("parts")
    with open(folder / "run.log", "a") as file:
        file.write("2026-01-01 00:00:00,000 INFO epo")
    run(config)
    lines = (folder / "run.log").read_text().splitlines()
    torn = lines.index("2026-01-01 00:00:00,000 INFO epo")
    assert "continued at epoch 2, step 8" in lines[torn + 1]
