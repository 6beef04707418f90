"""Curves of methods for TensorBoard: means and bands over the runs of each config, in further event files."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from math import isfinite, nan, sqrt
from pathlib import Path
from statistics import fmean
from typing import Any

from mtlrun.comparison.data_sets import group_by_data
from mtlrun.comparison.groups import group_by_config
from mtlrun.comparison.reading import despite_strange, read_runs
from mtlrun.comparison.run import Run
from mtlrun.records import event_file
from mtlrun.records.event_contents import band_charts, result_curves, tag_of_curve, tags_of_band, tags_with_band
from mtlrun.records.folder import METRICS, open_atomically, storing
from mtlrun.records.record import Record

#: In the folder of a study; TensorBoard shows `summary/<method>` as a run.
SUMMARY = "summary"
_EVENTS = "events.out.tfevents.0.mtlrun-summary"
#: Of the lines of training, so many are read from each run: TensorBoard shows no more points of a curve.
_MOST_POINTS = 1000
_TRAINING = b'{"split": "train"'


@dataclass
class Summary:
    """What was written for one study.

    Args:
        folder: of the study.
        methods: {name: number of runs} that have a curve.
        left_out: {reason: number of runs}.
    """

    folder: Path
    methods: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Point:
    """What a run logged at one moment.

    Args:
        key: the same for all runs of a config: the step for training, the number of the evaluation for validation.
        step: of the run.
        values: {tag: value}.
    """

    key: Any
    step: int
    values: Mapping[str, float]


_Curves = dict[str, list[_Point]]  # {split: points}


def summarize(folders: Iterable[Path]) -> tuple[list[Summary], list[str]]:
    """Write a curve per method into `summary/<method>` of each study: mean and band over its completed runs.

    The band is the mean plus and minus the standard deviation. Methods are the configs that `mtlrun compare` tells
    apart, of which there are two completed runs or more. A point stands where all of them have one. What an earlier
    call wrote is replaced, file by file.

    Args:
        folders: with runs in or below them. A study is the folder that a run's folder is in.

    Returns:
        What was written for each study, and what is wrong with each file that is called a record and is none.

    Raises:
        DataError: a folder does not exist, or holds no record.
        StorageError: a file cannot be written.
    """
    found = read_runs(folders)
    studies: dict[Path, list[Run]] = {}
    for run in found.runs:
        assert run.folder is not None
        studies.setdefault(run.folder.parent, []).append(run)
    summaries = []
    for study, runs in studies.items():
        summary, problems = despite_strange(runs, partial(_summarize_study, study), empty=True)
        summaries.append(summary)
        found.problems += problems
    return summaries, found.problems


def _summarize_study(study: Path, runs: Sequence[Run]) -> Summary:
    summary = Summary(study)
    by_record = {id(run.record): run for run in runs}
    data = group_by_data([run.record for run in runs])
    written: set[Path] = set()
    for title, records in data.items():
        for group in group_by_config([by_record[id(record)] for record in records]):
            completed = [run for run in group.runs if run.state == "completed"]
            curves = [(run.record, found) for run in completed if (found := _read_curves(run)) is not None]
            _count(summary.left_out, "not completed", len(group.runs) - len(completed))
            _count(summary.left_out, f"whose {METRICS} is missing or damaged", len(completed) - len(curves))
            if len(curves) < 2:
                _count(summary.left_out, "the only ones of their method", len(curves))
                continue
            name = _folder_name(f"{title}, {group.name}" if len(data) > 1 else group.name, taken=summary.methods)
            path = study / SUMMARY / name / _EVENTS
            with storing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, _entries(*zip(*curves, strict=True)))
            written.add(path)
            summary.methods[name] = len(curves)
    _remove_others(study / SUMMARY, written)
    return summary


def _count(counts: dict[str, int], reason: str, number: int) -> None:
    if number:
        counts[reason] = counts.get(reason, 0) + number


def _folder_name(name: str, taken: Iterable[str]) -> str:
    """Return a name of a folder that says which method it is of."""
    short = re.sub(r"[^\w.,=+-]+", "_", name.replace(", ", ","))[:150].strip(".") or "all"
    others = set(taken)
    return next(one for one in (short, *(f"{short}-{number}" for number in range(2, 10_000))) if one not in others)


def _write(path: Path, entries: Sequence[bytes]) -> None:
    with open_atomically(path) as file:
        for entry in entries:
            file.write(entry)


def _remove_others(folder: Path, written: set[Path]) -> None:
    """Remove what earlier calls wrote for methods that are no more."""
    for path in folder.glob(f"*/{_EVENTS}"):
        if path not in written:
            path.unlink(missing_ok=True)
            if not any(path.parent.iterdir()):
                path.parent.rmdir()


def _entries(records: Sequence[Record], curves: Sequence[_Curves]) -> list[bytes]:
    """Return the entries of the event file of a method."""
    entries = [event_file.header(), event_file.layout(band_charts(records[0]))]
    with_band = set(tags_with_band(records[0]))
    for split in dict.fromkeys(split for of_run in curves for split in of_run):
        for step, values in _mean_curve([of_run.get(split, []) for of_run in curves], with_band):
            entries.append(event_file.scalars(values, step))
    results = [_Point("result", record.steps, result_curves(record, record.test)) for record in records]
    for step, values in _mean_curve([[point] for point in results], set()):
        entries.append(event_file.scalars(values, step))
    return entries


def _mean_curve(runs: Sequence[Sequence[_Point]], with_band: Set[str]) -> list[tuple[int, dict[str, float]]]:
    """Return (step, {tag: mean, and the tags of the edges of a band}) where all runs have a point, in order of steps.

    Args:
        runs: the points of each.
        with_band: tags of the curves that have a band.
    """
    by_key = [{point.key: point for point in points} for points in runs]
    curve = []
    for key in by_key[0]:
        points = [found[key] for found in by_key if key in found]
        if len(points) < len(runs):
            continue
        values: dict[str, float] = {}
        for tag in points[0].values:
            of_runs = [point.values[tag] for point in points if tag in point.values]
            if len(of_runs) == len(runs):
                mean, deviation = _mean_and_deviation(of_runs)
                values[tag] = mean
                if tag in with_band:
                    low, high = tags_of_band(tag)
                    values |= {low: mean - deviation, high: mean + deviation}
        curve.append((round(fmean(point.step for point in points)), values))
    return sorted(curve, key=lambda point: point[0])


def _mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    if not all(map(isfinite, values)):
        return nan, nan
    mean = fmean(values)
    return mean, sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _read_curves(run: Run) -> _Curves | None:
    """Return the points of training and of the evaluations during it; of many points of training only some.

    None if the file cannot be read, or a line of it is none that a run writes: which evaluation the next lines are of
    would not be known.
    """
    try:
        assert run.folder is not None
        lines = (run.folder / METRICS).read_bytes().splitlines()
        training = [line for line in lines if line.startswith(_TRAINING)]
        stride = -(-len(training) // _MOST_POINTS) or 1
        kept = training[stride - 1 :: stride] + [line for line in lines if not line.startswith(_TRAINING)]
        curves: _Curves = {}
        for line in map(json.loads, kept):
            points = curves.setdefault(line["split"], [])
            values = {tag_of_curve(tag): value for tag, value in line.items() if "/" in tag}
            points.append(_Point(line["step"] if line["split"] == "train" else len(points), line["step"], values))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return {split: points for split, points in curves.items() if split in ("train", "val", "test_selected")}
