"""The answer: what can be concluded from a table, and what cannot, in sentences made from its statistics."""

from collections.abc import Sequence
from math import isnan

from mtlrun.comparison.analysis_results import Against, Contrast
from mtlrun.comparison.columns import DELTA_P, Column
from mtlrun.comparison.formats.values import format_number, text_of
from mtlrun.comparison.report.document import Block, Paragraph, Points
from mtlrun.comparison.report.references import References, is_single_task_row
from mtlrun.comparison.report.results import in_order, labels_in_order
from mtlrun.comparison.significance import repetition_word, tested_columns, tested_values
from mtlrun.comparison.statistics.ranks import ALPHA
from mtlrun.comparison.table import ComparisonTable, Row
from mtlrun.records.display import format_value

_NAMED = 5
# What rows are called where one key tells them apart.
_NOUNS = {"model": "model", "weighting": "weighting", "backbone": "backbone", "optimizer": "optimizer"}


def answer(table: ComparisonTable, references: References) -> list[Block]:
    """Return the answer in a few sentences, then in points, and what makes it doubtful."""
    rows = [row for row in in_order(table) if row in table.ranked() and _has_result(table, row)]
    blocks: list[Block] = [Paragraph(_lead(table, rows, references), lead=True)]
    if rows and table.metrics:
        blocks.append(Points(_points(table, rows, references)))
    if table.warnings:
        blocks.append(Points(table.warnings, title="What makes this doubtful", warning=True))
    return blocks


def _lead(table: ComparisonTable, rows: Sequence[Row], references: References) -> str:
    if not rows or not table.metrics:
        return f"No run on {table.title} has a result yet."
    if len(rows) == 1:
        values = ", ".join(f"{column.title} {text_of(rows[0], column)}" for column in table.metrics)
        return f"There is one {_noun(table)} on {table.title} with a result, and nothing to compare it with: {values}."
    if _repetitions(table, rows) < 2:
        word = repetition_word(rows[0].group)
        return f"With one {word} of each {_noun(table)} on {table.title} no difference can be told from noise."
    sentences = [_separable(table, rows)]
    if references.single is not None:
        sentences.insert(0, _verdicts(table, references.single, "single-task networks"))
    if references.chosen is not None:
        sentences.insert(0, _verdicts(table, references.chosen, _short(table, references.chosen.baseline)))
    return " ".join(filter(None, sentences))


def _verdicts(table: ComparisonTable, against: Against, name: str) -> str:
    """Return which rows are better or worse than a chosen one by more than noise."""
    verdicts: dict[str, list[str]] = {}
    for contrast in against.contrasts:
        if contrast.column != DELTA_P.key and contrast.over_repetitions is not None:
            verdicts.setdefault(_short(table, contrast.row), []).append(contrast.verdict.split(" ")[0])
    better = [row for row, words in verdicts.items() if "better" in words and "worse" not in words]
    worse = [row for row, words in verdicts.items() if "worse" in words and "better" not in words]
    both = [row for row, words in verdicts.items() if "worse" in words and "better" in words]
    noun, noise = _noun(table), "noise"
    if all(contrast.over_samples is None for contrast in against.contrasts):
        noise = f"the noise over {against.repetition}s"
    parts = []
    if better:
        parts.append(f"{_names(better, noun)} {_is(better)} better than {name} on {table.title} by more than {noise}")
    else:
        parts.append(f"No {noun} is shown to be better than {name} on {table.title}")
    if worse:
        parts.append(f"{_names(worse, noun)} {_is(worse)} worse")
    if both:
        parts.append(f"{_names(both, noun)} {_is(both)} better in one metric and worse in another")
    return "; ".join(parts) + "."


