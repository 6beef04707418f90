"""The file of predictions: a line for each sample of validation and test, all tasks side by side."""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy
import torch
from torch import Tensor

from mtlrun.records.folder import PREDICTIONS, open_atomically, remove
from mtlrun.tasks import Decoded, DecodesPredictions, Task
from mtlrun.training.outputs import SplitOutputs, TaskOutputs
from mtlrun.training.parts import Parts

logger = logging.getLogger("mtlrun")

_LINES_AT_ONCE = 20_000
_Cell = TypeVar("_Cell")


@dataclass(frozen=True)
class Column:
    """A column of the file.

    Args:
        values: numbers, or class indices if there are names, [num_lines].
        present: which cells are not empty, [num_lines].
        names: of classes, by their indices; none for numbers.
        rounded: whether these are probabilities, of which CSV has nine digits.
    """

    values: numpy.ndarray
    present: numpy.ndarray
    names: Sequence[str | int] = ()
    rounded: bool = False

    @property
    def texts(self) -> bool:
        """True if the cells are texts."""
        return bool(self.names) and isinstance(self.names[0], str)

    def cells(self, start: int, stop: int) -> list[Any]:
        """Return some cells as Python objects, None for an empty one."""
        values = self.values[start:stop]
        cells: list[Any]
        if self.names:
            cells = [self.names[index] for index in values.tolist()]
        elif values.dtype == numpy.float32:  # in as few digits as tell it from other float32 numbers
            cells = values.astype(str).astype(float).tolist()
        else:
            cells = values.tolist()
        return self._without_empty(cells, start, stop, None)

    def written(self, start: int, stop: int) -> list[str]:
        """Return some cells as CSV has them."""
        values = self.values[start:stop]
        if self.names:
            names = [_quote(str(name)) for name in self.names]
            cells = [names[index] for index in values.tolist()]
        elif values.dtype == numpy.float32:
            cells = values.astype(str).tolist()
        else:
            cells = list(map(repr, (_round(values) if self.rounded else values).tolist()))
        return self._without_empty(cells, start, stop, "")

    def _without_empty(self, cells: list[_Cell], start: int, stop: int, empty: _Cell) -> list[_Cell]:
        present = self.present[start:stop]
        if present.all():
            return cells
        return [cell if there else empty for cell, there in zip(cells, present.tolist(), strict=True)]


def _round(values: numpy.ndarray) -> numpy.ndarray:
    """Return probabilities with nine significant digits, in which a text is half as long, and written as fast again."""
    exponents = numpy.floor(numpy.log10(numpy.clip(values, 1e-290, None)))
    factors = 10.0 ** (8 - exponents)
    rounded: numpy.ndarray = numpy.round(values * factors) / factors
    return rounded


def _quote(text: str) -> str:
    """Return a text as a cell of CSV."""
    return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in ',"\r\n') else text


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
    names = list(dict.fromkeys(name for each in lines.values() for name in each.columns))
    if names:
        with open_atomically(folder / PREDICTIONS[form]) as file:
            (_write_csv if form == "csv" else _write_parquet)(file, names, lines)


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
    for name, of_task in found.items():
        task = parts.tasks[name]
        assert isinstance(task, DecodesPredictions)
        places = torch.searchsorted(indices, of_task.indices)
        try:
            with torch.inference_mode():
                decoded = task.decode(of_task.predictions.to(parts.device))
            found_columns = dict(_columns_of(of_task, decoded, places, len(indices), _names(parts, name)))
        except Exception as error:  # of a kind of the user's own: the result is worth more than its predictions
            logger.warning("task %s: no predictions of %s are kept: %s: %s", name, split, type(error).__name__, error)
            continue
        columns |= {f"{name}.{what}": column for what, column in found_columns.items()}
    ids = parts.loaders[split].split.sample_ids
    return _Lines([index if ids is None else ids[index] for index in indices.tolist()], columns)


def _names(parts: Parts, task: str) -> list[str]:
    """Return the names of the classes, labels or numbers of a task, none if they are not known."""
    columns = parts.learned.get("targets", {}).get(task, {}).get("columns", [])
    return [str(name) for name in parts.dataset.classes.get(task, columns)]


