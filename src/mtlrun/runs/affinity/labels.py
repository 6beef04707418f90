"""Affinity by data: the labels of the tasks on the training samples."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtlrun.comparison.affinity.associations import Labels, associate_all
from mtlrun.comparison.affinity.measures import AffinityMatrix, fold
from mtlrun.comparison.run import Run
from mtlrun.datasets import Loader
from mtlrun.errors import MtlrunError
from mtlrun.runs.affinity import in_one_line
from mtlrun.runs.restore import as_restored
from mtlrun.setup.prepare import prepare
from mtlrun.tasks import GeneralizedLinear, Ordinal, Task

_MOST_SAMPLES = 20_000
_MEASURES = ("labels", "overlap")


def label_affinities(runs: Sequence[Run]) -> tuple[list[AffinityMatrix], dict[str, str]]:
    """Return the matrices of the tasks' labels, and {measure: why there is none}.

    The labels are read as the run with the most tasks reads them.

    Args:
        runs: on one data set.
    """
    run = max(runs, key=lambda run: len(run.record.config.get("tasks", {})))
    try:
        parts = prepare(as_restored(run.record.config, "cpu"))
    except MtlrunError as error:
        return [], dict.fromkeys(_MEASURES, f"the data cannot be read: {in_one_line(error)}")
    labels = read_labels(parts.tasks, parts.loaders["train"])
    without = [task for task in parts.tasks if task not in labels]
    if len(labels) < 2:
        why = f"fewer than two tasks have labels of whole samples; without: {', '.join(without) or 'none'}"
        return [], dict.fromkeys(_MEASURES, why)
    samples = len(next(iter(labels.values())).values)
    notes = [f"{samples} training samples"]
    if without:
        notes.append(f"left out, since they have no label of a whole sample: {', '.join(without)}")
    found = associate_all(labels)
    return [fold(measure, list(labels), [found[measure]], notes=notes) for measure in _MEASURES], {}


def read_labels(tasks: Mapping[str, Task], loader: Loader) -> dict[str, Labels]:
    """Return the labels on training samples of the tasks that predict numbers or classes of whole samples.

    Args:
        tasks: {name: task}.
        loader: of the training split; the first samples of its first epoch are read.
    """
    kinds = {name: task for name, task in tasks.items() if isinstance(task, GeneralizedLinear)}
    columns: dict[str, list[Tensor]] = {name: [] for name in kinds}
    count = 0
    for targets in loader.target_batches():
        size = len(next(iter(targets.values())))
        for name in kinds:
            if name in targets:
                columns[name].append(_values(tasks[name], targets[name]))
            else:  # a task of other sources
                columns[name].append(torch.full((size, 1), torch.nan, dtype=torch.float64))
        count += size
        if count >= _MOST_SAMPLES:
            break
    labels = {}
    for name, parts in columns.items():
        width = max(part.shape[1] for part in parts)
        values = torch.cat([part.expand(-1, width) for part in parts]).numpy()
        labels[name] = Labels("categories" if _is_categorical(tasks[name]) else "numbers", values)
    return labels


def _values(task: Task, target: Tensor) -> Tensor:
    """Return the labels of a batch, float64 [n, columns], NaN where there is none."""
    values = target.reshape(len(target), -1).double().clone()
    values[~task.labeled(target)] = torch.nan
    if isinstance(task, GeneralizedLinear) and task.family != "gaussian":
        values[values < 0] = torch.nan  # one of several labels is missing
    return values


def _is_categorical(task: Task) -> bool:
    assert isinstance(task, GeneralizedLinear)
    return task.family in ("categorical", "bernoulli") and not isinstance(task, Ordinal)
