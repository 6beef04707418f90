"""The selected checkpoint of a run: skills in the record and on the screen, a state per task, undefined metrics."""

import json
import math
import re
from pathlib import Path

import numpy
import pytest
import torch
from helpers import QUICK, curves, read_lines, read_record, run_folders

from mtlrun.errors import StorageError
from mtlrun.setup.prepare import prepare
from mtlrun.tasks import BinaryClassification, Task
from mtlrun.training import checkpoint

COMPETING = ["trainer.epochs=15", "optimizer.lr=0.01", "tasks.right.lr=0.3"]  # right rises and falls, left rises
LOUD = [option for option in QUICK if option != "runtime.quiet=true"]


def majority(labels):
    return (labels == labels.mode().values).float().mean().item()


def test_the_record_holds_what_a_constant_prediction_gets_and_the_skills(quick):
    record = read_record(quick(*COMPETING))
    parts = prepare(record["config"])
    trivial = record["trivial"]
    for split in ("val", "test"):
        for task, labels in parts.dataset.split(split).targets.items():
            assert trivial[split][task]["accuracy"] == pytest.approx(majority(labels))
    for task, skills in record["skills"].items():
        start = trivial["val"][task]["accuracy"]
        assert skills["selected"] == pytest.approx((record["val"][task]["accuracy"] - start) / (1 - start))
    (selection,) = record["selection"]
    assert selection["skill"] == pytest.approx(sum(skills["selected"] for skills in record["skills"].values()) / 2)


def test_the_screen_and_the_record_say_where_tasks_would_rather_have_another_epoch(mtlrun):
    code, out, err = mtlrun(*LOUD, *COMPETING)
    assert code == 0, err
    (folder,) = run_folders()
    record = read_record(folder)
    (selection,) = record["selection"]
    assert f"at epoch {selection['epoch']} (step {selection['step']}) by mean_skill, skill 0." in out
    (line,) = [line for line in out.splitlines() if line.startswith("tasks that are better at other epochs: ")]
    for task, skills in record["skills"].items():
        accuracies = [found[f"val/{task}/accuracy"] for found in read_lines(folder, "val")]
        best = skills["best_epoch"]
        assert accuracies[best - 1] == max(accuracies)
        expected = f"{task} at epoch {best} (skill {skills['best']:.4f} instead of {skills['selected']:.4f})"
        assert (expected in line) == (max(accuracies) > accuracies[selection["epoch"] - 1])
    assert line in mtlrun(*LOUD, *COMPETING)[1]  # when the result is shown again


def test_per_task_gives_each_task_the_result_of_its_best_epoch(mtlrun):
    code, out, err = mtlrun(*LOUD, *COMPETING, "trainer.monitor=per_task")
    assert code == 0, err
    (folder,) = run_folders()
    record = read_record(folder)
    assert [entry["tasks"] for entry in record["selection"]] == [["left"], ["right"]]
    assert record["selection"][0]["epoch"] != record["selection"][1]["epoch"]
    assert "better at other epochs" not in out
    parts = prepare(record["config"])
    test, states = parts.dataset.split("test"), checkpoint.load(folder / "checkpoints" / "best.pt")["model_states"]
    validations = read_lines(folder, "val")
    for entry, state in zip(record["selection"], states, strict=True):
        (task,) = entry["tasks"]
        assert f"{task} at epoch {entry['epoch']} (step {entry['step']}) by per_task, skill " in out
        accuracies = [line[f"val/{task}/accuracy"] for line in validations]
        assert accuracies[entry["epoch"] - 1] == max(accuracies) == record["val"][task]["accuracy"]
        parts.model.load_state_dict(state)
        with torch.inference_mode():
            predicted = parts.model.eval()(test.inputs).predictions[task].argmax(dim=1)
        accuracy = (predicted == test.targets[task]).float().mean().item()
        assert record["test"][task]["accuracy"] == pytest.approx(accuracy)


def test_for_networks_that_share_nothing_per_task_is_the_same(quick):
    records = [read_record(quick(*COMPETING, "model=single", *more)) for more in ([], ["trainer.monitor=per_task"])]
    assert records[0]["test"] == records[1]["test"]
    assert records[0]["skills"] == records[1]["skills"]
    coupled = quick("model=soft", f"model.init_from={run_folders()[0]}", "backbone=mlp")
    assert read_record(coupled)["status"] == "completed"


def test_problems_without_targets_are_measured_from_their_first_evaluation(mtlrun):
    code, out, err = mtlrun("dataset=toy2d", "trainer.epochs=2", "trainer.limit_batches=3")
    assert code == 0, err
    assert "no constant prediction is defined for first loss, second loss; the skill is relative to the first" in out
    record = read_record(run_folders()[0])
    assert record["trivial"] == {"val": {"first": {}, "second": {}}, "test": {"first": {}, "second": {}}}


