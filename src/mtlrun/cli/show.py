"""The result of a finished run: printed when a training ends, and when the same command is given again."""

from collections.abc import Mapping
from math import isnan, nan
from typing import Any

from mtlrun.config.listing import item
from mtlrun.records.display import (
    MARK,
    UNDEFINED,
    explain_mark,
    format_value,
    has_undefined,
    make_console,
    print_results,
)
from mtlrun.records.identity import run_folder
from mtlrun.records.record import Record
from mtlrun.records.shortfalls import FEW, describe_shortfalls, explain_baselines
from mtlrun.records.stamps import explain_result_of_changed_data

_MOST_TASKS = 4  # that are named in a line
_MOST_CLASSES = 12  # whose numbers of rows are shown
_OFTEN = 0.05  # of the resamples: if a metric is undefined on more, this is said


def show(record: Record, config: Mapping[str, Any], *, again: bool) -> None:
    """Print the result of a run.

    Args:
        record: of the finished run.
        config: its resolved config.
        again: True if it had finished before this command.
    """
    console = make_console()
    folder = run_folder(config)
    for line in explain_result_of_changed_data(record.data, record.started) if again else []:
        console.print(line)
    legacy = record.protocol == "legacy"
    if config["runtime"]["quiet"]:
        metrics = (
            f"{task} {name} {format_value(record.test[task][name])}" for task, name in record.main_metrics.items()
        )
        split = "test-selected" if legacy else "test"
        console.print(f"{folder}: {record.status}" + (f": {split} {', '.join(metrics)}" if record.test else ""))
        return
    if again:
        console.print(f"{folder} is finished already; runtime.rerun=true trains it anew")
    if record.status == "diverged":
        console.print(f"diverged at {record.error}")
        return
    if legacy:
        (entry,) = record.selection
        results = {f"test{MARK}": record.test, **record.baselines}
        print_results(console, "result (test-selected)", results, record.directions)
        if has_undefined(results):
            console.print(UNDEFINED)
        console.print(explain_mark([entry["evaluations"]]))
        console.print(f"means over epochs {entry['first_epoch']} to {entry['epoch']}; best.pt holds the last weights")
    else:
        where = "; ".join(
            f"{', '.join(entry['tasks'])} at epoch {entry['epoch']} (step {entry['step']}) by {entry['rule']}"
            + (f", skill {entry['skill']:.4f}" if "skill" in entry else "")
            + "".join(f", with {loss} for {metric}" for metric, loss in entry.get("stand_ins", {}).items())
            for entry in record.selection
        )
        results = {"test": record.test, "val": record.val, **record.baselines}
        print_results(console, "result", results, record.directions, record.intervals)
        if has_undefined(results):
            console.print(UNDEFINED)
        for line in _about_intervals(record):
            console.print(line)
        for line in _classes(record):
            console.print(line)
        console.print(f"selected on validation: {where}")
        disagreement = _disagreement(record)
        if disagreement:
            console.print(disagreement)
    for line in filter(None, [*describe_shortfalls(record), explain_baselines(record)]):
        console.print(line)
    peaks = record.peak_memory_mib
    peak, where = (peaks["gpu"], "on the GPU") if "gpu" in peaks else (peaks.get("process"), "in memory")
    memory = "" if peak is None else f", at most {peak:,.0f} MiB {where}"
    seconds = record.seconds.get("train", nan)
    console.print(f"{record.epochs} epochs, {record.steps} steps in {seconds:.1f} s{memory}; {folder}")


def _classes(record: Record) -> list[str]:
    """Return a line on the classes of each task of a table: how many rows of each split have them.

    What a dataset of the user's has learned may have another form, of which nothing is shown.
    """
    try:
        return _lines_on_classes(record)
    except (AttributeError, KeyError, TypeError, ValueError):
        return []


def _lines_on_classes(record: Record) -> list[str]:
    lines = []
    for task, entry in record.learned.get("targets", {}).items():
        labels = entry.get("labels", {})
        splits = list(next(iter(labels.values()), {}))
        if "positive" in entry:
            positive = entry["positive"]
            totals = {split: sum(counts[split] for counts in labels.values()) for split in splits}
            counts = ", ".join(f"{labels[positive][split]:,} of {totals[split]:,} in {split}" for split in splits)
            lines.append(f"{task}: positive is {item(positive)} ({counts})")
        elif labels:
            shown = [
                f"{item(label)} ({'/'.join(f'{counts[split]:,}' for split in splits)})"
                for label, counts in labels.items()
            ]
            more = f" and {len(shown) - _MOST_CLASSES:,} more" if len(shown) > _MOST_CLASSES else ""
            lines.append(f"{task}: {', '.join(shown[:_MOST_CLASSES])}{more} in {'/'.join(splits)}")
    return lines


def _about_intervals(record: Record) -> list[str]:
    """Return what the intervals of the test split mean, and where they mean little."""
    found, made = record.intervals.get("test"), record.bootstrap
    if not found or not made:
        return []
    drawn = "groups of samples" if made["groups"] else "samples"
    lines = [
        f"95 %: bootstrap interval over the {drawn} of the test split ({made['resamples']} resamples); it does not "
        "cover other seeds"
    ]
    few = [f"{task} ({count})" for task, count in made["drawn_from"].items() if count < FEW]
    if few:
        lines.append(f"an interval over fewer than {FEW} {drawn} means little: {_listed(few)}")
    for task in (task for task, count in made["drawn_from"].items() if count >= FEW):
        fractions = made["undefined"].get(task, {})
        often = [f"{metric} in {100 * part:.0f} %" for metric, part in fractions.items() if part > _OFTEN]
        if often:
            lines.append(f"{task}: without the resamples that leave it undefined, {_listed(often)}")
        fixed = [metric for metric, value in record.test[task].items()
                 if not isnan(value) and metric not in found.get(task, {})]  # fmt: skip
        wilson = made.get("by_wilson", {}).get(task, [])
        if wilson:
            lines.append(f"{task}: {_listed(wilson)} by Wilson's score interval, since all resamples give the same")
        if fixed:
            lines.append(f"{task}: no interval, since nearly all resamples give the same: {_listed(fixed)}")
    return lines


def _listed(words: list[str]) -> str:
    more = f", and {len(words) - _MOST_TASKS} more" if len(words) > _MOST_TASKS else ""
    return ", ".join(words[:_MOST_TASKS]) + more


def _disagreement(record: Record) -> str:
    """Return which tasks would rather have another checkpoint, those with the largest loss of skill first; or ""."""
    losses = {task: skills["best"] - skills["selected"] for task, skills in record.skills.items()}
    better = sorted((task for task, loss in losses.items() if loss > 0), key=lambda task: -losses[task])
    if not better:
        return ""
    each = [
        f"{task} at epoch {record.skills[task]['best_epoch']} (skill {record.skills[task]['best']:.4f} instead of "
        f"{record.skills[task]['selected']:.4f})"
        for task in better[:_MOST_TASKS]
    ]
    more = f", and {len(better) - _MOST_TASKS} more" if len(better) > _MOST_TASKS else ""
    return f"tasks that are better at other epochs: {', '.join(each)}{more}"
