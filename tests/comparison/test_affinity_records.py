"""Gains of pairs and curves of synthetic records, which no run has made."""

import json
from itertools import combinations
from math import isnan
from statistics import fmean, stdev

import pytest
from scipy.stats import spearmanr
from synthetic import make_record, write_records

from mtlrun.comparison.affinity.findings import find_affinities
from mtlrun.comparison.affinity.formats import as_lines
from mtlrun.comparison.affinity.studies import group_commands
from mtlrun.comparison.reading import read_runs

TASKS = ("a", "b", "c")
SINGLE = {"a": 0.8, "b": 0.5, "c": 0.4}
# (task, other): accuracy of the task when trained with the other.
PAIRS = {("a", "b"): 0.84, ("b", "a"): 0.5, ("a", "c"): 0.72, ("c", "a"): 0.5, ("b", "c"): 0.55, ("c", "b"): 0.36}


def results(accuracies):
    return {task: {"accuracy": value, "loss": 1 - value} for task, value in accuracies.items()}


def records(seeds=(0, 1), **pairs_with):
    """Return the single-task runs and all pairs, the seeds of which differ by .01 in each task."""
    for seed in seeds:
        shift = 0.01 * seed
        yield make_record(seed, model="single", tasks=TASKS, test=results({t: v + shift for t, v in SINGLE.items()}))
        for one, other in combinations(TASKS, 2):
            test = results({one: PAIRS[one, other] + shift, other: PAIRS[other, one] + shift})
            yield make_record(seed, tasks=(one, other), test=test, **pairs_with)


def findings(tmp_path, all_records, wanted=("gain",)):
    write_records(tmp_path, all_records)
    (found,) = find_affinities(read_runs([tmp_path]).runs, wanted, {})
    return found


def test_gains_are_paired_by_seed(tmp_path):
    (matrix,) = findings(tmp_path, list(records())).matrices
    assert matrix.tasks == TASKS
    for (task, other), value in PAIRS.items():
        row, column = TASKS.index(other), TASKS.index(task)  # what the other task does to the task
        gains = [100 * (value - SINGLE[task]) / (SINGLE[task] + shift) for shift in (0, 0.01)]
        assert matrix.values[row][column] == pytest.approx(fmean(gains))
        assert matrix.spread[row][column] == pytest.approx(stdev(gains))
        assert matrix.counts[row][column] == 2
    assert all(isnan(matrix.values[task][task]) for task in range(3))


def test_groups_by_gains_count_a_task_alone_as_zero(tmp_path):
    found = findings(tmp_path, list(records()))
    found.suggest(2)
    (suggestion,) = found.suggestions
    totals = {
        ("ab", "c"): sum(100 * (PAIRS[t, o] - SINGLE[t]) / SINGLE[t] for t, o in [("a", "b"), ("b", "a")]),
        ("ac", "b"): sum(100 * (PAIRS[t, o] - SINGLE[t]) / SINGLE[t] for t, o in [("a", "c"), ("c", "a")]),
        ("bc", "a"): sum(100 * (PAIRS[t, o] - SINGLE[t]) / SINGLE[t] for t, o in [("b", "c"), ("c", "b")]),
    }
    assert max(totals, key=totals.get) == ("ac", "b")
    assert suggestion.networks == [["a", "c"], ["b"]]


def test_measures_are_held_against_the_gains(tmp_path):
    made = list(records(seeds=(0,)))
    folders = write_records(tmp_path, [*made, make_record(0, tasks=TASKS)])
    # Cosines in the order of the mean gains of the pairs, except for one.
    lines = {"grad_cosine/a_b": 0.1, "grad_cosine/a_c": 0.2, "grad_cosine/b_c": -0.3}
    (folders[-1] / "metrics.jsonl").write_text(json.dumps({"split": "train", "step": 720} | lines) + "\n")
    (found,) = find_affinities(read_runs([tmp_path]).runs, ["cosine", "gain"], {})
    cosine, gain = found.matrices
    pairs = [(a, b) for a in range(3) for b in range(3) if a != b]
    values = [cosine.values[a][b] for a, b in pairs], [gain.values[a][b] for a, b in pairs]
    assert found.agreements() == {"cosine of task gradients": (pytest.approx(spearmanr(*values).statistic), 6)}
    assert f"cosine of task gradients {spearmanr(*values).statistic:+.2f}" in "\n".join(as_lines(found))


