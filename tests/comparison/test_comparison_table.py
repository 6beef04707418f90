"""The table of a comparison: which runs are a row, what a cell is, and what is said about runs that are not in it."""

import cProfile
import json
import re
from math import isnan, nan
from pathlib import Path
from statistics import fmean, stdev

import pytest
from synthetic import make_record, make_study, write_records

from mtlrun.comparison.building import compare
from mtlrun.comparison.labels import FOLLOWS
from mtlrun.comparison.reading import compare_folders
from mtlrun.comparison.run import Run
from mtlrun.comparison.table import Options
from mtlrun.errors import ConfigError, DataError

CONF = Path(__file__).parents[2] / "conf"


def table_of(records, **options):
    (table,) = compare([Run(record) for record in records], Options(**options)).tables
    return table


def accuracies(*values):
    return {"left": {"accuracy": values[0], "loss": 0.1}, "right": {"accuracy": values[-1], "loss": 0.1}}


def rates(*values):
    """Return changes of a config as `optimizer.lr=` makes them: the tasks follow."""
    return [{"optimizer.lr": lr, "tasks.left.lr": lr, "tasks.right.lr": lr} for lr in values]


def test_a_row_is_a_config_over_its_seeds():
    table = table_of(make_study({"equal": 0.9, "mgda": 0.8}, seeds=4))
    assert table.labels == ["weighting"]
    assert [(row.name, row.counts) for row in table.rows] == [("equal", {"completed": 4}), ("mgda", {"completed": 4})]
    cell = table.rows[0].cells["left/accuracy"]
    assert list(cell.values) == [(seed, None) for seed in range(4)]
    assert (cell.mean, cell.std, cell.n) == (fmean(cell.values.values()), stdev(cell.values.values()), 4)
    assert (cell.place, table.rows[1].cells["left/accuracy"].place) == (1, 2)


def test_runs_without_a_result_and_missing_ones_are_counted_in_their_row():
    records = make_study({"equal": 0.9}, seeds=5)
    records += [make_record(0, weighting="mgda"), make_record(1, weighting="mgda", status="failed"),
                make_record(2, weighting="mgda", status="diverged"), make_record(3, weighting="mgda", status="running"),
                make_record(0, weighting="dwa", status="interrupted")]  # fmt: skip
    table = table_of(records)
    assert [row.counts for row in table.rows] == [
        {"completed": 5},
        {"completed": 1, "failed": 1, "diverged": 1, "running": 1, "missing": 1},
        {"completed": 0, "interrupted": 1, "missing": 4},
    ]
    assert table.rows[1].missing == [(4, None)]
    assert table.rows[2].cells.keys() == {"parameters"}
    assert isnan(table.rows[2].mean(table.metrics[0]))


def test_a_learning_rate_that_follows_is_shown_only_where_it_does_not():
    followed = [make_record(changes=changes) for changes in rates(0.1, 0.2)]
    assert table_of(followed).labels == ["optimizer.lr"]
    table = table_of(
        [*followed, make_record(changes={"optimizer.lr": 0.2, "tasks.left.lr": 0.3, "tasks.right.lr": 0.2})]
    )
    assert [row.label for row in table.rows] == [
        {"optimizer.lr": 0.1, "tasks.left.lr": 0.1},
        {"optimizer.lr": 0.2, "tasks.left.lr": 0.2},
        {"optimizer.lr": 0.2, "tasks.left.lr": 0.3},
    ]


def test_preferences_that_are_not_the_weights_of_the_tasks_are_shown():
    weights = [
        {"tasks.left.weight": w, "tasks.right.weight": 1.0, "weighting.preferences": [w, 1.0]} for w in (1.0, 2.0)
    ]
    assert table_of([make_record(changes=changes) for changes in weights]).labels == ["tasks.left.weight"]
    chosen = [{"weighting.preferences": [w, 1.0]} for w in (0.5, 2.0)]
    assert table_of([make_record(changes=changes) for changes in chosen]).labels == ["weighting.preferences"]


def test_every_key_that_the_yaml_fills_in_from_another_follows_it():
    """What `${group.key}` in conf/ refers to; without this a swept key would be shown under two names."""
    for path in sorted(CONF.glob("*/*.yaml")):
        for key, source in re.findall(
            r"(\w+): [\"']?\$\{(?:oc\.select:)?((?:dataset|backbone|optimizer)\.\w+)", path.read_text()
        ):
            patterns = [pattern for pattern, sources in FOLLOWS.items() if source in sources]
            assert any(re.search(rf"\\\.{key}$", pattern) for pattern in patterns), (path.name, key, source)


