"""dataset.protocol=legacy, as many papers evaluate.

The whole training split is trained on, the test split is evaluated during training, and the result is the mean over the
last evaluations. Held here: which samples each split has, the mean (also after a stop or a crash), refusal of settings
that would select by the test split, and that such results are called test-selected wherever they are shown.
"""

import json
import math
import shutil
import signal
from pathlib import Path
from statistics import fmean

import numpy
import pytest
import torch
from helpers import QUICK, read_record, run_folders, slow_unless
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mtlrun.comparison.groups import group_by_config
from mtlrun.comparison.run import Run
from mtlrun.config.compose import compose
from mtlrun.datasets import Cityscapes, NYUv2
from mtlrun.errors import RunInterruptedError
from mtlrun.records.record import Record
from mtlrun.runs.run import run
from mtlrun.training import checkpoint
from mtlrun.training.selection import LastMean, merge_states
from mtlrun.training.trainer import Trainer

SIZE = (4, 4)
TRAIN, TEST = 6, 3
LABEL = "test-selected (dataset.protocol=legacy)"
TINY = [
    "backbone.channels=[4]",
    "backbone.convolutions=[1]",
    "trainer.batch_size=3",
    "trainer.log_every=1",
    "trainer.log_pictures=0",
]


@pytest.fixture(params=["nyuv2", "cityscapes"])
def name(request):
    return request.param


def write(name):
    """Make a small dataset in the current folder; the whole part of a depth says which file it is from."""
    generator = numpy.random.default_rng(0)
    folder = "label" if name == "nyuv2" else "label_7"
    for split, count, first in (("train", TRAIN, 1), ("val", TEST, 101)):
        for index in range(count):
            arrays = {
                "image": generator.random((*SIZE, 3)),
                folder: generator.integers(-1, 7, SIZE),
                "depth": generator.random((*SIZE, 1)) + first + index,
            }
            if name == "nyuv2":
                arrays["normal"] = numpy.tile([0.0, 0.6, 0.8], (*SIZE, 1))
            for kind, array in arrays.items():
                path = Path("data", name, split, kind, f"{index}.npy")
                path.parent.mkdir(parents=True, exist_ok=True)
                numpy.save(path, array)


def overrides(*more, protocol="legacy", name="cityscapes"):
    return [f"dataset={name}", f"dataset.protocol={protocol}", *TINY, *more]


def quick_config(*more):
    return compose(overrides("runtime.quiet=true", *more))


def read_lines(folder, split):
    lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == split]


def files(split):
    return sorted(int(split[index][1]["depth"].min()) for index in range(len(split)))


def weights(folder, file):
    state = checkpoint.load(Path(folder) / "checkpoints" / file)
    return state["model"] if file == "last.pt" else merge_states(state["model_states"])


# ------------------------------------------------------------------------------------------------------- dataset


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_legacy_trains_on_all_of_train_and_validates_on_the_test_split(name, cache):
    write(name)
    make = {"nyuv2": NYUv2, "cityscapes": Cityscapes}[name]
    dataset = make(f"data/{name}", cache=cache, augment=False, protocol="legacy")
    assert (dataset.protocol, dataset.averaged_evaluations) == ("legacy", 10)
    assert files(dataset.split("train")) == [1, 2, 3, 4, 5, 6]
    assert files(dataset.split("val")) == files(dataset.split("test")) == [101, 102, 103]
    assert dataset.split("val") is dataset.split("test")  # it is in memory once
    augmented = make(f"data/{name}", cache=cache, protocol="legacy").split("val")
    assert torch.equal(augmented[1][0], dataset.split("test")[1][0])


def test_by_default_a_checkpoint_is_selected_on_a_held_out_part_of_train(name):
    write(name)
    dataset = {"nyuv2": NYUv2, "cityscapes": Cityscapes}[name](f"data/{name}", augment=False, val_fraction=0.5)
    assert dataset.protocol == "standard"
    assert sorted(files(dataset.split("train")) + files(dataset.split("val"))) == [1, 2, 3, 4, 5, 6]
    assert compose([f"dataset={name}"])["dataset"]["protocol"] == "standard"


def test_other_protocols_are_refused():
    write("nyuv2")
    with pytest.raises(ValueError, match="protocol must be one of 'standard', 'legacy', found 'paper'"):
        NYUv2("data/nyuv2", protocol="paper")


def test_legacy_needs_only_one_training_image():
    write("cityscapes")
    for path in Path("data/cityscapes/train").glob("*/[1-9].npy"):
        path.unlink()
    assert len(Cityscapes("data/cityscapes", protocol="legacy").split("train")) == 1


# ------------------------------------------------------------------------------------------------------- the mean


def metrics(value):
    return {"a": {"loss": value, "accuracy": 2 * value}, "b": {"loss": 0.0}}


