"""What makes a comparison of rows doubtful: a sentence for each way in which they were not treated alike."""

from collections import Counter
from collections.abc import Callable, Sequence
from math import isfinite, sqrt
from typing import Any

from mtlrun.comparison.analysis_results import Tuning
from mtlrun.comparison.columns import Column
from mtlrun.comparison.groups import SEED_AND_FOLD, Repetition
from mtlrun.comparison.run import Run
from mtlrun.comparison.significance import repetition_word, test_to_train, tested_columns, tested_values
from mtlrun.comparison.statistics.paired import compare
from mtlrun.comparison.statistics.power import detectable_effect, needed_repetitions
from mtlrun.comparison.table import ComparisonTable, Row
from mtlrun.records.display import MARK

#: From so many repetitions on, nothing is said about their number.
ENOUGH = 10
_VERY_FEW = 5
_LISTED = 4

# What changes a result beside the method: in words, and how it is found of a run; None where it does not concern it.
_Found = Callable[[Run], Any]


def _key(name: str) -> _Found:
    """Return what finds a key that every run has; null is a value of it."""
    return lambda run: "null" if run.config.get(name) is None else run.config[name]


def _setting(name: str) -> _Found:
    """Return what finds a key that does not concern a run without it."""
    return lambda run: run.config.get(name)


_CONDITIONS: dict[str, _Found] = {
    "clipping (trainer.clip_norm)": _key("trainer.clip_norm"),
    "precision (trainer.precision)": _setting("trainer.precision"),
    "what task gradients are taken with respect to (weighting.grad_wrt)": _setting("weighting.grad_wrt"),
    "the length of training in steps": lambda run: run.record.total_steps or None,
    "the batch size": lambda run: run.config.get("trainer.batch_size") or run.record.chosen.get("batch_size"),
    "the rule that selects checkpoints (trainer.monitor)": lambda run: (
        None if run.lookup("model") == "single" else run.config.get("trainer.monitor")
    ),
    "the number of batches (trainer.limit_batches)": _key("trainer.limit_batches"),
    "the commit of mtlrun": lambda run: _commit(run),
    "the version of mtlrun": lambda run: run.record.environment.get("versions", {}).get("mtlrun"),
    "the version of PyTorch": lambda run: run.record.environment.get("versions", {}).get("torch"),
    "the data that was read": lambda run: run.content or None,
}


def find_warnings(table: ComparisonTable, tuning: Tuning | None = None) -> list[str]:
    """Return what makes a comparison of the rows of a table doubtful, in sentences without a period."""
    rows = table.configs
    if not rows:
        return []
    return [
        *_test_selected(rows),
        *_splits(rows),
        *_data(rows),
        *(sentence for words, found in _CONDITIONS.items() if (sentence := _differs(words, found, rows))),
        *_changed_code(rows),
        *_budgets(tuning),
        *_survivors(rows),
        *_uneven(table),
        *_repetitions(table),
    ]


def _differs(words: str, found: _Found, rows: Sequence[Row]) -> str:
    """Return a sentence if runs differ in a condition; "" if not."""
    counts = Counter(str(value) for row in rows for run in row.group.runs if (value := found(run)) is not None)
    if len(counts) < 2:
        return ""
    return f"runs differ in {words}: {_list([f'{value} in {count}' for value, count in counts.most_common()])}"


def _commit(run: Run) -> str | None:
    commit = (run.record.environment.get("mtlrun") or {}).get("commit")
    return commit[:8] if isinstance(commit, str) else None


def _changed_code(rows: Sequence[Row]) -> list[str]:
    runs = [run for row in rows for run in row.group.runs]
    dirty = sum(bool((run.record.environment.get("mtlrun") or {}).get("dirty")) for run in runs)
    if not dirty or len(runs) < 2:
        return []
    return [f"{dirty} of {len(runs)} runs were made by code with uncommitted changes, which may not be the same code"]


def _test_selected(rows: Sequence[Row]) -> list[str]:
    selected = [row for row in rows if row.group.test_selected]
    if not selected:
        return []
    which = "all rows" if len(selected) == len(rows) else f"{len(selected)} of {len(rows)} rows, marked {MARK},"
    return [f"{which} are test-selected (dataset.protocol=legacy): no estimate of what new data would give"]


def _splits(rows: Sequence[Row]) -> list[str]:
    """Return a sentence for each split that differs between runs that should have the same, as those of one fold."""
    found: dict[Any, dict[str, set[str]]] = {}
    for group in (row.group for row in rows):
        dividing = [key for key in group.over if key not in SEED_AND_FOLD]
        for run in group.runs:
            # Labels are part of a fingerprint, and those of other tasks are others.
            alike = run.test_selected, *run.record.main_metrics, run.fold, *(str(run.lookup(key)) for key in dividing)
            by_split = found.setdefault(alike, {})
            for split, entry in run.record.splits.items():
                if fingerprint := entry.get("fingerprint"):
                    by_split.setdefault(split, set()).add(fingerprint)
    differing = [split for by_split in found.values() for split, different in by_split.items() if len(different) > 1]
    return [
        f"runs differ in the samples of the {split} split, in their order or in their labels"
        for split in dict.fromkeys(differing)
    ]