def test_rows_of_choice_say_what_they_mix():
    records = [
        record
        for changes in rates(0.1, 0.2)
        for record in make_study({"equal": 0.9, "mgda": 0.8}, seeds=2, changes=changes)
    ]
    table = table_of(records, by=("weighting",))
    assert [(row.name, row.counts["completed"]) for row in table.rows] == [("equal", 4), ("mgda", 4)]
    assert table.notes[0] == "rows put runs together that differ in optimizer.lr"
    assert list(table.rows[0].cells["left/accuracy"].values) == [(s, None, lr) for lr in (0.1, 0.2) for s in (0, 1)]
    assert table_of(records, by=("weighting", "optimizer.lr")).notes[0].startswith("no Δm")
    # Over learning rates, each seed is a row, and nothing is mixed.
    table = table_of(records, over=("optimizer.lr",))
    assert [row.label for row in table.rows] == [{"weighting": w, "seed": s} for w in ("equal", "mgda") for s in (0, 1)]
    assert list(table.rows[0].cells["left/accuracy"].values) == [(0.1,), (0.2,)]
    table = table_of(records, over=("weighting", "seed"))
    assert table.labels == ["optimizer.lr"]
    with pytest.raises(ConfigError, match=r"--group-by weihting: no run has this key; did you mean 'weighting'\?"):
        table_of(records, by=("weihting",))


def test_folds_count_once_each():
    def record(seed, fold, value):
        changes = {"dataset.num_folds": 2, "dataset.fold": fold}
        return make_record(seed, test=accuracies(value), changes=changes)

    table = table_of([record(0, 0, 0.5), record(1, 0, 0.7), record(0, 1, 0.9)])
    (row,) = table.rows
    cell = row.cells["left/accuracy"]
    assert (cell.samples, cell.n) == (pytest.approx([0.6, 0.9]), 2)
    assert list(cell.values) == [(0, 0), (1, 0), (0, 1)]
    # Over seeds alone, each fold is a row.
    table = table_of([record(0, 0, 0.5), record(1, 0, 0.7), record(0, 1, 0.9)], over=("seed",))
    assert [row.label for row in table.rows] == [{"dataset.fold": 0}, {"dataset.fold": 1}]


def test_metrics_are_chosen_by_name():
    records = make_study({"equal": 0.9, "mgda": 0.8}, seeds=1)
    keys = [[column.key for column in table_of(records, metrics=chosen).metrics]
            for chosen in (("main",), ("all",), ("right/loss", "main"), ("*/loss",))]  # fmt: skip
    assert keys == [["left/accuracy", "right/accuracy"], ["left/accuracy", "right/accuracy"],
                    ["right/loss", "left/accuracy", "right/accuracy"], ["left/loss", "right/loss"]]  # fmt: skip
    # One data set may lack what another has; what none has is refused.
    toy = make_record(dataset="toy", tasks=("up",))
    tables = compare(list(map(Run, [*records, toy])), Options(metrics=("left/loss",))).tables
    assert [[column.key for column in table.metrics] for table in tables] == [["left/loss"], []]
    with pytest.raises(ConfigError, match=r"--metrics left/los: no run has this metric; did you mean 'left/loss'\?"):
        table_of(records, metrics=("left/los",))


def test_a_metric_that_is_not_defined_is_counted_and_not_averaged():
    records = [make_record(seed, test=accuracies(value)) for seed, value in enumerate([0.5, nan, 0.7])]
    cell = table_of(records).rows[0].cells["left/accuracy"]
    assert (cell.mean, cell.n, cell.of) == (0.6, 2, 3)


def test_means_that_look_alike_share_a_place():
    values = {"equal": 0.90001, "mgda": 0.90002, "dwa": 0.8, "rlw": 0.7}
    table = table_of([make_record(weighting=name, test=accuracies(value)) for name, value in values.items()])
    assert [row.cells["left/accuracy"].place for row in table.rows] == [1, 1, 2, 0]
    around_zero = [make_record(model="single", test=accuracies(0.8))]
    for name, value in {"mgda": 0.80001, "dwa": 0.79999}.items():
        around_zero.append(make_record(weighting=name, test=accuracies(value)))
    table = table_of(around_zero)
    assert [row.cells["delta_p"].place for row in table.rows] == [1, 1, 1]  # 0.00 and -0.00 are both shown as 0.00


