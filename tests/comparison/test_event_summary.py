"""Curves of methods for TensorBoard: what is averaged, where points stand, what is left out, and what is replaced."""

import json
import subprocess
import sys
from math import isnan
from pathlib import Path
from statistics import fmean, stdev

import pytest
from helpers import curves
from synthetic import make_record, make_study, write_records
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mtlrun.records.event_contents import hyperparameters, tag_of_curve


@pytest.fixture
def summarize(mtlrun):
    """Return a function that runs the command on `study` and returns its first line."""

    def run():
        code, out, err = mtlrun("tensorboard", "study")
        assert code == 0, err
        assert out.splitlines()[-1] == "to see it: tensorboard --logdir study"
        return out.splitlines()[0]

    return run


def points(method, tag, study="study"):
    """Return [(step, value)] of a curve of a method."""
    return [(event.step, event.value) for event in curves(Path(study, "summary", method)).Scalars(tag)]


def edit_lines(folder, edit):
    """Replace each line of metrics.jsonl by what `edit` returns, a line that becomes None by nothing."""
    path = folder / "metrics.jsonl"
    edited = [edit(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in edited if line is not None))


def test_a_method_has_the_mean_of_its_runs_and_a_band_of_their_deviation(summarize):
    records = make_study({"equal": (0.9, 0.8), "mgda": (0.7, 0.6)}, seeds=4)
    write_records("study", records, evaluations=3)
    assert summarize() == "study/summary: methods: 2, runs: 8"
    for method in ("equal", "mgda"):
        finals = [one.val["left"]["accuracy"] for one in records if one.config["names"]["weighting"] == method]
        for tag, expected in {
            "val/left/accuracy": fmean(finals),
            "with_band/lower/val/left/accuracy": fmean(finals) - stdev(finals),
            "with_band/upper/val/left/accuracy": fmean(finals) + stdev(finals),
        }.items():
            found = points(method, tag)
            assert [step for step, _ in found] == [24, 48, 72]
            assert [value for _, value in found] == pytest.approx([expected / 3, 2 * expected / 3, expected])
        assert [value for _, value in points(method, "train/right/loss")] == pytest.approx([1, 1 / 2, 1 / 3])
        assert points(method, "update/weight/left") == [(24, 1), (48, 1), (72, 1)]
        assert points(method, "result/main/test/left/accuracy") == [(720, pytest.approx(fmean(finals)))]
        tags = curves(Path("study/summary", method)).Tags()["scalars"]
        bands = {tag.removeprefix("with_band/lower/") for tag in tags if tag.startswith("with_band/lower/")}
        shown = ("train/{}/loss", "val/{}/loss", "val/{}/accuracy")
        assert bands == {tag.format(task) for tag in shown for task in ("left", "right")}


def test_a_summary_is_no_run_for_other_commands(summarize, mtlrun):
    write_records("study", make_study({"equal": 0.9, "mgda": 0.7}), evaluations=2)
    before = [mtlrun(command, "study") for command in ("compare", "status")]
    summarize()
    assert [mtlrun(command, "study") for command in ("compare", "status")] == before


def test_a_point_stands_where_all_runs_have_one(summarize):
    """Evaluations are matched by their number, so that folds of other lengths are averaged, training by the step."""
    first, second = write_records("study", make_study({"equal": 0.9}, seeds=2), evaluations=5)
    edit_lines(first, lambda line: None if line["epoch"] > 3 else line)  # stopped early
    edit_lines(second, lambda line: line | ({"step": line["step"] + 2} if line["split"] == "val" else {}))
    edit_lines(second, lambda line: line | {"step": 30} if line["split"] == "train" and line["epoch"] == 2 else line)
    summarize()
    assert [step for step, _ in points("hard,equal", "val/left/accuracy")] == [25, 49, 73]
    assert [step for step, _ in points("hard,equal", "train/left/loss")] == [24, 72]


def test_what_is_left_out_is_said(summarize):
    records = [*make_study({"equal": 0.9, "mgda": 0.8}), *make_study({"dwa": 0.7}, seeds=1),
               make_record(7, weighting="equal", status="failed")]  # fmt: skip
    folders = write_records("study", records, evaluations=2)
    torn = folders[0] / "metrics.jsonl"
    torn.write_bytes(torn.read_bytes()[:-10])
    (folders[3] / "metrics.jsonl").unlink()
    (folders[4] / "metrics.jsonl").write_text('{"split": "val"}\n')
    assert summarize() == (
        "study/summary: methods: 1, runs: 2; left out: 1 not completed, 2 the only ones of their method, "
        "3 whose metrics.jsonl is missing or damaged"
    )
    assert len(points("equal", "val/left/accuracy")) == 2


