"""The content of a report: what it says, in which order."""

from collections.abc import Sequence
from datetime import datetime

from mtlrun import __version__
from mtlrun.comparison.commands import training_commands
from mtlrun.comparison.plots.files import prefixes
from mtlrun.comparison.report.answer import answer
from mtlrun.comparison.report.configs import configs
from mtlrun.comparison.report.document import Block, Code, Document, Paragraph, Points, Section
from mtlrun.comparison.report.environment import environment
from mtlrun.comparison.report.failures import failures
from mtlrun.comparison.report.pictures import pictures
from mtlrun.comparison.report.references import find_references
from mtlrun.comparison.report.results import analyses, costs, results
from mtlrun.comparison.run import Run
from mtlrun.comparison.table import Comparison, ComparisonTable


def make_document(comparison: Comparison, *, command: str, now: datetime, alone: bool = False) -> Document:
    """Return the report on a comparison.

    Args:
        comparison: of at least one run.
        command: what makes this report.
        now: when it is made.
        alone: whether pictures become files of their own.
    """
    tables = comparison.tables
    runs = [run for table in tables for row in table.configs for run in row.group.runs]
    answers: list[Section] = []
    sections: list[Section] = []
    for table, prefix in zip(tables, prefixes([table.title for table in tables]), strict=True):
        of = f": {table.title}" if len(tables) > 1 else ""
        references = find_references(table)
        answers.append(Section(f"Answer{of}", answer(table, references)))
        differences = [block for against in references.found for block in analyses(table, against=against)]
        sections += [
            Section(f"Results{of}", results(table)),
            Section(f"Differences{of}", differences),
            Section(f"Pictures{of}", pictures(table, references, alone=alone, prefix=prefix)),
            Section(f"Trade-offs{of}", analyses(table, trade_offs=table.trade_offs)),
            Section(f"Tuning{of}", analyses(table, tuning=table.tuning)),
            Section(f"Costs{of}", costs(table)),
            Section(f"Configs{of}", configs(table)),
        ]
    sections = answers + sections
    sections += [
        Section("Environment", environment(runs)),
        Section("Failures", failures(comparison)),
        Section("Commands", _commands(runs, tables)),
        Section("This report", _about(comparison, command, now)),
    ]
    names = ", ".join(table.title for table in tables)
    facts = [f"{len(runs)} runs" if len(runs) != 1 else "1 run", f"{now:%Y-%m-%d %H:%M}", f"mtlrun {__version__}"]
    return Document(f"Comparison on {names}", facts, sections)


def _commands(runs: Sequence[Run], tables: Sequence[ComparisonTable]) -> list[Block]:
    blocks: list[Block] = [
        Paragraph("These commands train the runs again. They are made from the overrides in the records."),
        Code(training_commands(runs)),
    ]
    missing = [command for table in tables for command in table.commands]
    if missing:
        blocks += [Paragraph("These make the single-task baseline that is missing."), Code(missing)]
    return blocks


def _about(comparison: Comparison, command: str, now: datetime) -> list[Block]:
    made = f"Made on {now:%Y-%m-%d at %H:%M} ({now:%Z}) by mtlrun {__version__} with this command."
    blocks: list[Block] = [Paragraph(made), Code([command])]
    if comparison.notes:
        blocks.append(Points(comparison.notes, small=True))
    return blocks