def test_time_and_memory_of_other_hardware_are_left_out():
    records = make_study({"equal": 0.9, "mgda": 0.9}, seeds=2)
    other = make_record(weighting="dwa")
    other.environment |= {"device": "cuda:0", "gpu": "NVIDIA H100"}
    other.peak_memory_mib["gpu"] = 100.0
    table = table_of([*records, other])
    assert [set(row.cells) >= {"seconds_per_step", "peak_memory_mib"} for row in table.rows] == [True, True, False]
    assert table.rows[2].cells["parameters"].mean == 21_000
    assert table.rows[0].cells["seconds_per_step"].mean == pytest.approx(0.05)
    assert any("of 1 runs on other hardware they are left out" in note for note in table.notes)
    assert not any("side by side" in note for note in table.notes)
    records[1].started = records[0].started
    assert any("side by side" in note for note in table_of(records).notes)


def test_test_selected_rows_are_not_ranked_with_the_others():
    legacy = [{"tasks": ["left"], "rule": "last_mean", "epoch": 3, "step": 3, "evaluations": 10, "first_epoch": 1}]
    records = [*make_study({"equal": 0.9, "mgda": 0.8}, seeds=1),
               make_record(test=accuracies(0.99), protocol="legacy", selection=legacy)]  # fmt: skip
    table = table_of(records)
    assert [row.cells["left/accuracy"].place for row in table.rows] == [1, 2, 0]
    assert [("mean_rank" in row.cells) for row in table.rows] == [True, True, False]


def test_reading_names_what_it_leaves_out(tmp_path):
    (first, *_, last) = write_records(tmp_path, make_study({"equal": 0.9, "mgda": 0.8}))
    content = json.loads((first / "record.json").read_text())
    (first / "record.json").write_text(json.dumps(content)[:-40])  # cut off
    (last / "record.json").write_text(json.dumps(content | {"schema_version": 99}))
    strange = content | {"run_id": "strange", "config": content["config"] | {"dataset": {"num_folds": 2, "fold": {}}}}
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "record.json").write_text(json.dumps(strange))
    comparison = compare_folders([tmp_path])
    assert [row.counts for row in comparison.tables[0].configs] == [{"completed": 2, "missing": 1}] * 2
    assert len(comparison.problems) == 3
    assert f"{first}/record.json is no record of a run (not JSON)" in comparison.problems
    assert any("schema version 99" in problem and str(last) in problem for problem in comparison.problems)
    with pytest.raises(DataError, match="there is no such folder"):
        compare_folders([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no run has left a record in or below this folder"):
        compare_folders([tmp_path, tmp_path / "empty"])


def test_runs_that_a_sweep_has_still_to_start_are_mentioned(tmp_path):
    import os
    import platform
    import time

    records = make_study({"equal": 0.9}, seeds=1)
    write_records(tmp_path, records)
    (tmp_path / ".sweeps").mkdir()
    runs = ["a", "b", records[0].run_id]
    sweep = {"host": platform.node(), "pid": os.getpid(), "at": time.time(), "runs": runs}
    (tmp_path / ".sweeps" / "x.json").write_text(json.dumps(sweep))
    assert "a sweep has still to start 2 runs, which no row counts" in compare_folders([tmp_path]).notes


def test_the_time_of_a_comparison_grows_with_the_number_of_runs_and_no_faster(tmp_path):
    """Calls are counted, since seconds depend on the machine; scripts/benchmark_compare.py prints those."""

    def calls(number):
        records = [
            make_record(number % 2, weighting=f"method_{number // 2}", changes=changes)
            for number, (changes,) in ((n, rates(0.001 * (n % 10))) for n in range(number))
        ]
        write_records(tmp_path / str(number), records)
        profile = cProfile.Profile()
        profile.runcall(compare_folders, [tmp_path / str(number)])
        return sum(entry.callcount for entry in profile.getstats())

    calls(10)  # what is looked into once
    few, many = calls(60), calls(120)
    assert many < 2.3 * few
    assert many / 120 < 4000