def test_what_was_written_before_is_replaced(summarize, tmp_path):
    folders = write_records("study", make_study({"equal": 0.9, "mgda": 0.7}), evaluations=2)
    summarize()
    (tmp_path / "study/summary/mgda/notes.txt").write_text("mine")
    for folder in folders[3:]:
        (folder / "record.json").unlink()
    edit_lines(folders[0], lambda line: line | {"val/left/accuracy": 0.0} if line["split"] == "val" else line)
    old = points("equal", "val/left/accuracy")
    summarize()  # the only method that is left is named after its options
    new = points("hard,equal", "val/left/accuracy")
    assert new[0][1] < old[0][1]
    left = sorted(str(path.relative_to(tmp_path / "study/summary")) for path in tmp_path.glob("study/summary/*/*"))
    assert left == ["hard,equal/events.out.tfevents.0.mtlrun-summary", "mgda/notes.txt"]


def test_of_many_steps_a_thousand_are_shown(summarize):
    folders = write_records("study", make_study({"equal": 0.9}, seeds=2), evaluations=1)
    for folder in folders:
        entries = [{"split": "train", "step": step, "train/left/loss": float(step)} for step in range(1, 4001)]
        lines = map(json.dumps, entries)
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    summarize()
    path = next((folders[0].parent / "summary/hard,equal").iterdir())
    assert path.stat().st_size < 400_000
    events = EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/left/loss")] == [
        (step, step) for step in range(4, 4001, 4)
    ]


def test_where_a_run_has_no_number_the_mean_is_none(summarize):
    folders = write_records("study", make_study({"equal": 0.9}, seeds=2), evaluations=2)
    edit_lines(folders[0], lambda line: line | {"train/left/loss": float("inf")} if line["split"] == "train" else line)
    summarize()
    assert all(isnan(value) for _, value in points("hard,equal", "train/left/loss"))
    assert points("hard,equal", "train/right/loss")


def test_the_command_does_not_import_pytorch():
    write_records("study", make_study({"equal": 0.9}, seeds=2), evaluations=1)
    program = (
        "import sys\nfrom mtlrun.cli.main import dispatch\ncode = dispatch(['tensorboard', 'study'])\n"
        "sys.exit(code or bool({'torch', 'tensorflow', 'pandas', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
    assert points("hard,equal", "val/left/accuracy")


def test_the_command_refuses_what_is_no_folder_of_runs(mtlrun, tmp_path):
    assert mtlrun("tensorboard", "nowhere")[::2] == (2, "mtlrun: nowhere: there is no such folder\n")
    (tmp_path / "empty").mkdir()
    code, _, err = mtlrun("tensorboard", "empty")
    assert code == 2
    assert "no run has left a record" in err
    assert not list((tmp_path / "empty").iterdir())
    assert mtlrun("tensorboard")[:2] == (0, "usage: mtlrun tensorboard <folder> [<folder> ...]\n")


def test_hyperparameters_are_what_identifies_a_run_and_what_was_typed():
    record = make_record(2, weighting="mgda", changes={"trainer.patience": None, "weighting.alpha": 0.5})
    record.overrides = [
        "weighting=mgda", "seed=2", "trainer.patience=null", "+weighting.alpha=0.5", "weighting/losses=dwa",
        "model@match_parameters=single", "~tasks.third", "scheduler=cosine", "runtime.root=elsewhere",
        "trainer.baselines=auto", "hydra.launcher.workers=2", "trainer.log_every=10", "weighting.variant=official",
    ]  # fmt: skip
    record.learning_rates = {"shared": 0.001, "left": 0.1, "right": 0.001, "weighting": 0.025}
    assert hyperparameters(record) == {
        "Weighting": "mgda", "Model": "hard", "Backbone": "lenet", "Seed": "2", "LR": 0.001, "LR left": 0.1,
        "dataset": "multidigits", "trainer.patience": "null", "weighting.alpha": 0.5, "weighting/losses": "dwa",
        "match_parameters": "single", "tasks.third": "removed", "scheduler": "cosine", "trainer.log_every": 10,
        "weighting.variant": "official",
    }  # fmt: skip
    # TensorBoard shows the first five, sorted by the codes of their letters.
    assert sorted(hyperparameters(record))[:6] == ["Backbone", "LR", "LR left", "Model", "Seed", "Weighting"]


def test_groups_that_every_run_has_come_first():
    tags = ["train/a/loss", "val/a/miou", "grad_norm/a", "grad_conflict", "weight/a", "lr/a", "weighting/fallbacks"]
    groups = {tag_of_curve(tag).split("/")[0] for tag in tags}
    assert sorted({*groups, "result", "val_pictures", "with_band"})[:4] == ["result", "train", "update", "val"]
    assert tag_of_curve("weighting/fallbacks") == "update/fallbacks"
    assert len({tag_of_curve(tag) for tag in tags}) == len(tags)