def test_methods_and_missing_baselines_are_told_apart(tmp_path):
    both = [*records(), *[record for record in records(weighting="mgda") if record.config["names"]["model"] == "hard"]]
    found = findings(tmp_path / "methods", both)
    assert [matrix.label for matrix in found.matrices] == ["equal", "mgda"]

    alone = [record for record in records() if record.config["names"]["model"] == "hard"]
    found = findings(tmp_path / "alone", alone)
    assert found.matrices == []
    assert "no single-task baseline" in found.missing["gain"]

    other = [*alone, make_record(0, model="single", tasks=TASKS[:2], test=results({"a": 0.8, "b": 0.5}))]
    (matrix,) = findings(tmp_path / "other", other).matrices
    assert "without a single-task baseline: c" in matrix.notes
    a, b, c = (matrix.tasks.index(task) for task in TASKS)
    assert isnan(matrix.values[a][c])
    # The one seed of the baseline stands for the other, too.
    assert matrix.counts[a][b] == 2


def test_failed_runs_and_strange_curves_are_left_out(tmp_path):
    good, failed = make_record(0), make_record(1, status="failed")
    folders = write_records(tmp_path, [good, failed])
    lines = [
        {"split": "train", "step": 10, "grad_cosine/left_right": 0.5, "affinity/left/right": 0.1},
        {"split": "val", "step": 10, "grad_cosine/left_right": 9.0},
        {"split": "train", "step": 720, "grad_cosine/left_right": -0.1, "affinity/left/right": float("nan")},
        {"split": "train", "step": "x", "grad_cosine/left_right": 9.0},
        {"split": "train", "step": 720, "grad_cosine/left_right": "9"},
    ]
    (folders[0] / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"split": "tr')
    (found,) = find_affinities(read_runs([tmp_path]).runs, ["cosine", "lookahead", "gain"], {})
    cosine, lookahead = found.matrices
    assert cosine.values[0][1] == cosine.values[1][0] == pytest.approx(0.2)
    assert {name: values[0][1] for name, values in cosine.stages.items()} == {"first third": 0.5, "last third": -0.1}
    assert lookahead.values[0][1] == 0.1
    assert isnan(lookahead.values[1][0])
    assert list(found.missing) == ["gain"]


def test_commands_leave_out_tasks_as_they_came_in(tmp_path):
    overrides = ["study=mine", "dataset=d", "+task@tasks.c=binary", "tasks.c.lr=0.1", "tasks.b.lr=0.2", "~tasks.d",
                 "weighting=mgda", "seed=3", "runtime.study=old", "trainer.log_affinity_every=5"]  # fmt: skip
    made = [make_record(seed, tasks=TASKS, weighting="mgda", overrides=overrides) for seed in (3, 4)]
    found = findings(tmp_path, made)
    nothing = "hydra.sweeper.params=null hydra.sweeper.runs=null hydra.sweeper.exclude=null"
    common = "mtlrun -m runtime.study=new study=mine dataset=d"
    assert group_commands(found.groups[0], [["a", "b"], ["b", "c"], ["c"]], "new") == [
        f"{common} tasks.b.lr=0.2 '~tasks.d' weighting=mgda trainer.log_affinity_every=5 {nothing} seed=3,4",
        f"{common} +task@tasks.c=binary tasks.c.lr=0.1 tasks.b.lr=0.2 '~tasks.d' weighting=mgda "
        f"trainer.log_affinity_every=5 {nothing} '~tasks.a' seed=3,4",
        "mtlrun -m runtime.study=new model=single weighting=equal study=mine dataset=d +task@tasks.c=binary "
        f"tasks.c.lr=0.1 '~tasks.d' {nothing} '~tasks.a' '~tasks.b' seed=3,4",
    ]
