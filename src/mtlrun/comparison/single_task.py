"""The single-task baseline of a run: a network of its own for each task, trained as the run was."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan
from statistics import fmean
from typing import Any

from mtlrun.comparison.columns import Column
from mtlrun.comparison.data_sets import is_table
from mtlrun.comparison.groups import ConfigGroup
from mtlrun.comparison.labels import DERIVED, label_configs
from mtlrun.comparison.run import Run
from mtlrun.records.identity import flatten

# What does not concern how a task is learned without the others, or cannot change a result beyond rounding.
_IGNORED = {
    "seed", "dataset.fold", "dataset.predict", "trainer.eval_batch_size", "trainer.log_every",
    "trainer.log_gradients_every", "trainer.log_affinity_every", "trainer.log_pictures", "trainer.max_fallbacks",
    "trainer.vmap_backward", "trainer.channels_last", "trainer.compile",
    *DERIVED,
}  # fmt: skip
_IGNORED_GROUPS = ("names.", "runtime.", "model.", "weighting.", "match_parameters.", "tasks.", "dataset.targets.")
_CHOOSE_INPUTS = ("dataset.inputs", "dataset.exclude")
# Rules of selection that are one for networks that share nothing.
_PER_TASK = ("mean_skill", "per_task")


@dataclass
class SingleTaskBaseline:
    """The runs that a run is held against, for each of its tasks.

    Args:
        runs: {task: runs with equal settings that differ in seed and fold}.
        problems: {task: why it has none}.
    """

    runs: dict[str, list[Run]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    _means: dict[tuple[str, int | None], float] = field(default_factory=dict, repr=False)

    def values(self, column: Column, fold: int | None = None) -> list[float]:
        """Return a metric of each run of one fold; NaN where it is not defined."""
        found = [run.record.test for run in self.runs.get(column.task, []) if run.fold == fold]
        return [test[column.task][column.metric] for test in found if column.metric in test.get(column.task, {})]

    def mean(self, column: Column, fold: int | None = None) -> float:
        """Return the mean of a metric over the seeds, of one fold; NaN if no run has a finite value."""
        key = column.key, fold
        if key not in self._means:
            finite = [value for value in self.values(column, fold) if isfinite(value)]
            self._means[key] = fmean(finite) if finite else nan
        return self._means[key]


def is_single_task(run: Run) -> bool:
    """Return True if no parameter of a run is shared by tasks: it is of `model=single`, or hard sharing of one task.

    What was made from runs, such as an ensemble of these, is none.
    """
    model = run.lookup("model")
    return not run.made_from and (model == "single" or (model == "hard" and len(run.record.main_metrics) == 1))


class SingleTaskRuns:
    """The runs that can be single-task baselines, and which of them is the baseline of which config.

    A baseline has the data, the backbone, the task and the keys of the training in common with the run, all but the
    seed. Where several have, those with `weighting=equal`, without `match_parameters` and of `model=single` come first.

    Args:
        groups: the runs on one data set, grouped by config over seeds and folds.
    """

    def __init__(self, groups: Sequence[ConfigGroup]) -> None:
        self._candidates: dict[tuple[str, str], list[ConfigGroup]] = {}
        self._baselines: dict[int, SingleTaskBaseline] = {}
        for group in groups:
            run = group.runs[0]
            if is_single_task(run) and any(other.record.test for other in group.runs):
                common = training_key(run)
                for task in run.record.main_metrics:
                    self._candidates.setdefault((common, _task_key(run, task)), []).append(group)
        for group in groups:
            baseline = self._find(group.runs[0])
            self._baselines |= {id(run): baseline for run in group.runs}

    def of(self, run: Run) -> SingleTaskBaseline:
        """Return the baseline of one of the runs; its `problems` name the tasks without one."""
        return self._baselines[id(run)]

    def _find(self, run: Run) -> SingleTaskBaseline:
        baseline, common = SingleTaskBaseline(), training_key(run)
        for task in run.record.config.get("tasks", {}):
            candidates = self._candidates.get((common, _task_key(run, task)), [])
            best = max(map(_preference, candidates), default=None)
            chosen = [group for group in candidates if _preference(group) == best]
            if len(chosen) == 1:
                baseline.runs[task] = chosen[0].runs
            else:
                baseline.problems[task] = _describe_ambiguity(chosen)
        return baseline


def training_key(run: Run) -> str:
    """Return what a run and its single-task baseline have in common: data, backbone, optimizer, schedule and trainer.

    The input columns of a table are part of it, and not by which keys they were chosen: a label that is not predicted
    must not have become an input.
    """
    inputs = run.record.learned.get("inputs")
    columns = inputs.get("columns") if isinstance(inputs, Mapping) else None
    ignored = _IGNORED | ({"dataset.path"} if is_table(run.record) and run.content else set())
    chosen = _CHOOSE_INPUTS if columns else ()
    ignored_groups = _IGNORED_GROUPS + chosen
    common: dict[str, Any] = {
        key: value for key, value in run.config.items() if key not in ignored and not key.startswith(ignored_groups)
    }
    if common.get("trainer.monitor") in _PER_TASK:
        common["trainer.monitor"] = _PER_TASK[0]
    names = sorted(map(str, columns)) if columns else None
    return repr((run.record.protocol, run.content, names, sorted(common.items())))


def _task_key(run: Run, task: str) -> str:
    """Return what a run and its baseline have in common for a task: all of it but its weight among the tasks."""
    node = run.record.config.get("tasks", {}).get(task)
    keys = flatten(node) if isinstance(node, Mapping) else {}
    return repr((task, run.meaning(task), sorted((key, value) for key, value in keys.items() if key != "weight")))


def _preference(group: ConfigGroup) -> tuple[bool, bool, bool]:
    run = group.runs[0]
    names = run.record.config["names"]
    return names.get("weighting") == "equal", names.get("match_parameters") is None, names.get("model") == "single"


def _describe_ambiguity(groups: Sequence[ConfigGroup]) -> str:
    """Return in words why none of these groups, or of none, is the baseline."""
    if not groups:
        return "no run with one network per task has the same data, backbone and training"
    labels = label_configs([group.runs[0].config for group in groups], [group.runs[0].content for group in groups])
    keys = dict.fromkeys(key for label in labels for key in label if key != "seed")
    return f"{len(groups)} sets of runs could be it, which differ in {', '.join(keys) or 'nothing but their place'}"