def offered(window, *values):
    rule = LastMean(["a", "b"], window)
    for number, value in enumerate(values, start=1):
        assert rule.update(number, number, 10 * number, metrics(value))
        assert not rule.out_of_patience(number)
    return rule


def test_each_metric_is_averaged_over_the_last_evaluations():
    assert offered(3).metrics == {}
    assert offered(3).number == 0
    assert offered(3, 1.0, 2.0).metrics == {"a": {"loss": 1.5, "accuracy": 3.0}, "b": {"loss": 0.0}}
    rule = offered(3, 100.0, 1.0, 2.0, 6.0)
    assert rule.metrics == {"a": {"loss": 3.0, "accuracy": 6.0}, "b": {"loss": 0.0}}
    assert rule.number == 4
    assert rule.summary() == {
        "tasks": ["a", "b"], "rule": "last_mean", "evaluations": 3, "first_epoch": 2, "epoch": 4, "step": 40,
    }  # fmt: skip


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_one_value_that_is_not_finite_makes_the_mean_not_finite(odd):
    assert not math.isfinite(offered(3, 1.0, odd, 2.0).metrics["a"]["loss"])


def test_averaged_metrics_are_copies():
    rule, found = LastMean(["a", "b"], 2), metrics(1.0)
    rule.update(1, 1, 10, found)
    found["a"]["loss"] = 9.0
    assert rule.metrics["a"]["loss"] == 1.0


def test_a_mean_of_nothing_yet_survives_a_checkpoint():
    other = offered(3, 1.0)
    other.load_state_dict(offered(3).state_dict())
    assert other == offered(3)


def test_state_of_the_mean_survives_a_checkpoint(tmp_path):
    rule = offered(3, 1.0, 2.0, 6.0)
    checkpoint.save(rule.state_dict(), tmp_path / "x.pt")
    other = LastMean(["a", "b"], 3)
    other.load_state_dict(checkpoint.load(tmp_path / "x.pt"))
    assert other == rule
    other.update(4, 4, 40, metrics(7.0))
    assert other.metrics["a"]["loss"] == 5.0


def test_a_mean_over_nothing_is_refused():
    with pytest.raises(ValueError, match="averaged_evaluations must be >= 1, found 0"):
        LastMean(["a"], 0)


# -------------------------------------------------------------------------------------------------------- the run


@pytest.mark.parametrize("model", ["hard", "single"])
def test_the_result_is_the_mean_over_the_last_ten_evaluations_of_the_test_split(model, monkeypatch):
    write("cityscapes")
    evaluated = []
    evaluate = Trainer.evaluate
    monkeypatch.setattr(
        Trainer,
        "evaluate",
        lambda self, split, **kept: (
            evaluated.append(files(self.parts.loaders[split].split)) or evaluate(self, split, **kept)
        ),
    )
    record = run(quick_config("trainer.epochs=12", f"model={model}"))
    (folder,) = run_folders()
    assert evaluated == [[101, 102, 103]] * 12  # and none at the end
    lines = read_lines(folder, "test_selected")[-10:]
    wanted = {
        task: {
            metric: pytest.approx(fmean(line[f"test_selected/{task}/{metric}"] for line in lines), rel=1e-12)
            for metric in names
        }
        for task, names in record.directions.items()
    }
    assert record.test == wanted
    assert record.test["depth"]["abs_err"] != lines[-1]["test_selected/depth/abs_err"]
    assert (record.val, record.skills, record.protocol) == ({}, {}, "legacy")
    assert record.trivial.keys() == {"test"}
    assert record.trivial["test"].keys() == record.test.keys()
    assert {split: summary["samples"] for split, summary in record.splits.items()} == {"train": TRAIN, "test": TEST}
    (selection,) = record.selection
    assert selection == {
        "tasks": ["segmentation", "depth"], "rule": "last_mean", "evaluations": 10, "first_epoch": 3, "epoch": 12,
        "step": 24,
    }  # fmt: skip
    best, last = weights(folder, "best.pt"), weights(folder, "last.pt")
    assert best.keys() == last.keys()
    assert all(torch.equal(best[key], last[key]) for key in last)