def test_a_disk_that_is_full_at_the_first_evaluation_is_the_reason_in_the_record(mtlrun, monkeypatch):
    save = checkpoint.save

    def fail(state, path):
        if path.name == "best.pt":
            raise StorageError(path, OSError(28, "No space left on device"))
        save(state, path)

    monkeypatch.setattr(checkpoint, "save", fail)
    code, _, err = mtlrun(*QUICK)
    (folder,) = run_folders()
    error = f"{folder}/checkpoints/best.pt cannot be written: No space left on device"
    assert (code, err) == (1, f"mtlrun: {error}; once it can be, the same command goes on\n")
    record = read_record(folder)
    assert (record["status"], record["error"]) == ("failed", error)


# ----------------------------------------------------------------------------------- metrics that are not defined


def write_table(**labels):
    """Write a table whose column `sold` is 0 throughout validation, so that no area under the ROC curve is defined.

    Args:
        labels: {split: what `sold` is in its rows instead}.
    """
    numbers = numpy.random.default_rng(0).normal(size=(60, 2)).round(3)
    lines = ["part,x,sold,price"]
    for index, (x, noise) in enumerate(numbers):
        part = "train" if index < 30 else "val" if index < 45 else "test"
        x = -abs(x) if part == "val" else x
        sold = labels.get(part, int(x > 0))
        lines.append(f"{part},{x},{sold},{x + 0.1 * noise:.3f}")
    Path("table.csv").write_text("\n".join(lines))


TABLE = [
    "dataset=csv",
    "dataset.path=table.csv",
    "dataset.split_column=part",
    "backbone.hidden=[4]",
    "+task@tasks.sold=binary",
    "trainer.epochs=4",
    "trainer.batch_size=8",
]
PRICE = "+task@tasks.price=regression"


def test_the_loss_stands_in_for_a_metric_that_is_not_defined_and_that_is_said_before_training(mtlrun):
    write_table()
    code, out, err = mtlrun(*TABLE, PRICE, "optimizer.lr=0.1")
    assert code == 0, err
    said = out.split("epoch 1,")[0]
    assert (
        "val split, task sold: auroc, average_precision, f1 and mcc are not defined, since all 15 labels are '0', so "
        "checkpoints are compared by the loss instead of auroc; add samples with the labels that it lacks"
    ) in said
    (folder,) = run_folders()
    record = read_record(folder)
    (selection,) = record["selection"]
    assert selection["stand_ins"] == {"sold/auroc": "sold/loss"}
    assert any("the loss instead of auroc" in note for note in record["notes"])
    # The reference is what the labels of training tell about those of validation, or the first loss.
    train = prepare(record["config"]).dataset.split("train").targets["sold"].float().mean().item()
    reference = max(-math.log(1 - train), read_lines(folder, "val")[0]["val/sold/loss"])
    assert record["skills"]["sold"]["selected"] == pytest.approx(1 - record["val"]["sold"]["loss"] / reference)
    mean = (record["skills"]["sold"]["selected"] + record["skills"]["price"]["selected"]) / 2
    assert selection["skill"] == pytest.approx(mean)
    assert math.isnan(record["val"]["sold"]["auroc"])
    assert len(curves(folder).Scalars("val/sold/auroc")) == 4
    assert "with sold/loss for sold/auroc" in out
    code, again, _ = mtlrun(*TABLE, PRICE, "optimizer.lr=0.1")
    assert code == 0
    for shown in (out.split("result")[-1], again):
        assert [line.split().count("-") for line in shown.splitlines() if "auroc ↑" in line] == [1]
        assert " nan" not in shown


@pytest.mark.parametrize(
    "rule", [["model=single"], ["trainer.monitor=per_task"], ["trainer.min_delta=0.001"], ["~tasks.price"]]
)
def test_a_task_that_is_selected_alone_goes_by_its_loss_and_patience_too(rule, mtlrun):
    write_table()
    tasks = [] if rule == ["~tasks.price"] else [PRICE]
    options = [option for option in rule if option != "~tasks.price"]
    more = ["trainer.epochs=12", "trainer.patience=3", "optimizer.lr=0.03", "dataset.inputs=[x]", "runtime.quiet=true"]
    code, _, err = mtlrun(*TABLE, *tasks, *options, *more)
    assert code == 0, err
    (folder,) = run_folders()
    record = read_record(folder)
    entry = next(entry for entry in record["selection"] if "sold" in entry["tasks"])
    assert entry["stand_ins"] == {"sold/auroc": "sold/loss"}
    losses = [line["val/sold/loss"] for line in read_lines(folder, "val")]
    if entry["tasks"] == ["sold"]:
        assert losses[entry["epoch"] - 1] == min(losses)
    assert entry["epoch"] > 1
    assert record["skills"]["sold"]["best"] >= record["skills"]["sold"]["selected"]


