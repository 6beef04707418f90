"""The single-task baseline of a row: found by data, backbone, task and training, or the command that makes it."""

import shlex
from math import nan

import pytest
from synthetic import make_record, make_study

from mtlrun.comparison.building import compare
from mtlrun.comparison.commands import single_task_commands
from mtlrun.comparison.groups import group_by_config
from mtlrun.comparison.run import Run
from mtlrun.comparison.single_task import SingleTaskRuns, training_key
from mtlrun.config.compose import compose


def table_of(records):
    (table,) = compare(list(map(Run, records))).tables
    return table


def accuracies(left, right):
    return {"left": {"accuracy": left, "loss": 0.1}, "right": {"accuracy": right, "loss": 0.1}}


def baseline_of(record, others):
    groups = group_by_config(list(map(Run, [record, *others])))
    return SingleTaskRuns(groups).of(groups[0].runs[0])


def test_the_delta_is_against_the_mean_of_the_baseline():
    single = [make_record(seed, model="single", test=accuracies(0.8, 0.5)) for seed in (0, 1)]
    equal = [make_record(seed, test=accuracies(0.8 * (1.1 + seed / 10), 0.5)) for seed in (0, 1)]
    table = table_of(single + equal)
    by_model = {row.label["model"]: row for row in table.rows}
    delta = by_model["hard"].cells["delta_p"]
    assert list(delta.values.values()) == pytest.approx([5, 10])
    assert delta.mean == pytest.approx(7.5)
    assert by_model["hard"].cells["delta_m"].mean == pytest.approx(-7.5)
    assert by_model["single"].cells["delta_m"].mean == pytest.approx(0)
    assert table.commands == []


def test_runs_of_one_task_each_are_a_baseline_too():
    alone = [make_record(tasks=(task,), test={task: accuracies(0.8, 0.5)[task]}) for task in ("left", "right")]
    table = table_of([make_record(test=accuracies(0.88, 0.5)), *alone])
    (both,) = [row for row in table.rows if "delta_p" in row.cells]
    assert both.cells["delta_p"].mean == pytest.approx(5)
    # An architecture with one task is not the network alone.
    shared = [make_record(tasks=("left",), model="mmoe", test={"left": {"accuracy": 0.8}})]
    assert baseline_of(make_record(), shared).runs == {}


def test_what_has_to_be_equal_and_what_may_differ():
    run = make_record()
    for key, value in {
        "optimizer.lr": 0.1, "trainer.epochs": 3, "backbone.width": 2.0, "scheduler.warmup_epochs": 1,
        "dataset.num_train": 3, "tasks.left.label_smoothing": 0.1, "trainer.clip_norm": 1.0,
    }.items():  # fmt: skip
        found = baseline_of(run, [make_record(model="single", changes={key: value})])
        assert "left" not in found.runs, key
        assert found.problems["left"] == "no run with one network per task has the same data, backbone and training"
    for key, value in {
        "tasks.left.weight": 3.0, "trainer.log_every": 3, "trainer.monitor": "per_task", "runtime.num_threads": 4,
        "trainer.baselines": False, "model.shared_stages": 3,
    }.items():  # fmt: skip
        found = baseline_of(run, [make_record(model="single", changes={key: value})])
        assert found.runs.keys() == {"left", "right"}, key


def test_the_plainest_of_several_baselines_is_taken_and_others_are_ambiguous():
    run = make_record(weighting="mgda")
    plain, weighted = make_record(model="single"), make_record(model="single", weighting="dwa")
    assert baseline_of(run, [weighted, plain]).runs["left"][0].record is plain
    assert baseline_of(run, [weighted]).runs["left"][0].record is weighted
    another = make_record(model="single", changes={"weighting.reduction": "mean"})
    problem = baseline_of(run, [plain, another]).problems["left"]
    assert problem == "2 sets of runs could be it, which differ in weighting.reduction"


def test_each_fold_has_its_baseline():
    def record(fold, value, **options):
        changes = {"dataset.num_folds": 2, "dataset.fold": fold}
        return make_record(test=accuracies(value, value), changes=changes, **options)

    table = table_of([record(0, 0.5, model="single"), record(1, 0.8, model="single"), record(0, 0.6), record(1, 0.8)])
    (row,) = [row for row in table.rows if row.label["model"] == "hard"]
    assert row.cells["delta_p"].samples == pytest.approx([20, 0])


def test_a_baseline_of_0_or_none_makes_the_delta_undefined_and_is_named():
    for value, shown in ((0.0, "0.0000"), (nan, "-")):
        table = table_of([make_record(model="single", test=accuracies(value, 0.5)), make_record()])
        assert not any("delta_m" in row.cells for row in table.rows)
        assert any(
            note.endswith(f"single-task baseline is 0 or undefined: left accuracy {shown}") for note in table.notes
        )


def test_the_command_makes_the_baseline():
    """What it composes has the training in common with the runs that lack a baseline."""
    overrides = ["model=mmoe", "model.num_experts=3", "weighting=cagrad", "weighting.c=0.3", "seed=1",
                 "trainer.epochs=7", "backbone=mlp", "backbone.hidden=[16]", "runtime.study=mine", "runtime.rerun=true",
                 "tasks.left.weight=2", "trainer.log_affinity_every=10"]  # fmt: skip
    runs = [Run(make_record(overrides=[*overrides, f"optimizer.lr={lr}"])) for lr in (0.1, 0.2)]
    (command,) = single_task_commands([*runs, runs[0]], [0, 1])
    assert command == (
        "mtlrun -m model=single weighting=equal seed=0,1 trainer.epochs=7 backbone=mlp 'backbone.hidden=[16]' "
        "runtime.study=mine optimizer.lr=0.1,0.2"
    )
    words = [word.replace("=0,1", "=0").replace("0.1,0.2", "0.2") for word in shlex.split(command)[2:]]
    run, single = (Run(make_record()) for _ in range(2))
    run.record.config = compose([*overrides, "optimizer.lr=0.2"])
    single.record.config = compose(words)
    assert training_key(run) == training_key(single)
    assert single.record.config["names"]["model"] == "single"
    # Of a study nothing is swept again, and folds are.
    (command,) = single_task_commands([Run(make_record(overrides=["study=grid_fair", "dataset.fold=1"]))], [0], [0, 1])
    assert command == (
        "mtlrun -m model=single weighting=equal seed=0 dataset.fold=0,1 study=grid_fair hydra.sweeper.params=null "
        "hydra.sweeper.runs=null hydra.sweeper.exclude=null"
    )


def test_the_table_has_the_command_with_all_its_seeds():
    table = table_of(make_study({"equal": 0.9, "mgda": 0.9}, seeds=2))
    assert "delta_m" not in [column.key for column in table.columns]
    assert table.commands == ["mtlrun -m model=single weighting=equal seed=0,1"]