def _columns_of(
    outputs: TaskOutputs, decoded: Decoded, places: Tensor, num_lines: int, names: Sequence[str]
) -> Iterator[tuple[str, Column]]:
    """Yield (what it is, column) of a task.

    Args:
        outputs: of its head.
        decoded: its predictions.
        places: the line of each sample, [n].
        num_lines: of the split.
        names: of its classes, labels or numbers; none if they are not known.
    """
    several, chances = decoded.prediction.dim() == 2, decoded.probabilities
    targets = outputs.targets
    if chances is not None:  # classes; those of yes and no may be floating-point numbers, NaN where one is missing
        targets = torch.where(targets >= 0, targets, -1).long()
    if several:
        count = decoded.prediction.shape[1]
    else:
        count = chances.shape[1] if chances is not None and chances.dim() == 2 else 2
    names = names if len(names) == count else [str(index) for index in range(count)]
    suffixes = [f".{name}" for name in names] if several else [""]
    labels = _plain_names(names) if chances is not None and not several else ()

    def make(
        values: Tensor,
        lines: Tensor,
        labels: Sequence[str | int] = (),
        missing: Tensor | None = None,
        rounded: bool = False,
    ) -> Column:
        array = values.cpu().numpy()
        spread, present = numpy.zeros(num_lines, array.dtype), numpy.zeros(num_lines, bool)
        spread[lines.numpy()] = array if missing is None else numpy.where(missing.numpy(), 0, array)
        present[lines.numpy()] = True if missing is None else ~missing.numpy()
        return Column(spread, present, labels, rounded)

    labeled = places[outputs.labeled]
    for suffix, target in zip(suffixes, targets.reshape(len(targets), len(suffixes)).T, strict=True):
        yield f"target{suffix}", make(target, labeled, labels, target < 0 if chances is not None else None)
    for suffix, prediction in zip(suffixes, decoded.prediction.reshape(len(places), len(suffixes)).T, strict=True):
        yield f"prediction{suffix}", make(prediction, places, labels)
    if chances is not None:
        shown = names if several or chances.dim() == 2 else names[1:]
        for name, probability in zip(shown, chances.reshape(len(places), len(shown)).T, strict=True):
            yield f"probability.{name}", make(probability, places, rounded=True)


def _plain_names(names: Sequence[str]) -> Sequence[str | int]:
    """Return names as numbers, if all are whole numbers: a reader of CSV takes them for such as well."""
    return list(map(int, names)) if all(re.fullmatch(r"0|-?[1-9]\d{0,17}", name) for name in names) else names


def _write_csv(file: BinaryIO, names: Sequence[str], lines: Mapping[str, _Lines]) -> None:
    file.write(",".join(map(_quote, ["sample", "split", *names])).encode() + b"\n")
    for split, each, start, stop in _in_parts(lines):
        ids = [_quote(str(_plain(sample))) for sample in each.ids[start:stop]]
        cells = [each.columns[name].written(start, stop) if name in each.columns else [""] * len(ids) for name in names]
        file.write(
            "".join(f"{','.join(line)}\n" for line in zip(ids, [split] * len(ids), *cells, strict=True)).encode()
        )


def _write_parquet(file: BinaryIO, names: Sequence[str], lines: Mapping[str, _Lines]) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {name: column for each in lines.values() for name, column in each.columns.items()}
    whole = all(type(sample) is int for each in lines.values() for sample in each.ids)
    types = {"sample": pyarrow.int64() if whole else pyarrow.string(), "split": pyarrow.string()}
    for name in names:
        column = columns[name]
        types[name] = pyarrow.string() if column.texts else pyarrow.from_numpy_dtype(column.values.dtype)
    schema = pyarrow.schema(list(types.items()))
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for split, each, start, stop in _in_parts(lines):
            ids = [sample if whole else str(_plain(sample)) for sample in each.ids[start:stop]]
            empty = [None] * len(ids)
            cells = [each.columns[name].cells(start, stop) if name in each.columns else empty for name in names]
            arrays = map(pyarrow.array, [ids, [split] * len(ids), *cells], types.values())
            writer.write_batch(pyarrow.record_batch(list(arrays), schema=schema))


def _in_parts(lines: Mapping[str, _Lines]) -> Iterator[tuple[str, _Lines, int, int]]:
    """Yield (split, its lines, first, end) of some lines at a time."""
    for split, each in lines.items():
        for start in range(0, len(each.ids), _LINES_AT_ONCE):
            yield split, each, start, min(start + _LINES_AT_ONCE, len(each.ids))


def _plain(sample: Any) -> str | int | float:
    """Return the id of a sample as a text or a number; lists, such as pairs of files, are written as JSON."""
    return sample if isinstance(sample, str | int | float) else json.dumps(sample)