def test_monitoring_a_metric_that_is_not_defined_is_refused_with_what_is(mtlrun):
    write_table()
    code, out, err = mtlrun(*TABLE, PRICE, "trainer.monitor=sold/f1", "runtime.quiet=true")
    assert (code, out) == (2, "")
    assert "trainer.monitor=sold/f1: f1 is not defined on the val split, since all 15 labels are '0'; use" in err
    assert not Path("outputs").exists()
    (advised,) = re.findall(r"use (trainer\.monitor=\S+)", err)
    code, out, err = mtlrun(*TABLE, PRICE, advised, "runtime.quiet=true")
    assert code == 0, err


def test_a_drawn_split_that_lacks_a_label_comes_with_an_override_that_gives_it_one(mtlrun):
    rows = ["x,sold,price", *(f"{x},{'yes' if x in (3, 17, 31, 40) else 'no'},{x % 7}" for x in range(60))]
    Path("table.csv").write_text("\n".join(rows))
    options = [option for option in TABLE if "split_column" not in option]
    for seed in (1, 2, 3):
        code, out, err = mtlrun(*options, f"dataset.split_seed={seed}", "trainer.epochs=1", "runtime.quiet=true")
        assert code == 0, err
        advised = re.findall(r"since all \d+ labels are 'no'.*; divide the data differently: (\S+)", out)
        assert advised or "not defined" not in out
        if advised:
            followed = [f"dataset.split_seed={seed}"] * ("seed" not in advised[0])
            code, out, err = mtlrun(*options, *followed, advised[0], "trainer.epochs=1", "runtime.quiet=true")
            assert code == 0, err
            assert "not defined" not in out
            return
    raise AssertionError("every drawing had both labels in each split")


def test_a_metric_that_turns_out_to_be_undefined_is_replaced_from_the_first_evaluation_on(mtlrun, monkeypatch):
    write_table()
    monkeypatch.setattr(BinaryClassification, "undefined_metrics", Task.undefined_metrics)  # as a kind of one's own
    code, out, err = mtlrun(*TABLE, PRICE, "optimizer.lr=0.1", "runtime.quiet=true")
    assert code == 0, err
    assert (
        "task sold: auroc is not finite in the first evaluation of validation; the loss of the task is compared" in out
    )
    (folder,) = run_folders()
    record = read_record(folder)
    assert record["selection"][0]["stand_ins"] == {"sold/auroc": "sold/loss"}
    losses = [line["val/sold/loss"] for line in read_lines(folder, "val")]
    assert record["skills"]["sold"]["best"] == pytest.approx(1 - min(losses) / losses[0])


def test_a_task_without_labels_in_test_has_an_empty_result(mtlrun):
    write_table(test="")
    code, out, err = mtlrun(*TABLE, PRICE)
    assert code == 0, err
    line = (
        "the test split has no label of task sold, so it has no result; add samples with the labels that it lacks or "
        "leave out the task: ~tasks.sold"
    )
    assert line in out
    assert line in read_record(run_folders()[0])["notes"]
    shown = out.split("result")[-1] + mtlrun("compare", "outputs")[1] + mtlrun(*TABLE, PRICE, "runtime.quiet=true")[1]
    assert "nan" not in shown.lower()
    assert [row.split()[-2] for row in out.splitlines() if "auroc ↑" in row] == ["-"]


@pytest.mark.parametrize(
    ("values", "cell"),
    [
        ([math.nan, 0.5, 0.7], "0.6000 ± 0.1414 (2 of 3)"),
        ([math.inf, 0.5], "0.5000 (1 of 2)"),
        ([None, 0.5], "0.5000 (1 of 2)"),
        ([math.nan, -math.inf], "- (0 of 2)"),
        ([math.nan], "- (0 of 1)"),
    ],
)
def test_compare_shows_metrics_that_are_not_defined(values, cell, mtlrun):
    for seed, value in enumerate(values):
        folder = Path("outputs", str(seed))
        folder.mkdir(parents=True)
        record = {
            "run_id": f"run-{seed}", "config": {"names": {"dataset": "mine"}, "seed": seed}, "status": "completed",
            "directions": {"a": {"auroc": "max"}, "b": {"rmse": "min"}}, "main_metrics": {"a": "auroc", "b": "rmse"},
            "test": {"a": {"auroc": value}, "b": {"rmse": 2.0}}, "schema_version": 2,
        }  # fmt: skip
        (folder / "record.json").write_text(json.dumps(record))
    code, out, err = mtlrun("compare", "outputs")
    assert code == 0, err
    line = out.splitlines()[1]
    assert line.split(" 2.0000")[0].strip() == cell
    assert line.split()[-1] == str(len(values))
    assert "(n of m): over the n seeds or folds with a value" in out
