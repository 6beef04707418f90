"""The rows that the others of a table are held against in a report: single-task networks, and equal weighting."""

from dataclasses import dataclass

from mtlrun.comparison.against import find_row, hold_against
from mtlrun.comparison.analysis_results import Against
from mtlrun.comparison.samples import SampleComparison
from mtlrun.comparison.single_task import is_single_task
from mtlrun.comparison.table import ComparisonTable, Row
from mtlrun.errors import ConfigError


@dataclass
class References:
    """The rows of a table held against up to two others; None where there is no such row, or no other one.

    Args:
        single: against the single-task networks.
        chosen: against the row that the user has named, or else the one that weights the tasks equally.
    """

    single: Against | None = None
    chosen: Against | None = None

    @property
    def found(self) -> list[Against]:
        """Those that there are."""
        return [against for against in (self.single, self.chosen) if against is not None]


def find_references(table: ComparisonTable) -> References:
    """Return the rows of a table held against its references; a comparison that was asked for is used."""
    samples, found = SampleComparison(), References(chosen=table.against)
    if len(table.ranked()) < 2:
        return found
    single = _only([row for row in table.ranked() if is_single_task_row(row)], table)
    equal = _only([row for row in table.ranked() if row is not single and _is_equal(row)], table)
    if single is not None and (table.against is None or table.against.baseline != single.name):
        found.single = hold_against(table, single.name, samples)
    if equal is not None and found.chosen is None:
        found.chosen = hold_against(table, equal.name, samples)
    return found


def is_single_task_row(row: Row) -> bool:
    """Return True if no run of a row shares parameters between tasks."""
    return all(map(is_single_task, row.group.runs))


def _is_equal(row: Row) -> bool:
    return all(run.lookup("weighting") == "equal" for run in row.group.runs)


def _only(rows: list[Row], table: ComparisonTable) -> Row | None:
    """Return the only one of some rows, if it has a result, and a name that no other row has."""
    if len(rows) != 1 or not any(rows[0].mean(column) == rows[0].mean(column) for column in table.metrics):
        return None
    try:
        return find_row(table, rows[0].name)
    except ConfigError:
        return None
