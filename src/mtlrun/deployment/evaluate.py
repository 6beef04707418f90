"""evaluate_run(): the metrics of a finished run on one of its splits, by its selected weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import Any

from mtlrun.config.changes import change
from mtlrun.config.schema import GROUPS
from mtlrun.datasets import Loader, SplitName
from mtlrun.deployment.code import check_code
from mtlrun.deployment.predictor import completed_record
from mtlrun.deployment.selected import load_networks, read_states
from mtlrun.records.record import Record, TaskMetrics
from mtlrun.runs.restore import as_restored, check_has_model, check_same_splits
from mtlrun.setup.prepare import prepare
from mtlrun.training.evaluation import evaluate
from mtlrun.training.intervals import find_intervals
from mtlrun.training.outputs import SplitOutputs
from mtlrun.training.parts import Parts

# Relative differences from the record that other devices and versions of PyTorch explain.
_ROUNDING = 1e-4


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a run.

    Args:
        run_id: of the run.
        on: the split, or the file, that was evaluated.
        metrics: {task: {metric: value}}.
        intervals: {task: {metric: [low, high]}}.
        directions: {task: {metric: `max` or `min`}}.
        drawn_from: what the intervals resample: samples, or groups of them.
        notes: sentences for the user.
    """

    run_id: str
    on: str
    metrics: TaskMetrics
    intervals: Mapping[str, Mapping[str, list[float]]]
    directions: Mapping[str, Mapping[str, str]]
    drawn_from: str = "samples"
    notes: list[str] = field(default_factory=list)

    def as_plain(self) -> dict[str, Any]:
        """Return the evaluation as plain data."""
        return {"run_id": self.run_id, "on": self.on, "metrics": self.metrics, "intervals": self.intervals}


def evaluate_run(
    folder: str | Path, split: SplitName = "test", overrides: Sequence[str] = (), *, device: str = "auto"
) -> Evaluation:
    """Return the metrics of a completed run on one of its splits. Nothing is written.

    Args:
        folder: of the run, wherever it is now.
        split: `train`, `val` or `test`.
        overrides: of keys of the dataset, such as `dataset.root=/data/photos` where the data have moved.
        device: as `runtime.device`.

    Raises:
        DataError: there is no completed run, or its data are gone, or are not what they were.
        ConfigError: an override is none, or the run cannot be prepared anymore.
        CheckpointError: best.pt is damaged, or does not fit the model.
    """
    folder = Path(folder)
    record = completed_record(folder)
    check_has_model(folder, record)
    check_code(record.config, folder, (*GROUPS, "tasks"))
    config = change(record.config, overrides, "dataset")
    states = read_states(folder, record)
    parts = prepare(as_restored(config, device))
    check_same_splits(record, parts, folder)
    loader = _loader(parts, split)
    outputs = SplitOutputs(parts.tasks, loader)
    found: TaskMetrics = {}
    for network in load_networks(parts.model, states, record, folder):
        tasks = {name: parts.tasks[name] for name in network.tasks}
        found |= evaluate(network.model.to(parts.device), tasks, loader, parts.device, outputs=outputs)
    metrics = {name: found[name] for name in parts.tasks}
    groups = parts.dataset.groups(split)
    intervals = find_intervals(outputs, metrics, parts.device, groups).bounds
    notes = _compare(metrics, record, split)
    drawn_from = "samples" if groups is None else "groups of samples"
    return Evaluation(record.run_id, split, metrics, intervals, record.directions, drawn_from, notes)


def _loader(parts: Parts, split: SplitName) -> Loader:
    """Return the loader of a split, in whose order each sample comes once."""
    loader = parts.loaders[split]
    if split != "train":
        return loader
    return Loader(loader.split, parts.settings.eval_batch_size, shuffle=False, per_source=loader.per_source)


def _compare(metrics: TaskMetrics, record: Record, split: SplitName) -> list[str]:
    """Return a sentence if metrics are not those of the record, for a split that the record has metrics of."""
    if record.protocol == "legacy":
        return ["these are metrics of the last weights; the result in the record is a mean over evaluations (legacy)"]
    known = {"test": record.test, "val": record.val}.get(split, {})
    different = [
        f"{task} {name} {value:.6g} (record: {known[task][name]:.6g})"
        for task, values in metrics.items()
        for name, value in values.items()
        if name in known.get(task, {}) and not _close(value, known[task][name])
    ]
    if not different:
        return []
    more = f", and {len(different) - 3} more" if len(different) > 3 else ""
    return [
        f"the metrics are not those of the record: {', '.join(different[:3])}{more}; another device or version of "
        "PyTorch may explain small differences"
    ]


def _close(value: float, known: float) -> bool:
    return (isnan(value) and isnan(known)) or abs(value - known) <= _ROUNDING * max(1.0, abs(known))
