"""Encoding of the labels of further rows as those of a run's table, by what the run learned from it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from mtlrun.datasets.tables.labels.indicators import split_list
from mtlrun.datasets.tables.reading.cells import Cells
from mtlrun.datasets.tables.reading.columns import Columns
from mtlrun.datasets.tables.words import label_value

_MISSING = -1


class LabelEncoder:
    """The encoder of labels.

    Args:
        learned: {task: entry}, as `learned_of_targets` returns it.
        float64: the tasks whose kinds take numbers in float64.
        separator: `dataset.label_separator`.
    """

    def __init__(
        self, learned: Mapping[str, Mapping[str, Any]], float64: Collection[str], separator: str | None = None
    ) -> None:
        self._learned, self._float64, self._separator = learned, float64, separator
        #: {task: {text that is none of its labels, or no number: number of rows}}, of all rows that were encoded.
        self.strange: dict[str, dict[str, int]] = {}

    def columns(self, task: str) -> list[str]:
        """Return the columns of a task."""
        return list(self._learned[task]["columns"])

    def encode(self, table: Columns, task: str) -> Tensor:
        """Return the targets of a task, [num_rows] or [num_rows, num_outputs]; a strange cell is a missing label.

        Args:
            table: with the columns of the task.
            task: its name.
        """
        entry = self._learned[task]
        cells = [table.cells[column] for column in entry["columns"]]
        if entry["reads"] in ("numbers", "counts"):
            return self._numbers(cells, task, counts=entry["reads"] == "counts")
        if "cells" in entry:
            known = [{label_value(text): number for text, number in column.items()} for column in entry["cells"]]
            found = [self._places(column, places, task) for column, places in zip(cells, known, strict=True)]
            indicators = numpy.stack(found, axis=1).astype(float)
            indicators[indicators < 0] = numpy.nan
            return torch.from_numpy(indicators).float()
        places = {label_value(label): number for number, label in enumerate(entry["labels"])}
        if entry["reads"] == "indicators":
            return self._lists(cells[0], places, task)
        return torch.from_numpy(self._places(cells[0], places, task))

    def _numbers(self, cells: Sequence[Cells], task: str, *, counts: bool) -> Tensor:
        columns = []
        for column in cells:
            values = column.numbers.copy()
            wrong = numpy.isinf(values)
            if not column.are_numbers:
                wrong |= numpy.isnan(values) & ~column.missing
            if counts:
                wrong |= (values < 0) | (values != numpy.round(values)) & ~numpy.isnan(values)
            self._add(task, [str(column.texts[row]) for row in numpy.flatnonzero(wrong)])
            values[wrong] = numpy.nan
            columns.append(values)
        tensor = torch.tensor(numpy.stack(columns, axis=1))
        tensor = tensor if task in self._float64 else tensor.float()
        return tensor.squeeze(1) if len(cells) == 1 else tensor

    def _places(self, cells: Cells, places: Mapping[Any, int], task: str) -> numpy.ndarray:
        """Return the number of the label in each cell, int64 [num_rows], -1 for a missing or a strange one."""
        numbers = numpy.array([*(places.get(label_value(text), _MISSING) for text in cells.labels), _MISSING])
        found: numpy.ndarray = numbers[cells.indices]
        self._add(task, cells.texts[(found < 0) & ~cells.missing].tolist())
        return found

    def _lists(self, cells: Cells, places: Mapping[Any, int], task: str) -> Tensor:
        result = torch.full((len(cells), len(places)), torch.nan)
        for row, cell in enumerate(cells.texts.tolist()):
            if cell is None:
                continue
            names = split_list(cell, self._separator)
            if strange := [name for name in names if label_value(name) not in places]:
                self._add(task, strange)
                continue
            result[row] = 0
            result[row, [places[label_value(name)] for name in names]] = 1
        return result

    def _add(self, task: str, texts: Sequence[str]) -> None:
        counts = self.strange.setdefault(task, {}) if texts else {}
        for text in texts:
            counts[text] = counts.get(text, 0) + 1