def _separable(table: ComparisonTable, rows: Sequence[Row]) -> str:
    """Return whether the best row is known."""
    methods = _methods(table)
    rows = [row for row in rows if row in methods]
    columns = [column for column in table.metrics if any(_rank(row, column) is not None for row in rows)]
    if len(rows) < 2:
        return ""
    if not columns:
        return f"With {len(rows)} {_noun(table)}s no test of each against each was made."
    first = [row for row in rows if all(_rank(row, column) in (1, None) for column in columns)]
    if len(first) == 1:
        return (
            f"{_name(table, first[0])} alone has rank 1 in every metric: each of the other {len(rows) - 1} "
            f"{_noun(table)}s is worse than some other by more than noise."
        )
    if not first:
        return f"No {_noun(table)} is the best in every metric."
    metric = "metric" if len(columns) == 1 else "metrics"
    among = f"all {len(rows)}" if len(first) == len(rows) else f"{len(first)} of {len(rows)}"
    return (
        f"Which {_noun(table)} is the best is not known: differences between {among} are inside the noise of "
        f"{_repetitions(table, rows)} {repetition_word(rows[0].group)}s in the {metric} compared."
    )


def _points(table: ComparisonTable, rows: Sequence[Row], references: References) -> list[str]:
    points = [_best(table, column, rows) for column in table.metrics]
    rank = next((column for column in table.columns if column.kind == "rank"), None)
    if rank is not None and not isnan(rows[0].mean(rank)):
        points.append(f"Over all metrics: the best mean rank is {rows[0].mean(rank):.2f}, of {_name(table, rows[0])}.")
    ranks = next((against.ranks for against in references.found if against.ranks is not None), None)
    if ranks is not None and ranks.p < ALPHA:
        points.append(
            f"Taken together, not all {len(ranks.average_ranks)} are equally good: Friedman's test over "
            f"{ranks.num_blocks} blocks of a task and a {repetition_word(rows[0].group)} has p = {ranks.p:.2g}."
        )
    points += _single_task(table, rows, references)
    best = next((row for row in rows if row in _methods(table)), None)
    if references.chosen is not None and best is not None:
        points += _gains(table, references.chosen, best)
    incomplete = [row for row in table.configs if len(row.counts) > 1]
    if incomplete:
        some = _join([_name(table, row) for row in incomplete[:_NAMED]])
        more = f" and {len(incomplete) - _NAMED} more" if len(incomplete) > _NAMED else ""
        points.append(f"Not all runs have a result: {some}{more}; see Failures.")
    return [point for point in points if point]


def _best(table: ComparisonTable, column: Column, rows: Sequence[Row]) -> str:
    """Return the best mean of a column, and how many rows it is not told apart from."""
    found = [row for row in rows if not isnan(row.mean(column))]
    if len(found) < 2:
        return ""
    sign = -1 if column.direction == "max" else 1
    ordered = sorted(found, key=lambda row: sign * row.mean(column))
    first, last = ordered[0], ordered[-1]
    best, worst = text_of(first, column) + _interval(first, column), text_of(last, column)
    text = (
        f"{column.title}: the best mean is {best}, of {_name(table, first)}, the worst {worst}, of {_name(table, last)}"
    )
    ranked = [row for row in found if _rank(row, column) is not None]
    if not ranked:
        return f"{text}."
    alike = [row for row in ranked if _rank(row, column) == 1]
    if len(alike) == len(ranked):
        return f"{text}; no difference between two of the {len(ranked)} is more than noise."
    return f"{text}; {len(alike)} of {len(ranked)} share rank 1, and the others are worse than at least one of these."


def _single_task(table: ComparisonTable, rows: Sequence[Row], references: References) -> list[str]:
    """Return how the rows do against single-task networks, or that this is not known."""
    baseline = references.single.baseline if references.single is not None else ""
    held = [row for row in rows if DELTA_P.key in row.cells and row.name != baseline]
    if DELTA_P not in table.columns or not held:
        if table.commands:
            return [
                "Whether training the tasks together helps is not known: there is no single-task baseline. The command "
                "below Commands makes it."
            ]
        return []
    best = max(held, key=lambda row: row.mean(DELTA_P))
    sentence = (
        f"Against single-task networks {_name(table, best)} has the best mean change, "
        f"{format_number(DELTA_P, best.mean(DELTA_P))} %{_interval(best, DELTA_P)}; "
        f"{sum(row.mean(DELTA_P) > 0 for row in held)} of {len(held)} are better by their means (Δp)"
    )
    if references.single is None:
        return [f"{sentence}."]
    contrasts = [each for each in references.single.contrasts if each.column == DELTA_P.key]
    better, worse = (sum(each.verdict.startswith(word) for each in contrasts) for word in ("better", "worse"))
    return [f"{sentence}; by more than noise {better} of {len(held)} are better and {worse} worse."]


