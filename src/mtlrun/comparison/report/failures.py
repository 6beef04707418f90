"""What has no result, and why: runs that did not complete, runs that are missing, files that are no records."""

from collections.abc import Sequence

from mtlrun.comparison.report.document import Block, Cell, Column, Paragraph, Points, Table
from mtlrun.comparison.run import Run
from mtlrun.comparison.table import Comparison, ComparisonTable
from mtlrun.records.record import Record

_REASONS = {
    "killed": "its process is gone",
    "silent": "it has not been heard of for more than a minute",
    "running": "it runs",
    "interrupted": "it was stopped, and the same command goes on",
}


def failures(comparison: Comparison) -> list[Block]:
    """Return all that is without a result; one sentence if nothing is."""
    runs = [run for table in comparison.tables for row in table.configs for run in row.group.runs]
    blocks: list[Block] = []
    without = [run for run in runs if run.state != "completed"]
    if without:
        columns = [Column("run"), Column("state"), Column("reason"), Column("steps", True), Column("folder")]
        blocks.append(Table(f"{len(without)} of {len(runs)} runs have no result", columns, list(map(_row, without))))
    missing = [sentence for table in comparison.tables for sentence in _missing(table)]
    if missing:
        blocks.append(Points(missing, title="Runs that other rows have, and that are not there"))
    if comparison.problems:
        blocks.append(Points([f"{problem}; it is left out" for problem in comparison.problems], title="Files"))
    if not blocks:
        blocks.append(Paragraph(f"All {len(runs)} runs were completed." if len(runs) > 1 else "The run was completed."))
    if notes := _notes([run.record for run in runs]):
        blocks.append(Points(notes, title="Notes of the runs"))
    return blocks


def _row(run: Run) -> list[Cell]:
    record = run.record
    reason = record.error or _REASONS.get(run.state, "")
    return [
        Cell(record.run_id),
        Cell(run.state, mark="bad" if run.state in ("failed", "diverged", "killed") else ""),
        Cell(reason),
        Cell(f"{record.steps:,} of {record.total_steps:,}", sort=record.steps),
        Cell("" if run.folder is None else str(run.folder)),
    ]


def _missing(table: ComparisonTable) -> list[str]:
    sentences = []
    for row in table.configs:
        if row.missing:
            names = [key.removeprefix("dataset.") for key in row.group.over]
            shown = [
                " ".join(f"{name} {value}" for name, value in zip(names, repetition, strict=False) if value is not None)
                for repetition in row.missing
            ]
            sentences.append(f"{row.name}: {', '.join(shown)}")
    return sentences


def _notes(records: Sequence[Record]) -> list[str]:
    """Return each note with the number of runs that have it."""
    counts: dict[str, int] = {}
    for record in records:
        for note in dict.fromkeys(record.notes):
            counts[note] = counts.get(note, 0) + 1
    return [
        note if count == len(records) else f"{note} ({count} of {len(records)} runs)" for note, count in counts.items()
    ]
