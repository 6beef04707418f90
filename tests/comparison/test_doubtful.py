"""Comparisons that would mislead: what is marked best, lost or matched, and could be believed without a warning."""

import copy

import pytest
from synthetic import make_record, make_study, write_records

from mtlrun.cli.compare import main
from mtlrun.comparison.building import compare
from mtlrun.comparison.formats.latex import as_latex
from mtlrun.comparison.reading import read_runs
from mtlrun.comparison.run import Run
from mtlrun.comparison.table import Options
from mtlrun.errors import ConfigError


def tables_of(records, **options):
    return compare([Run(record) for record in records], Options(**options)).tables


def warnings_of(records, **options):
    (table,) = tables_of(records, **options)
    return "\n".join(table.warnings)


def rate(lr):
    return {"optimizer.lr": lr, "tasks.left.lr": lr, "tasks.right.lr": lr}


def test_runs_that_are_linked_into_a_folder_are_found_and_a_loop_of_links_ends(tmp_path):
    folders = write_records(tmp_path / "runs", make_study({"equal": 0.9}, seeds=2))
    (tmp_path / "chosen").mkdir()
    (tmp_path / "chosen" / "run").symlink_to(folders[0])
    (tmp_path / "chosen" / "loop").symlink_to(tmp_path / "chosen")
    assert [run.record.config["seed"] for run in read_runs([tmp_path / "chosen"]).runs] == [0]


def test_a_run_that_is_there_twice_with_other_results_is_named(tmp_path):
    records = make_study({"equal": 0.9}, seeds=2)
    write_records(tmp_path / "a", records)
    write_records(tmp_path / "b", records)
    assert read_runs([tmp_path, tmp_path / "a"]).problems == []
    again = copy.deepcopy(records[0])
    again.test["left"]["accuracy"] = 0.5
    again.started = "2026-02-01T00:00:00+00:00"
    write_records(tmp_path / "b", [again])
    for folders in ([tmp_path], [tmp_path / "b", tmp_path / "a"]):
        found = read_runs(folders)
        assert sorted(run.record.test["left"]["accuracy"] for run in found.runs)[0] == 0.5
        (problem,) = found.problems
        assert "is the same run with other results" in problem
        assert str(tmp_path / "a") in problem.split(":")[0]


def test_a_table_without_the_row_of_against_does_not_stop_the_others():
    records = make_study({"equal": 0.9, "mgda": 0.8}) + make_study({"mgda": 0.8}, dataset="celeba")
    tested, other = tables_of(records, against="equal")
    assert tested.against is not None
    assert other.against is None
    assert any("nothing was tested" in warning for warning in other.warnings)
    with pytest.raises(ConfigError, match=r"multidigits: .*celeba: "):
        tables_of(records, against="dwa")


def test_a_place_for_the_file_that_does_not_exist_is_refused_at_once(tmp_path):
    # The folder of runs is not looked at.
    for out, words in ((tmp_path / "none" / "table.md", "no folder"), (tmp_path, "is a folder")):
        with pytest.raises(ConfigError, match=words):
            main(["nowhere", "--format", "markdown", "--out", str(out)])


def test_a_line_of_latex_that_begins_with_a_bracket_is_no_argument_of_the_one_before():
    records = [make_record(changes={"weighting.weights": weights}) for weights in ([1.0, 2.0], [2.0, 1.0])]
    lines = as_latex(compare([Run(record) for record in records])).splitlines()
    assert sum(line.startswith("{}[") for line in lines) == 2
    assert not any(line.startswith("[") for line in lines)


def test_means_over_different_seeds_are_warned_of():
    whole = make_study({"equal": 0.9, "mgda": 0.9})
    assert "means are over different" not in warnings_of(whole)
    assert "means are over different seeds" in warnings_of(whole[:-1])
    assert "mgda lacks 1 of 3" in warnings_of(whole[:-1])
    mixed = [make_record(seed, weighting=name, changes=rate(lr)) for seed in (0, 1)
             for name, lr in (("equal", 0.1), ("equal", 0.2), ("mgda", 0.1))]  # fmt: skip
    assert "not have the same values of optimizer.lr" in warnings_of(mixed, by=("weighting",))
    mixed += [make_record(seed, weighting="mgda", changes=rate(0.2)) for seed in (0, 1)]
    assert "not have the same values" not in warnings_of(mixed, by=("weighting",))


def test_rows_on_other_data_and_by_other_versions_are_warned_of():
    data = [make_record(changes={"dataset.num_train": number}) for number in (100, 200)]
    assert "rows differ in their data, not in the method alone: dataset.num_train" in warnings_of(data)
    versions = [make_record(weighting=name) for name in ("equal", "mgda")]
    versions[0].environment["versions"]["mtlrun"] = "0.0.1"
    assert "the version of mtlrun" in warnings_of(versions)


def test_deltas_against_several_baselines_or_one_near_zero_are_warned_of():
    def records(lr, values):
        for seed, value in enumerate(values):
            test = {task: {"r2": value} for task in ("left", "right")}
            for model in ("single", "hard"):
                yield make_record(seed, model=model, test=test, directions={"r2": "max"}, changes=rate(lr))

    clear = list(records(0.1, [-0.5, -0.4]))
    assert "Δm" not in warnings_of(clear)
    assert "different single-task baselines" in warnings_of(clear + list(records(0.2, [0.7, 0.8])))
    assert "hardly known from 0: left r2 -0.05" in warnings_of(list(records(0.1, [-0.2, 0.1])))


def test_the_best_trial_is_not_the_one_whose_bad_runs_diverged():
    def trial(lr, skill, **arguments):
        return make_record(changes=rate(lr), skills={"left": {"selected": skill}}, **arguments)

    records = [trial(0.1, 0.7), trial(0.1, 0.7, seed=1), trial(1.0, 0.9), trial(1.0, 0.9, seed=1, status="diverged"),
               trial(10.0, 0.9, status="diverged")]  # fmt: skip
    (table,) = tables_of(records)
    assert table.tuning.methods[0].best == {"optimizer.lr": 0.1}
    assert table.tuning.methods[0].trials == 3
    assert any("without 1 trials that have no result" in note for note in table.tuning.notes)
