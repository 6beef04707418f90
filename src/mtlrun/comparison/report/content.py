"""The content of a report: what it says, in which order."""

from collections.abc import Sequence
from datetime import datetime

from mtlrun import __version__
from mtlrun.comparison.commands import training_commands
from mtlrun.comparison.report.configs import configs
from mtlrun.comparison.report.document import Block, Code, Document, Paragraph, Points, Section
from mtlrun.comparison.report.environment import environment
from mtlrun.comparison.report.failures import failures
from mtlrun.comparison.report.results import costs, results
from mtlrun.comparison.run import Run
from mtlrun.comparison.table import Comparison, ComparisonTable


def make_document(comparison: Comparison, *, command: str, now: datetime) -> Document:
    """Return the report on a comparison.

    Args:
        comparison: of at least one run.
        command: what makes this report.
        now: when it is made.
    """
    tables = comparison.tables
    runs = [run for table in tables for row in table.configs for run in row.group.runs]
    sections = []
    for table in tables:
        title = f": {table.title}" if len(tables) > 1 else ""
        sections += [
            Section(f"Results{title}", results(table)),
            Section(f"Costs{title}", costs(table)),
            Section(f"Configs{title}", configs(table)),
        ]
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