def test_a_mean_over_fewer_evaluations_is_warned_of(mtlrun):
    write("nyuv2")
    code, out, _ = mtlrun(*overrides("trainer.epochs=2", "runtime.quiet=true", name="nyuv2"))
    assert code == 0
    assert "the result is the mean over 2 evaluations, and the protocol's is over the last 10; train for longer" in out
    record = read_record(run_folders()[0])
    assert record["selection"][0]["evaluations"] == 2
    lines = read_lines(run_folders()[0], "test_selected")
    assert record["test"]["normals"]["loss"] == pytest.approx(
        fmean(line["test_selected/normals/loss"] for line in lines)
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.patience=5", "which may not decide when training ends; use trainer.patience=null"),
        (
            "trainer.monitor=depth/abs_err",
            "the result is a mean over the last evaluations; leave trainer.monitor=mean_skill",
        ),
        ("trainer.min_delta=0.1", "has no effect with dataset.protocol=legacy, which selects nothing"),
    ],
)
def test_settings_that_would_select_by_the_test_split_are_refused(override, message, mtlrun):
    write("cityscapes")
    code, _, err = mtlrun(*overrides(override))
    assert code == 2
    assert len(err.splitlines()) == 1
    assert err.startswith(f"mtlrun: {override}")
    assert message in err
    assert "dataset.protocol=standard" in err
    assert not run_folders()


def outcome(folder):
    record = read_record(folder)
    return (
        [record[key] for key in ("status", "test", "val", "selection", "steps", "protocol")],
        (folder / "metrics.jsonl").read_text(),
        {key: value.tolist() for key, value in weights(folder, "best.pt").items()},
    )


def train_until(step, config, monkeypatch):
    """Ask for a stop after so many steps, as SIGTERM does."""
    with monkeypatch.context() as patch:
        patch.setattr(
            Trainer,
            "stop_signal",
            property(lambda self: lambda: signal.SIGTERM if self.progress.step >= step else None, lambda *_: None),
            raising=False,
        )
        with pytest.raises(RunInterruptedError):
            run(config)


@pytest.mark.parametrize(
    ("model", "step"), slow_unless(lambda model, step: step == 23, [("hard", 23), ("hard", 24), ("single", 25)])
)
def test_a_stopped_and_continued_run_has_the_same_mean(model, step, monkeypatch):
    write("cityscapes")
    options = [f"model={model}", "trainer.epochs=13"]
    run(quick_config(*options, "runtime.root=whole"))
    config = quick_config(*options, "runtime.root=parts")
    train_until(step, config, monkeypatch)
    (folder,) = run_folders("parts")
    assert read_record(folder)["protocol"] == "legacy"
    run(config)
    assert outcome(folder) == outcome(run_folders("whole")[0])


def test_resuming_from_before_the_last_evaluations_changes_nothing(monkeypatch):
    write("cityscapes")
    run(quick_config("trainer.epochs=13", "runtime.root=whole"))
    config = quick_config("trainer.epochs=13", "runtime.root=parts")
    train_until(25, config, monkeypatch)
    (folder,) = run_folders("parts")
    checkpoints = folder / "checkpoints"
    kept = {path: path.read_bytes() for path in checkpoints.glob("*.pt")}
    run(config)
    # The best of 13 epochs beside a damaged last checkpoint, and one from before epoch 12 was evaluated.
    kept.pop(checkpoints / "best.pt")
    for path, content in kept.items():
        path.write_bytes(content)
    (checkpoints / "last.pt").write_bytes(b"")
    record = Record.read(folder)
    record.status = "running"
    record.write(folder)
    run(config)
    assert outcome(folder)[0] == outcome(run_folders("whole")[0])[0]


# ------------------------------------------------------------------------------------------- wherever it is shown


def test_screen_and_log_call_the_result_test_selected(mtlrun):
    write("cityscapes")
    arguments = overrides("trainer.epochs=11")
    code, out, err = mtlrun(*arguments)
    assert code == 0, err
    (folder,) = run_folders()
    lines = out.splitlines()
    assert lines[0].startswith(f"{LABEL}: the test split is evaluated during training")
    assert ["train", "test"] in [line.split() for line in lines]  # the samples
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert len(epochs) == 11
    assert all("; test-selected segmentation miou " in line and "(selected)" not in line for line in epochs)
    assert LABEL in (folder / "run.log").read_text()
    result = lines[lines.index(f"{folder}: completed") + 1 :]
    for found in (result, mtlrun(*arguments)[1].splitlines()[1:]):
        assert found[0].strip() == "result (test-selected)"
        assert found[1].split() == ["task", "metric", "test†"]
        assert found[-3].startswith(f"† {LABEL}: mean over the last 10 evaluations of the test split")
        assert found[-2] == "means over epochs 2 to 11; best.pt holds the last weights"
        assert "selected on validation:" not in "\n".join(found)


def test_a_quiet_run_calls_the_result_test_selected_too(mtlrun):
    write("cityscapes")
    code, out, _ = mtlrun(*overrides("trainer.epochs=1", "runtime.quiet=true"))
    assert code == 0
    assert ": completed: test-selected segmentation miou 0." in out.splitlines()[-1]


