"""Names of the tasks that `dataset.predict` asks for: those of their columns, as far as a task can have them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mtlrun.config.completion import Finding
from mtlrun.config.schema import task_name
from mtlrun.datasets.tables.reading.columns import Columns
from mtlrun.errors import ConfigError


def name_tasks(table: Columns, entries: Sequence[str], targets: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return {task: its columns}: a task in `targets` has these, and the name of a column becomes one of a task."""
    double = [entry for index, entry in enumerate(entries) if entry in entries[:index]]
    if double:
        raise ConfigError(f"dataset.predict must hold different columns, found {double[0]!r} twice")
    named = {columns[0]: task for task, columns in targets.items() if len(columns) == 1}
    tasks: dict[str, list[str]] = {}
    for entry in entries:
        if entry in targets:
            task, columns = entry, targets[entry]
        else:
            table.require(entry, "dataset.predict")
            task, columns = named.get(entry) or task_name(entry), [entry]
            first, number = task, 2
            while entry not in named and task != entry and (task in tasks or task in targets or task in table.names):
                task, number = f"{first}_{number}", number + 1
        if task in tasks:
            raise ConfigError(f"dataset.predict names task {task} twice, as {' and as '.join([*tasks[task], entry])}")
        for column in columns:
            table.require(column, f"task {task}")
        tasks[task] = columns
    return tasks


def name_column(finding: Finding, task: str, columns: Sequence[str]) -> Finding:
    """Return a finding whose sentence names the column, where the task is called otherwise."""
    if len(columns) > 1 or task == columns[0]:
        return finding
    return replace(finding, line=f"{finding.line}; from column {columns[0]!r}")
