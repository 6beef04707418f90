"""Columns of predictions: what a task predicts for some samples, as the cells of a table."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy
import torch
from torch import Tensor

from mtlrun.tasks import Decoded

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
            names = [quote(str(name)) for name in self.names]
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


def quote(text: str) -> str:
    """Return a text as a cell of CSV."""
    return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in ',"\r\n') else text


@dataclass(frozen=True)
class Outputs:
    """The names of what a task predicts, and how its columns are laid out.

    Args:
        several: True if there are several labels or numbers, each with a column.
        names: of classes, labels or numbers: those that are known, else their indices.
        categorical: True if predictions are classes, or yes and no, and have probabilities.
        all_classes: True if each class has a probability, False if the positive one alone has.
    """

    several: bool
    names: Sequence[str]
    categorical: bool
    all_classes: bool

    @staticmethod
    def of(decoded: Decoded, names: Sequence[str]) -> "Outputs":
        """Return the layout of a task's predictions.

        Args:
            decoded: some of them.
            names: of its classes, labels or numbers; none if they are not known.
        """
        several, chances = decoded.prediction.dim() == 2, decoded.probabilities
        by_class = chances is not None and chances.dim() == 2
        shape = decoded.prediction.shape if several or chances is None else chances.shape
        count = shape[1] if len(shape) == 2 else 2
        names = names if len(names) == count else [str(index) for index in range(count)]
        return Outputs(several, names, chances is not None, several or by_class)

    @property
    def suffixes(self) -> list[str]:
        """What the names of the columns of targets and predictions end in."""
        return [f".{name}" for name in self.names] if self.several else [""]

    @property
    def labels(self) -> Sequence[str | int]:
        """What the classes are called in the cells; none for numbers."""
        return _plain_names(self.names) if self.categorical and not self.several else ()


def prediction_columns(
    decoded: Decoded, names: Sequence[str], lines: Tensor, num_lines: int
) -> Iterator[tuple[str, Column]]:
    """Yield (what it is, column) of a task's predictions and probabilities.

    Args:
        decoded: the predictions.
        names: of the task's classes, labels or numbers; none if they are not known.
        lines: the line of each sample, [n].
        num_lines: how many there are.
    """
    outputs, chances = Outputs.of(decoded, names), decoded.probabilities
    several = decoded.prediction.reshape(len(lines), len(outputs.suffixes)).T
    for suffix, prediction in zip(outputs.suffixes, several, strict=True):
        yield f"prediction{suffix}", spread(prediction, lines, num_lines, outputs.labels)
    if chances is not None:
        shown = outputs.names if outputs.all_classes else outputs.names[1:]
        for name, probability in zip(shown, chances.reshape(len(lines), len(shown)).T, strict=True):
            yield f"probability.{name}", spread(probability, lines, num_lines, rounded=True)


def target_columns(targets: Tensor, outputs: Outputs, lines: Tensor, num_lines: int) -> Iterator[tuple[str, Column]]:
    """Yield (what it is, column) of a task's targets.

    Args:
        targets: of the labeled samples.
        outputs: the layout of the task's predictions.
        lines: the line of each labeled sample.
        num_lines: how many there are.
    """
    if outputs.categorical:  # those of yes and no may be floating-point numbers, NaN where one is missing
        targets = torch.where(targets >= 0, targets, -1).long()
    for suffix, target in zip(outputs.suffixes, targets.reshape(len(targets), len(outputs.suffixes)).T, strict=True):
        missing = target < 0 if outputs.categorical else None
        yield f"target{suffix}", spread(target, lines, num_lines, outputs.labels, missing)


def spread(
    values: Tensor,
    lines: Tensor,
    num_lines: int,
    labels: Sequence[str | int] = (),
    missing: Tensor | None = None,
    *,
    rounded: bool = False,
) -> Column:
    """Return a column whose cells are empty in all lines but some.

    Args:
        values: of these lines.
        lines: which they are.
        num_lines: how many there are.
        labels, rounded: see `Column`.
        missing: which of the values are missing; None for none.
    """
    array = values.cpu().numpy()
    cells, present = numpy.zeros(num_lines, array.dtype), numpy.zeros(num_lines, bool)
    cells[lines.numpy()] = array if missing is None else numpy.where(missing.numpy(), 0, array)
    present[lines.numpy()] = True if missing is None else ~missing.numpy()
    return Column(cells, present, labels, rounded)


def _plain_names(names: Sequence[str]) -> Sequence[str | int]:
    """Return names as numbers, if all are whole numbers: a reader of CSV takes them for such as well."""
    return list(map(int, names)) if all(re.fullmatch(r"0|-?[1-9]\d{0,17}", name) for name in names) else names


def join_decoded(parts: Sequence[Decoded]) -> Decoded:
    """Return the predictions of several batches as those of one, on the CPU."""
    chances = [part.probabilities.cpu() for part in parts if part.probabilities is not None]
    return Decoded(torch.cat([part.prediction.cpu() for part in parts]), torch.cat(chances) if chances else None)