def _gains(table: ComparisonTable, against: Against, best: Row) -> list[str]:
    """Return by how much the best row differs from the chosen one, and what it would take to know more."""
    if best.name == against.baseline:
        return [f"{_name(table, best)} is what the others are held against, and none of them has a better mean rank."]
    name, baseline = _name(table, best), _short(table, against.baseline)
    found = [each for each in against.contrasts if each.row == best.name and each.column != DELTA_P.key]
    texts = [_gain(contrast) for contrast in found]
    needed = [f"{each.needed:,} ({each.title})" for each in found if each.verdict == "inside the noise" and each.needed]
    points = [f"{name} against {baseline}: {'; '.join(filter(None, texts))}."] if any(texts) else []
    if needed:
        points.append(
            f"If the differences between {name} and {baseline} are as large as they look, about "
            f"{', '.join(needed)} {against.repetition}s would show them with a probability of 80 %, also after the "
            "correction for the number of comparisons."
        )
    return points


def _gain(contrast: Contrast) -> str:
    difference = contrast.over_repetitions
    if difference is None:
        return ""
    size = max(map(abs, (difference.gain, *(difference.interval or ()))))
    sign = "-" if difference.gain < 0 else "+"
    text = f"{contrast.title} {sign}{format_value(abs(difference.gain), beside=size)}"
    if difference.interval is not None:
        low, high = (format_value(bound, beside=size) for bound in difference.interval)
        text += f" (95 % [{low}, {high}]"
        text += f", corrected p {_p_value(contrast.p)})" if contrast.p is not None else ")"
    return f"{text}, {contrast.verdict}"


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def _interval(row: Row, column: Column) -> str:
    cell = row.cells[column.key]
    if cell.interval is None or cell.shows_interval:
        return ""
    low, high = (
        format_number(column, bound) if column.kind == "delta" else format_value(bound, beside=cell.mean)
        for bound in cell.interval
    )
    return f" (95 % [{low}, {high}])"


def _rank(row: Row, column: Column) -> int | None:
    cell = row.cells.get(column.key)
    return None if cell is None else cell.rank_group


def _has_result(table: ComparisonTable, row: Row) -> bool:
    return any(not isnan(row.mean(column)) for column in table.metrics)


def _repetitions(table: ComparisonTable, rows: Sequence[Row]) -> int:
    columns = tested_columns(table)
    return max((len(tested_values(row, column)) for row in rows for column in columns), default=0)


def _methods(table: ComparisonTable) -> list[Row]:
    """Return the rows that are no single-task networks, if there are any."""
    return [row for row in table.configs if not is_single_task_row(row)] or table.configs


def _noun(table: ComparisonTable) -> str:
    rows = _methods(table)
    telling = [label for label in table.labels if len({str(row.label.get(label)) for row in rows}) > 1]
    return _NOUNS.get(telling[0], "config") if len(telling) == 1 else "config"


def _names(names: Sequence[str], noun: str) -> str:
    return _join(names) if len(names) <= _NAMED else f"{len(names)} {noun}s"


def _join(names: Sequence[str]) -> str:
    return ("; " if any(", " in name for name in names) else ", ").join(names)


def _short(table: ComparisonTable, name: str) -> str:
    """Return a shorter name of the row of a name."""
    return next((_name(table, row) for row in table.configs if row.name == name), name)


def _name(table: ComparisonTable, row: Row) -> str:
    """Return the label that names most rows, if no other method has it, or else the name of the row."""
    methods, labels = _methods(table), labels_in_order(table)
    if row not in methods and len(methods) == len(table.configs) - 1:
        return "single-task networks"
    values = [str(other.label.get(label)) for label in labels[:1] for other in methods]
    own = str(row.label.get(labels[0])) if labels else ""
    return own if values.count(own) == 1 and row in methods else row.name


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
