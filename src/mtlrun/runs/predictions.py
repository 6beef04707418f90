"""The file of predictions: a line for each sample of validation and test, all tasks side by side."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from mtlrun.records.folder import PREDICTIONS, open_atomically, remove
from mtlrun.runs.prediction_columns import Column, Outputs, prediction_columns, target_columns
from mtlrun.runs.prediction_files import WRITERS
from mtlrun.setup.model_description import names_of_outputs
from mtlrun.tasks import DecodesPredictions, Task
from mtlrun.training.outputs import SplitOutputs
from mtlrun.training.parts import Parts

logger = logging.getLogger("mtlrun")

_LINES_AT_ONCE = 20_000
_Cell = TypeVar("_Cell")


@dataclass(frozen=True)
class _Lines:
    """The lines of a split: ids of the samples, and {name: column}."""

    ids: Sequence[Any]
    columns: Mapping[str, Column]


def keep_predictions(parts: Parts, outputs: Mapping[str, SplitOutputs], folder: Path) -> None:
    """Write predictions.csv or predictions.parquet of a run, unless `runtime.predictions` is none.

    Columns: `sample`, its id, or its position in the split where it has none; `split`; and for each task
    `<task>.target`, `<task>.prediction` and `<task>.probability.<class>`, which a binary task has for its positive
    class alone. With several labels or numbers, there is one of each, and its name ends in `.<label>`. Classes go by
    their names if the dataset knows them, else by their indices. A cell is empty where a label is missing, or the task
    is one of other sources.

    Args:
        parts: of the run.
        outputs: {split: what the heads put out}.
        folder: of the run.
    """
    form = parts.runtime.predictions
    for other in PREDICTIONS.keys() - {form}:  # of a run that was stopped after it had written the file
        remove(folder / PREDICTIONS[other])
    if form == "none":
        return
    _log_kinds_without(parts.tasks)
    lines = {split: _lines_of(parts, split, found) for split, found in outputs.items()}
    columns = {name: column for each in lines.values() for name, column in each.columns.items()}
    if columns:
        whole = all(type(sample) is int for each in lines.values() for sample in each.ids)
        with open_atomically(folder / PREDICTIONS[form]) as file:
            writer = WRITERS[form](file, {"sample": whole, "split": False}, columns)
            for split, each, start, stop in _in_parts(lines):
                writer.write([each.ids[start:stop], [split] * (stop - start)], each.columns, start, stop)
            writer.close()


def _log_kinds_without(tasks: Mapping[str, Task]) -> None:
    for name, task in tasks.items():
        decodes = isinstance(task, DecodesPredictions) or task.dense or task.boxes
        if not decodes and set(task.directions()) != {"loss"}:  # a function to be minimized predicts nothing
            logger.info("task %s: no predictions are kept, since %s has no decode()", name, type(task).__name__)


def _lines_of(parts: Parts, split: str, outputs: SplitOutputs) -> _Lines:
    """Return the lines of a split; a sample that no task has a prediction for has none."""
    found = {
        name: of_task
        for name, task in outputs.tasks.items()
        if isinstance(task, DecodesPredictions) and (of_task := outputs.of_task(name)) is not None
    }
    indices = torch.cat([of_task.indices for of_task in found.values()] or [torch.empty(0).long()]).unique()
    columns: dict[str, Column] = {}
    num_lines = len(indices)
    for name, of_task in found.items():
        task = parts.tasks[name]
        assert isinstance(task, DecodesPredictions)
        places = torch.searchsorted(indices, of_task.indices)
        try:
            with torch.inference_mode():
                decoded = task.decode(of_task.predictions.to(parts.device))
            names = names_of_outputs(parts, name)
            found_columns = {
                **dict(target_columns(of_task.targets, Outputs.of(decoded, names), places[of_task.labeled], num_lines)),
                **dict(prediction_columns(decoded, names, places, num_lines)),
            }
        except Exception as error:  # of a kind of the user's own: the result is worth more than its predictions
            logger.warning("task %s: no predictions of %s are kept: %s: %s", name, split, type(error).__name__, error)
            continue
        columns |= {f"{name}.{what}": column for what, column in found_columns.items()}
    ids = parts.loaders[split].split.sample_ids
    return _Lines([index if ids is None else ids[index] for index in indices.tolist()], columns)


def _in_parts(lines: Mapping[str, _Lines]) -> Iterator[tuple[str, _Lines, int, int]]:
    """Yield (split, its lines, first, end) of some lines at a time."""
    for split, each in lines.items():
        for start in range(0, len(each.ids), _LINES_AT_ONCE):
            yield split, each, start, min(start + _LINES_AT_ONCE, len(each.ids))
