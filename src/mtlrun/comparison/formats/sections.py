"""The texts of what stands below a table in all formats for readers: tuning, differences to a row, trade-offs."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from typing import Any

from mtlrun.comparison.analysis_results import Against, Contrast, TradeOffs, Tuning
from mtlrun.comparison.formats.values import NOTHING
from mtlrun.comparison.statistics.improvement import Estimate
from mtlrun.comparison.statistics.intervals import Interval
from mtlrun.comparison.statistics.ranks import ALPHA
from mtlrun.comparison.table import ComparisonTable
from mtlrun.records.display import format_value
from mtlrun.records.text_table import TextTable

_QUARTERS = (0.25, 0.5, 0.75)


@dataclass
class Section:
    """A table of texts with its title, and sentences on what it shows."""

    title: str
    table: TextTable
    notes: list[str]


def sections_of(table: ComparisonTable) -> list[Section]:
    """Return what stands below a table, in its order."""
    found = []
    if table.tuning is not None:
        found.append(_tuning(table.tuning, {column.key: column.title for column in table.metrics}))
    if table.against is not None:
        found += [_contrasts(table.against), _overall(table.against, table.describe_mains())]
    if table.trade_offs is not None:
        found.append(_trade_offs(table.trade_offs))
    return [section for section in found if section.table.rows]


def _tuning(tuning: Tuning, titles: Mapping[str, str]) -> Section:
    labels = list(dict.fromkeys(key for method in tuning.methods for key in method.label)) or ["method"]
    rows = []
    for method in tuning.methods:
        best = NOTHING if method.best is None else _key_values(method.best)
        cells = [str(method.label.get(label, "")) for label in labels] + [str(method.trials), best]
        for key in titles:
            spread = method.spreads.get(key)
            if spread is None:
                cells += [NOTHING, NOTHING]
            else:
                middle = format_value(spread.median)
                bounds = [format_value(bound, beside=spread.median) for bound in (spread.low, spread.high)]
                cells += [format_value(spread.best), f"{middle} [{bounds[0]}, {bounds[1]}]"]
        rows.append(cells)
    header = [*labels, "trials", "best on validation"]
    for title in titles.values():
        header += [title, "median [lowest, highest]"]
    note = (
        f"tuned ({', '.join(tuning.keys)}): test metrics of the trial with the best mean skill on validation; beside "
        "it the median of all trials"
    )
    return Section("what tuning gives", TextTable(header, rows, num_left=len(labels)), [note, *tuning.notes])


def _key_values(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.removeprefix('optimizer.')}={value}" for key, value in values.items())


def _contrasts(against: Against) -> Section:
    word = against.repetition
    header = ["column", "row", "gain", f"95 % over {word}s", "p", "95 % over test samples", "p", "verdict"]
    paired = {found.paired for contrast in against.contrasts if (found := contrast.over_repetitions) is not None}
    how = (
        f"paired by {word}"
        if paired == {True}
        else "not paired"
        if paired == {False}
        else f"paired where {word}s are shared"
    )
    notes = [
        f"gain: by how much a row is better than {against.baseline}, {how}; p: of no difference, corrected in each "
        "column for the number of rows (Holm); intervals are not",
        f"better, worse: p < {ALPHA} over {word}s and over test samples; (~n): about n {word}s would find a difference "
        "as large as this one with a probability of 80 %",
        *against.notes,
    ]
    rows = [_contrast(contrast) for contrast in against.contrasts]
    return Section(f"against {against.baseline}", TextTable(header, rows, num_left=2), notes)


def _contrast(contrast: Contrast) -> list[str]:
    difference, samples = contrast.over_repetitions, contrast.over_samples
    verdict = contrast.verdict
    if verdict == "inside the noise" and contrast.needed is not None:
        verdict += f" (~{contrast.needed:,})"
    if difference is None:
        return [contrast.title, contrast.row, *[NOTHING] * 5, verdict]
    size = max(map(abs, (difference.gain, *(difference.interval or ()))))
    return [
        contrast.title,
        contrast.row,
        f"{'-' if difference.gain < 0 else '+'}{format_value(abs(difference.gain), beside=size)}",
        _interval(difference.interval, size),
        _p_value(contrast.p),
        NOTHING if samples is None else _interval(samples.interval, size),
        _p_value(contrast.p_samples),
        verdict,
    ]


def _overall(against: Against, columns: str) -> Section:
    header = ["row", "P(better)", "gain over single-task %", "average rank"]
    ranks = {} if against.ranks is None else dict(zip(against.ranked, against.ranks.average_ranks, strict=True))
    rows = [
        [
            each.row,
            _estimate(each.improvement, "{:.2f}"),
            _estimate(each.gain, "{:+.2f}"),
            f"{ranks[each.row]:.2f}" if each.row in ranks else NOTHING,
        ]
        for each in against.overall
    ]
    notes = [
        f"by {columns}: the probability that a run is better than one of {against.baseline} on a task, and the "
        "interquartile mean over all runs and tasks of the relative gain over single-task networks; intervals of 95 % "
        "by drawing runs anew"
    ]
    if against.ranks is not None:
        found = against.ranks
        notes.append(
            f"Friedman's test over {found.num_blocks} blocks of a task and a {against.repetition}: p = {found.p:.2g}; "
            f"average ranks that differ by less than {found.critical_difference:.2f} (Nemenyi) are not told apart"
        )
    return Section("over all tasks", TextTable(header, rows), notes)


def _trade_offs(found: TradeOffs) -> Section:
    places = [int(quarter * (len(found.thresholds) - 1)) for quarter in _QUARTERS] if len(found.thresholds) > 1 else []
    header = ["row", "dominated by", "hypervolume added", "wins %"]
    header += [f"% above skill {found.thresholds[place]:.3f}" for place in places]
    rows = [
        [
            row.row,
            "; ".join(row.dominated_by) if len(row.dominated_by) <= 2 else f"{len(row.dominated_by)} rows",
            NOTHING if isnan(row.added) else f"{row.added:.3g}",
            NOTHING if isnan(row.wins) else f"{100 * row.wins:.1f}",
            *(f"{100 * row.profile[place]:.0f}" if row.profile else NOTHING for place in places),
        ]
        for row in found.rows
    ]
    front = [row.row for row in found.rows if not row.dominated_by]
    reference = ", ".join(
        f"{key} {format_value(value)}" for key, value in zip(found.objectives, found.reference, strict=False)
    )
    notes = [f"Pareto front: {'; '.join(front)}"]
    if not isnan(found.hypervolume):
        notes.append(
            f"hypervolume of all rows {found.hypervolume:.4g}, down to {found.reference_is}: {reference}; rows that "
            "are not better than that in all tasks add nothing"
        )
    if places:
        notes.append(
            "wins: of all weights of the tasks that sum to 1, those under which the row has the highest mean skill on "
            "test; above a skill: of all pairs of a task and a run (0: a constant prediction, 1: a perfect one)"
        )
    return Section("trade-offs between the tasks", TextTable(header, rows), notes + found.notes)


def _interval(interval: Interval | None, beside: float) -> str:
    if interval is None:
        return NOTHING
    low, high = (format_value(bound, beside=beside) for bound in interval)
    return f"[{low}, {high}]"


def _p_value(p: float | None) -> str:
    return NOTHING if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def _estimate(estimate: Estimate | None, form: str) -> str:
    if estimate is None or isnan(estimate.value):
        return NOTHING
    text = form.format(estimate.value)
    if estimate.interval is None:
        return text
    low, high = (form.format(bound) for bound in estimate.interval)
    return f"{text} [{low}, {high}]"
