"""Findings as texts: tables for a screen, CSV and JSON."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from math import floor, isfinite, isnan, log10
from typing import Any

from mtlrun.comparison.affinity.findings import Findings
from mtlrun.comparison.affinity.measures import AffinityMatrix
from mtlrun.comparison.formats.json import as_plain
from mtlrun.records.text_table import TextTable

_NOTHING = "-"
_MOST_DECIMALS = 8


def as_text_table(matrix: AffinityMatrix) -> TextTable:
    """Return a matrix as a table; its title is in the corner where a row's task acts on a column's."""
    texts = as_texts(matrix)
    rows = [[task, *row] for task, row in zip(matrix.tasks, texts, strict=True)]
    return TextTable(["" if matrix.about.mutual else "of \\ on", *matrix.tasks], rows)


def as_texts(matrix: AffinityMatrix) -> list[list[str]]:
    """Return the values with so many decimals that the largest of two tasks has two digits or more; "-" for none."""
    sizes = [abs(value) for value in matrix.off_diagonal() if isfinite(value)]
    largest = max(sizes, default=1.0)
    decimals = min(max(2, 1 - floor(log10(largest))), _MOST_DECIMALS) if largest > 0 else 2
    return [[_as_text(value, decimals, signed=matrix.about.signed) for value in row] for row in matrix.values]


def _as_text(value: float, decimals: int, *, signed: bool) -> str:
    if isnan(value):
        return _NOTHING
    text = f"{value:{'+' if signed else ''}.{decimals}f}"
    return text.lstrip("+-") if not any(digit in text for digit in "123456789") else text


def as_lines(findings: Findings) -> list[str]:
    """Return what stands below the matrices: suggested groups, and what is missing and why."""
    lines = []
    for suggestion in findings.suggestions:
        matrix, count = suggestion.matrix, len(suggestion.matrix.tasks)
        mean = suggestion.grouping.total / count * (-1 if matrix.about.direction == "min" else 1)
        lines.append(f"groups by {matrix.title}: {suggestion.describe()}, mean affinity {mean:.3g}")
    lines += findings.problems
    agreements = [f"{title} {value:+.2f}" for title, (value, _) in findings.agreements().items()]
    if agreements:
        pairs = max(count for _, count in findings.agreements().values())
        lines.append(f"rank correlation with the gains, over {pairs} directed pairs: {', '.join(agreements)}")
    lines += [f"{measure}: {why}" for measure, why in findings.missing.items()]
    return lines


def as_csv(all_findings: Sequence[Findings]) -> str:
    """Return a line for each pair of tasks, and for each part of the training where there are several."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["data", "measure", "config", "part", "task", "other", "value", "std", "runs"])
    for findings in all_findings:
        for matrix in findings.matrices:
            for part, row, column, value in _entries(matrix):
                spread = matrix.spread[row][column] if not part else float("nan")
                count = matrix.counts[row][column]
                cells = ["" if isnan(number) else repr(number) for number in (value, spread)]
                names = (matrix.tasks[row], matrix.tasks[column])
                writer.writerow([findings.title, matrix.measure, matrix.label, part, *names, *cells, count])
    return file.getvalue()


def as_json(all_findings: Sequence[Findings]) -> str:
    """Return all matrices, suggested groups and problems."""
    content = [
        {
            "data": findings.title,
            "matrices": [_as_plain(matrix) for matrix in findings.matrices],
            "groups": [
                {
                    "measure": suggestion.matrix.measure,
                    "config": suggestion.matrix.label,
                    "networks": suggestion.networks,
                    "served": suggestion.served,
                    "total": suggestion.grouping.total,
                }
                for suggestion in findings.suggestions
            ],
            "agreement_with_gains": {
                title: {"spearman": value, "pairs": count} for title, (value, count) in findings.agreements().items()
            },
            "missing": findings.missing,
            "problems": findings.problems,
        }
        for findings in all_findings
    ]
    return json.dumps(as_plain(content), indent=1, allow_nan=False) + "\n"


def _as_plain(matrix: AffinityMatrix) -> dict[str, Any]:
    about = matrix.about
    return {
        "measure": matrix.measure,
        "family": about.family,
        "title": about.title,
        "reading": about.reading,
        "direction": about.direction,
        "config": matrix.label,
        "tasks": list(matrix.tasks),
        "values": matrix.values,
        "std": matrix.spread,
        "runs": matrix.counts,
        "parts": matrix.stages,
        "notes": list(matrix.notes),
    }


def _entries(matrix: AffinityMatrix) -> Iterator[tuple[str, int, int, float]]:
    """Yield (part of the training, row, column, value), "" for the whole training; values that are not known too."""
    for part, values in [("", matrix.values), *matrix.stages.items()]:
        for row, of_row in enumerate(values):
            for column, value in enumerate(of_row):
                if row != column or not isnan(value):
                    yield part, row, column, value