def _data(rows: Sequence[Row]) -> list[str]:
    """Return a sentence if rows differ in keys of their data set, which are then part of their labels."""
    labels = [row.label for row in rows]
    keys = dict.fromkeys(key for label in labels for key in label if key.startswith("dataset."))
    differing = [key for key in keys if len({repr(label.get(key)) for label in labels}) > 1]
    return [f"rows differ in their data, not in the method alone: {_list(differing)}"] if differing else []


def _uneven(table: ComparisonTable) -> list[str]:
    """Return a sentence if the means of rows are over different repetitions, or put different configs together."""
    found: list[tuple[Row, set[Repetition], set[Repetition]]] = []
    for row in table.ranked():
        keys = [key for key, run in row.group.repetitions().items() if run.record.test]
        length = len(row.group.over)
        found.append((row, {key[:length] for key in keys}, {key[length:] for key in keys}))
    found = [entry for entry in found if entry[1]]
    if not found:
        return []
    sentences = []
    every = {repetition for _, repetitions, _ in found for repetition in repetitions}
    lacking = [f"{row.name} lacks {len(every - repetitions)} of {len(every)}" for row, repetitions, _ in found
               if repetitions != every]  # fmt: skip
    if lacking:
        sentences.append(
            f"means are over different {repetition_word(found[0][0].group)}s, so that an easy one may decide which row "
            f"is best: {_list(lacking, '; ')}; tests pair those that both rows have"
        )
    if len({frozenset(mixed) for _, _, mixed in found}) > 1:
        mixed_keys = ", ".join(found[0][0].group.mixed)
        sentences.append(f"rows put different configs together: they do not have the same values of {mixed_keys}")
    return sentences


def _budgets(tuning: Tuning | None) -> list[str]:
    if tuning is None or len({method.trials for method in tuning.methods}) < 2:
        return []
    names: dict[int, list[str]] = {}
    for method in tuning.methods:
        names.setdefault(method.trials, []).append(_name(method.label))
    counts = [
        f"{trials} of {of_them[0] if len(of_them) == 1 else f'{len(of_them)} methods'}"
        for trials, of_them in sorted(names.items(), reverse=True)
    ]
    return [
        f"methods had unequal budgets, in trials of {', '.join(tuning.keys)}: {_list(counts, '; ')}; the best of more "
        "trials is better by chance"
    ]


def _name(label: dict[str, Any]) -> str:
    words = [value if isinstance(value, str) and "." not in key else f"{key}={value}" for key, value in label.items()]
    return ", ".join(words) or "the method"


def _survivors(rows: Sequence[Row]) -> list[str]:
    diverged = [row.name for row in rows if row.group.states.get("diverged") and row.group.states.get("completed")]
    if not diverged:
        return []
    return [f"means are without the runs that diverged, which flatters {_list(diverged, '; ')}"]


def _repetitions(table: ComparisonTable) -> list[str]:
    """Return what so few repetitions can show, and how many the best two rows would need."""
    rows = table.ranked()
    columns = tested_columns(table)
    counts = [len(tested_values(row, column)) for row in rows for column in columns if column.key in row.cells]
    most = max(counts, default=0)
    if len(rows) < 2 or not 0 < most < ENOUGH:
        return []
    group = rows[0].group
    word = repetition_word(group)
    if most == 1:
        return [f"with one {word} no difference can be told from noise"]
    # The standard error of folds is larger; see `standard_error`.
    effect = detectable_effect(most) * sqrt(1 + most * test_to_train(group))
    few = "almost nothing is separable: " if most <= _VERY_FEW else ""
    sentence = (
        f"with {most} {word}s {few}a difference is found with a probability of 80 % if it is {effect:.1f} times its "
        f"standard deviation over the {word}s, before any correction"
    )
    needed = [] if word == "fold" else [text for column in columns if (text := _needed(rows, column))]
    return [
        sentence + (f"; to separate the best two rows, about {_list(needed)} {word}s would be needed" if needed else "")
    ]


def _needed(rows: Sequence[Row], column: Column) -> str:
    """Return how many repetitions would separate the best two rows of a column, "" where nobody knows, or they do."""
    sign = 1 if column.direction == "max" else -1
    ordered = sorted(
        (row for row in rows if isfinite(row.mean(column))), key=lambda row: sign * row.mean(column), reverse=True
    )
    if len(ordered) < 2:
        return ""
    first, second = (tested_values(row, column) for row in ordered[:2])
    difference = compare(first, second, column.direction)
    if difference is None or not difference.paired or (difference.p is not None and difference.p < 0.05):
        return ""
    needed = needed_repetitions(difference.gain, difference.deviation)
    return f"{'over 10,000' if needed is None else f'{needed:,}'} ({column.title})"


def _list(texts: Sequence[str], between: str = ", ") -> str:
    more = f" and {len(texts) - _LISTED} more" if len(texts) > _LISTED else ""
    return between.join(texts[:_LISTED]) + more
