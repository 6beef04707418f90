"""The analyses of a table: what is more than noise, what was tuned, what is doubtful, and what was asked for."""

from mtlrun.comparison.significance import add_intervals, add_rank_groups
from mtlrun.comparison.table import ComparisonTable, Options
from mtlrun.comparison.trade_offs import find_trade_offs
from mtlrun.comparison.tuning import find_tuning
from mtlrun.comparison.warnings import find_warnings


def add_analyses(table: ComparisonTable, options: Options) -> None:
    """Add intervals, rank groups, tuning and warnings to a table, and the trade-offs if the options ask for them."""
    add_intervals(table, shown=options.intervals)
    add_rank_groups(table)
    table.tuning = find_tuning(table)
    table.warnings += find_warnings(table, table.tuning)
    if options.pareto:
        table.trade_offs = find_trade_offs(table)
        if table.trade_offs is None:
            table.notes.append("no trade-offs: they are between two or more tasks, of two or more rows that have them")
