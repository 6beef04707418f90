"""The comparison as JSON: everything that it knows, down to the value of each repetition."""

import json
from dataclasses import asdict
from math import isfinite
from typing import Any

from mtlrun.comparison.groups import ConfigGroup, Repetition
from mtlrun.comparison.table import Cell, Comparison, ComparisonTable, Row

SCHEMA_VERSION = 1


def as_json(comparison: Comparison) -> str:
    """Return the text of one object.

        schema_version  1; raised when a key changes its meaning or goes
        options         metrics, by, over, against, pareto, intervals: what was asked for
        notes           sentences on the numbers of all tables
        problems        sentences on files that are no records
        tables          one for each data set:
          title         its name
          labels        keys in which the rows differ
          columns       key, title, direction ("max" or "min" is better), kind, task and metric (of metrics)
          notes, warnings, commands
          rows          of configs, of what was made from their runs, and of simple predictors:
            name, kind  "config", "made" (from runs, such as an ensemble) or "predictor"
            label       {key: value}
            counts      {state: number of runs}; "missing" are those that other rows have
            missing     repetitions without a run, each a list of values of `over`
            runs        run_id, folder, state, repetition (values of `over`, then of `mixed`)
            over, mixed keys in which the runs differ
            cells       {key of a column: cell}:
              mean, std, n, of   n of the `of` samples are finite; the mean is over these
              samples            what the mean is over: a value per repetition of `over`, or with folds one per fold,
                                 each the mean of its runs
              values             [{repetition, value}], unrounded
              place              1 for the best, 2 for the second, else 0
              interval           95 % t interval of the mean; null for fewer than two repetitions, and for more than
                                 60 rows without --intervals
              rank_group         1 + the number of rows that are significantly better; null if nothing was tested
          tuning        null, or of swept numbers keys, methods, notes: `Tuning` in `mtlrun.comparison.analysis_results`
          against       null without --against: baseline, contrasts, overall, ranks, notes: `Against` there
          trade_offs    null without --pareto: `TradeOffs` there

    A number that is not finite is null. `seconds_per_step` is in seconds, Deltas are in percent.
    """
    content = {
        "schema_version": SCHEMA_VERSION,
        "options": asdict(comparison.options),
        "notes": comparison.notes,
        "problems": comparison.problems,
        "tables": [_table(table) for table in comparison.tables],
    }
    return json.dumps(as_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _table(table: ComparisonTable) -> dict[str, Any]:
    keys = ("key", "title", "direction", "kind", "task", "metric")
    return {
        "title": table.title,
        "labels": table.labels,
        "columns": [{key: getattr(column, key) for key in keys} for column in table.columns],
        "notes": table.notes,
        "warnings": table.warnings,
        "commands": table.commands,
        "rows": [_row(row) for row in table.rows],
        "tuning": None if table.tuning is None else asdict(table.tuning),
        "against": _against(table),
        "trade_offs": None if table.trade_offs is None else asdict(table.trade_offs),
    }


def _against(table: ComparisonTable) -> dict[str, Any] | None:
    if table.against is None:
        return None
    verdicts = [{"verdict": contrast.verdict} for contrast in table.against.contrasts]
    content = asdict(table.against)
    pairs = zip(content["contrasts"], verdicts, strict=True)
    return content | {"contrasts": [contrast | verdict for contrast, verdict in pairs]}


def _row(row: Row) -> dict[str, Any]:
    group = row.group
    return {
        "name": row.name,
        "kind": row.kind,
        "label": row.label,
        "counts": row.counts if row.kind != "predictor" else {},
        "missing": row.missing,
        "runs": _runs(group) if row.kind != "predictor" else [],
        "over": group.over,
        "mixed": group.mixed,
        "cells": {key: _cell(cell) for key, cell in row.cells.items()},
    }


def _runs(group: ConfigGroup) -> list[dict[str, Any]]:
    return [
        {"run_id": run.record.run_id, "folder": str(run.folder), "state": run.state, "repetition": repetition}
        for repetition, run in group.repetitions().items()
    ]


def _cell(cell: Cell) -> dict[str, Any]:
    values: list[dict[str, Repetition | float]] = [
        {"repetition": repetition, "value": value} for repetition, value in cell.values.items()
    ]
    names = ("mean", "std", "n", "of", "samples", "place", "interval", "rank_group")
    return {**{name: getattr(cell, name) for name in names}, "values": values}


def as_plain(value: Any) -> Any:
    """Return a value as JSON can have it: keys as text, and null for a number that is not finite."""
    if isinstance(value, dict):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(item) for item in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    return value
