"""The comparison of records: one group per config, its seeds put together, labeled by what differs."""

from statistics import fmean, stdev

from mtlrun.comparison.data_sets import group_by_data
from mtlrun.comparison.groups import group_by_config, mean_and_spread
from mtlrun.comparison.run import Run
from mtlrun.records.record import Record


def record(seed, accuracy, weighting="equal", lr=0.1, status="completed"):
    config = {
        "names": {"weighting": weighting, "model": "hard"},
        "seed": seed,
        "optimizer": {"lr": lr},
        "weighting": {"_target_": weighting, "alpha": len(weighting)},
        "runtime": {"root": str(seed)},
    }
    test = {"left": {"accuracy": accuracy}} if status == "completed" else {}
    return Record(f"{weighting}-{seed}-{lr}", config, status=status, test=test)


def rows(records, **options):
    return group_by_config([Run(record) for record in records], **options)


def summary(row, task, metric):
    return mean_and_spread(list(row.independent(row.results(task, metric)).values()))


def test_runs_that_differ_in_their_seed_alone_are_one_group():
    found = rows([record(0, 0.5), record(1, 0.7), record(0, 0.9, "mgda")])
    assert [row.label for row in found] == [{"weighting": "equal"}, {"weighting": "mgda"}]
    mean, spread, count = summary(found[0], "left", "accuracy")
    assert (mean, spread, count) == (fmean([0.5, 0.7]), stdev([0.5, 0.7]), 2)
    assert summary(found[1], "left", "accuracy")[2] == 1


def test_a_group_is_labeled_by_the_keys_that_differ_and_not_by_those_that_follow_from_a_name():
    found = rows([record(0, 0.5), record(0, 0.6, lr=0.2), record(0, 0.7, "mgda")])
    assert [row.label for row in found] == [
        {"weighting": "equal", "optimizer.lr": 0.1},
        {"weighting": "equal", "optimizer.lr": 0.2},
        {"weighting": "mgda", "optimizer.lr": 0.1},
    ]


def test_a_run_without_a_result_is_not_in_the_mean():
    (row,) = rows([record(0, 0.5), record(1, 0.0, status="diverged")])
    assert summary(row, "left", "accuracy")[::2] == (0.5, 1)


def test_runs_of_different_tasks_are_labeled_by_their_tasks():
    both, one = record(0, 0.5), record(0, 0.6)
    task = {"_target_": "Classification", "lr": 0.1}
    both.config["tasks"], one.config["tasks"] = {"left": task, "right": task}, {"left": task}
    assert [row.label for row in rows([both, one])] == [{"tasks": "left, right"}, {"tasks": "left"}]


def test_runs_of_the_same_tasks_are_told_apart_by_the_keys_of_these_beside_runs_of_others():
    runs = [record(0, 0.5), record(0, 0.6), record(0, 0.7)]
    balanced = {"_target_": "Binary", "class_weights": "balanced"}
    for run, tasks in zip(runs, [{"a": {"_target_": "Binary", "class_weights": "none"}}, {"a": balanced},
                                 {"b": balanced}], strict=True):  # fmt: skip
        run.config["tasks"] = tasks
    assert [row.label for row in rows(runs)] == [
        {"tasks": "a", "tasks.a.class_weights": "none"},
        {"tasks": "a", "tasks.a.class_weights": "balanced"},
        {"tasks": "b"},
    ]


def test_tables_of_one_option_are_kept_apart_by_their_content_and_place():
    """As in `dataset=mine dataset.path=a.csv,b.csv`, and in records from before runs had the names of their files."""
    runs = [record(0, 0.5), record(0, 0.6), record(1, 0.7), record(0, 0.8), record(0, 0.9)]
    for run, path, content in zip(
        runs, ["a.csv", "b.csv", "copy.csv", None, None], ["a", "b", "a", "-", "-"], strict=True
    ):
        run.config["names"]["dataset"] = "mine"
        run.config["dataset"] = {"path": path}
        run.data = {str(path): {"content": content}}
    found = group_by_data(runs)
    assert {title: len(of_title) for title, of_title in found.items()} == {
        "mine (a.csv)": 2, "mine (b.csv)": 1, "mine": 2,
    }  # fmt: skip
    assert len(rows(found["mine (a.csv)"])) == 1
