"""A table as pictures show it: the order of the methods, which of them stand out, and their curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isnan
from statistics import quantiles
from typing import Any

from mtlrun.comparison.columns import MEAN_RANK
from mtlrun.comparison.plots.curves import Curves
from mtlrun.comparison.plots.style import COLORS, GRAY, INK, LINES, MARKERS
from mtlrun.comparison.single_task import is_single_task
from mtlrun.comparison.table import ComparisonTable, Row
from mtlrun.records.printable import printable

#: So many methods can all stand out; of more, these do: the best ones and the reference.
_ALL, _BEST = 7, 5
_LONGEST = 28
#: A value that more than these methods have is not part of their names.
_MOST = 0.75


@dataclass(frozen=True)
class Look:
    """How a method is drawn, the same in all pictures.

    Args:
        label: its name, shortened.
        color: of its lines and markers.
        marker, line: of Matplotlib.
        stands_out: whether it has a color; the others are gray.
    """

    label: str
    color: str
    marker: str
    line: Any
    stands_out: bool


class View:
    """A table as pictures show it.

    Args:
        table: what is shown.
        reference: name of the row that others are held against, which is drawn in black; None for the one that weights
            tasks equally, if there is exactly one.
    """

    def __init__(self, table: ComparisonTable, reference: str | None = None) -> None:
        self.table = table
        self._reference = reference
        self.curves = Curves()

    @cached_property
    def rows(self) -> list[Row]:
        """The methods, the best first: by mean rank, then by the mean of the first metric.

        Single-task networks of one task each, where others have several, are no methods but their baseline.
        """
        every = self.table.ranked()
        most = max((len(row.group.runs[0].record.main_metrics) for row in every), default=0)
        methods = [
            row
            for row in every
            if len(row.group.runs[0].record.main_metrics) == most or not is_single_task(row.group.runs[0])
        ]
        return sorted(methods, key=self._sort_key)

    @cached_property
    def reference(self) -> Row | None:
        """The row that others are held against."""
        if self._reference is not None:
            return next((row for row in self.rows if row.name == self._reference), None)
        runs = {row.name: row.group.runs[0] for row in self.rows}
        equal = [
            row
            for row in self.rows
            if runs[row.name].lookup("weighting") == "equal" and not is_single_task(runs[row.name])
        ]
        return equal[0] if len(equal) == 1 else None

    @cached_property
    def looks(self) -> dict[str, Look]:
        """{name of the row: how it is drawn}."""
        few = len(self.rows) <= _ALL
        best = [row for row in self.rows if row is not self.reference][: _ALL if few else _BEST]
        labels = shorten(self._names())
        looks = {}
        for row, label in zip(self.rows, labels, strict=True):
            if row is self.reference:
                looks[row.name] = Look(label, INK, "*", "-", True)
            elif any(row is other for other in best):
                number = sum(look.stands_out and look.color != INK for look in looks.values())
                line = LINES[number % len(LINES)]
                looks[row.name] = Look(label, COLORS[number % len(COLORS)], MARKERS[number], line, True)
            else:
                looks[row.name] = Look(label, GRAY, ".", "-", False)
        return looks

    def look(self, row: Row) -> Look:
        """Return how a row is drawn."""
        return self.looks[row.name]

    @property
    def standing_out(self) -> list[Row]:
        """The methods that have a color, the best first."""
        return [row for row in self.rows if self.look(row).stands_out]

    @property
    def others(self) -> list[Row]:
        """The methods that are gray."""
        return [row for row in self.rows if not self.look(row).stands_out]

    @cached_property
    def common(self) -> dict[str, Any]:
        """What most methods have in common, {key: value}, and their names in pictures are without."""
        labels = [row.label for row in self.rows]
        found = {}
        for key in dict.fromkeys(key for label in labels for key in label):
            values = [label[key] for label in labels if key in label]
            most = max(values, key=values.count)
            if values.count(most) > max(1, _MOST * len(labels)):
                found[key] = most
        short = [_without(label, found) for label in labels]
        return found if len({repr(label) for label in short}) == len(labels) and all(short) else {}

    def _names(self) -> list[str]:
        """Return the names of the methods, without what most have in common."""
        return [replace(row.group, label=_without(row.label, self.common)).name for row in self.rows]

    def _sort_key(self, row: Row) -> tuple[float, float]:
        rank = row.mean(MEAN_RANK)
        metrics = self.table.metrics
        first = row.mean(metrics[0]) if metrics else 0.0
        value = -first if metrics and metrics[0].direction == "max" else first
        return (float("inf") if isnan(rank) else rank), (float("inf") if isnan(value) else value)


def _without(label: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in label.items() if key not in common or value != common[key]}


def shorten(names: Sequence[str]) -> list[str]:
    """Return names that fit beside a picture; long ones that would be alike have a number before them."""
    clean = [printable(name) for name in names]
    short = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in clean]
    return [
        text if short.count(text) == 1 else f"#{index} {text}"[:_LONGEST] for index, text in enumerate(short, start=1)
    ]


def bounds_of(values: Sequence[float]) -> tuple[float, float]:
    """Return between which bounds values have their true places, so that a few do not press all others together.

    Values that are further from the quartiles than three times these are apart lie beyond.
    """
    if len(values) < 4:
        return min(values), max(values)
    low, _, high = quantiles(values, n=4)
    reach = 3 * (high - low)
    inside = [value for value in values if low - reach <= value <= high + reach]
    return min(inside), max(inside)


def listed(labels: Sequence[str]) -> str:
    """Return labels in one text."""
    return ("; " if any("," in label for label in labels) else ", ").join(labels)


def signed(value: float) -> str:
    """Return a number with its sign and two decimals."""
    return f"{value:+.2f}".replace("-", "−") if abs(value) >= 0.005 else "0.00"


def count(number: int, noun: str) -> str:
    """Return a number with its noun, which has an s in the plural."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
