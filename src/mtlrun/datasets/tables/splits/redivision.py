"""Other divisions of a table than the one that the config asks for, to be advised where a split lacks labels."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mtlrun.datasets.base import SPLITS, SplitName
from mtlrun.datasets.tables.reading.advice import override
from mtlrun.datasets.tables.reading.columns import Columns
from mtlrun.datasets.tables.splits.division import Rows, SplitKeys, select_rows, split_rows
from mtlrun.datasets.tables.splits.given import read_splits
from mtlrun.errors import DataError

_SEEDS = 10
_MOST_ROWS = 100_000  # of larger tables, which take longer to divide, fewer divisions are tried
_FRACTIONS = ((0.6, 0.2, 0.2), (0.5, 0.25, 0.25), (0.4, 0.3, 0.3))


@dataclass(frozen=True)
class Redivision:
    """The arguments of `split_rows` by which a table was divided."""

    table: Columns
    keys: SplitKeys
    given: Sequence[SplitName | None] | None
    label_columns: Sequence[str]

    def others(self, columns: Sequence[str]) -> Iterator[tuple[str, Rows]]:
        """Yield an override, and the rows of each split under it, for divisions that may spread labels better.

        Args:
            columns: of the labels.
        """
        keys, given = self.keys, self.given
        if keys.split_column is not None:
            given = read_splits(self.table, keys.split_column, keys.splits)
        if given is not None and set(SPLITS) <= set(given):
            return  # nothing is drawn
        strata = list(dict.fromkeys([*keys.stratify, *columns]))
        changes: list[tuple[str, dict[str, Any]]] = []
        if keys.time_column is None and strata != list(keys.stratify):
            changes.append((override("stratify", strata), {"stratify": strata}))
        seeds = range(_SEEDS if keys.time_column is None and len(self.table) <= _MOST_ROWS else 0)
        changes += [(f"dataset.split_seed={seed}", {"split_seed": seed}) for seed in seeds if seed != keys.split_seed]
        if keys.num_folds is None:
            changes += [
                (f"dataset.fractions={list(parts)}".replace(" ", ""), {"fractions": parts}) for parts in _FRACTIONS
            ]
        for text, change in changes:
            try:
                rows = split_rows(self.table, dataclasses.replace(keys, **change), self.given, self.label_columns).rows
            except (DataError, ValueError):
                continue  # it would be refused
            yield text, select_rows(self.table, rows)[1]