def test_curves_are_tagged_test_selected():
    write("cityscapes")
    record = run(quick_config("trainer.epochs=2"))
    (folder,) = run_folders()
    (events,) = folder.glob("events.out.tfevents.*")
    found = EventAccumulator(str(events)).Reload()
    tags = {tag for tag in found.Tags()["scalars"] if not tag.startswith(("train", "update"))}
    names = [f"{task}/{metric}" for task, metrics in record.directions.items() for metric in metrics]
    mains = [f"main/test_selected_mean/{task}/{metric}" for task, metric in record.main_metrics.items()]
    results = [*mains, *(f"test_selected_mean/{name}" for name in names)]
    assert tags == {*(f"test_selected/{name}" for name in names), *(f"result/{name}" for name in results)}
    assert [event.step for event in found.Scalars("test_selected/depth/abs_err")] == [2, 4]
    (mean,) = found.Scalars("result/test_selected_mean/depth/abs_err")
    assert (mean.step, mean.value) == (4, pytest.approx(record.test["depth"]["abs_err"]))
    assert {line["split"] for line in read_lines_of_all(folder)} == {"train", "test_selected", "test_selected_mean"}
    assert not any("selected" in line for line in read_lines_of_all(folder))
    (line,) = read_lines(folder, "test_selected_mean")
    assert line["test_selected_mean/depth/abs_err"] == record.test["depth"]["abs_err"]


def read_lines_of_all(folder):
    return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def test_compare_marks_each_number_and_keeps_the_protocols_apart(mtlrun):
    write("cityscapes")
    for protocol in ("legacy", "standard"):
        for seed in (0, 1):
            more = ["trainer.epochs=2", f"seed={seed}", "runtime.quiet=true"]
            assert mtlrun(*overrides(*more, protocol=protocol))[0] == 0
    code, out, _ = mtlrun("compare", "outputs")
    assert code == 0
    head, *lines = out.splitlines()
    assert head.split()[0] == "dataset.protocol"
    by_protocol = {line.split()[0]: line for line in lines[:2]}
    tests = {"legacy": [], "standard": []}
    for folder in run_folders():
        record = read_record(folder)
        tests[record["protocol"]].append(record["test"]["segmentation"]["miou"])
    for protocol, mark in (("legacy", "†"), ("standard", "")):
        assert f" {fmean(tests[protocol]):.4f} ± " in by_protocol[protocol]
        assert by_protocol[protocol].count("†") == 2 * len(mark)
        assert by_protocol[protocol].split()[-1] == "2"
    assert lines[-3:] == [
        "not marked: test metrics on the checkpoint selected on validation",
        f"† {LABEL}: mean over the last 2 evaluations of the test split; nothing was selected on validation; compare "
        "with results of the same protocol only",
        "mean ± standard deviation over the seeds",
    ]
    for folder in run_folders():
        if read_record(folder)["protocol"] == "standard":
            shutil.rmtree(folder)
    out = mtlrun("compare", "outputs")[1]
    assert "†" in out.splitlines()[1]
    assert "selected on validation;" in out
    assert "checkpoint selected on validation" not in out


def make_record(seed, protocol, **config):
    config = {"names": {"dataset": "mine"}, "seed": seed, "runtime": {}, **config}
    selection = [{"evaluations": 10}] if protocol == "legacy" else [{"rule": "mean_relative_gain"}]
    return Record(f"{protocol}-{seed}", config, protocol=protocol, test={"a": {"loss": 1.0}}, selection=selection)


def test_runs_of_two_protocols_are_two_rows_even_if_their_configs_are_alike():
    records = [make_record(seed, protocol) for protocol in ("standard", "legacy") for seed in (0, 1)]
    found = group_by_config([Run(record) for record in records])
    assert [(group.test_selected, group.averaged_evaluations()) for group in found] == [(False, []), (True, [10, 10])]
    unfinished = make_record(0, "legacy")
    unfinished.test = {}
    assert group_by_config([Run(unfinished)])[0].averaged_evaluations() == []


def test_a_record_without_a_protocol_counts_as_standard(mtlrun):
    assert mtlrun(*QUICK)[0] == 0
    (folder,) = run_folders()
    content = read_record(folder)
    del content["protocol"]
    (folder / "record.json").write_text(json.dumps(content | {"schema_version": 1}))
    assert Record.read(folder).protocol == "standard"


def test_a_standard_run_does_not_start_from_networks_that_saw_its_validation_images(mtlrun):
    write("cityscapes")
    assert mtlrun(*overrides("model=single", "trainer.epochs=1", "runtime.quiet=true"))[0] == 0
    (folder,) = run_folders()
    more = ["model=soft", f"model.init_from={folder}", "trainer.epochs=1", "runtime.quiet=true"]
    code, _, err = mtlrun(*overrides(*more, protocol="standard"))
    assert code == 2
    assert "that run has dataset.protocol=legacy, so it was trained on this run's validation split" in err
    assert mtlrun(*overrides(*more))[0] == 0
