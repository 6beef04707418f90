"""Evaluation of a run on a table of labeled rows that was no part of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtlrun.datasets import Loader, TensorSplit
from mtlrun.datasets.tables.labels.encoding import LabelEncoder
from mtlrun.datasets.tables.reading.stream import open_stream
from mtlrun.deployment.evaluate import Evaluation
from mtlrun.deployment.predict import Summary
from mtlrun.deployment.predictor import Predictor
from mtlrun.deployment.tables import TableEncoder
from mtlrun.errors import DataError
from mtlrun.training.evaluation import evaluate
from mtlrun.training.intervals import find_intervals
from mtlrun.training.outputs import SplitOutputs

_BATCH_SIZE = 4096
# Strange labels of a task that are listed.
_LISTED = 4


def evaluate_table(predictor: Predictor, path: Path, dataset: Mapping[str, Any]) -> tuple[Evaluation, Summary]:
    """Return the metrics of a run on the rows of a file, and what became of these; the encoded rows are in memory.

    A task whose columns the file lacks is left out, and so is a row that cannot be read. A label that the run does not
    know counts as missing.

    Args:
        predictor: of the run.
        path: of a CSV or Parquet file, with the columns of the inputs and of one task or more.
        dataset: the node `dataset` of the run's config, with what was given for this file.

    Raises:
        DataError: the run is not on a table; or the file cannot be read, lacks a column of the inputs, or has no label.
    """
    encoder = predictor.encoder_for(dataset)
    if not isinstance(encoder, TableEncoder):
        raise DataError(f"--input {path}: only runs on tables are evaluated on other data; give keys of the dataset")
    stream = open_stream(str(path), encoder.source)
    encoder.require(stream.names, str(path))
    float64 = [name for name, task in predictor.tasks.items() if task.takes_float64]
    labels = LabelEncoder(predictor.learned["targets"], float64, dataset.get("label_separator"))
    tasks = {name: t for name, t in predictor.tasks.items() if set(labels.columns(name)) <= set(stream.names)}
    notes = [f"{name}: there is no label in {path}" for name in predictor.tasks if name not in tasks]
    if not tasks:
        columns = [column for name in predictor.tasks for column in labels.columns(name)]
        raise DataError(f"{path}: there are no labels; a column of a task is needed ({', '.join(columns)})")
    of_labels = [column for name in tasks for column in labels.columns(name)]
    inputs: list[Tensor] = []
    targets: dict[str, list[Tensor]] = {name: [] for name in tasks}
    summary = Summary()
    for block in stream.blocks(list(dict.fromkeys([*encoder.rows.columns, *of_labels])), encoder.rows.texts):
        parsed = encoder.rows.parse(block.table, block.wrong)
        readable = parsed.readable
        inputs.append(parsed.encode(readable))
        for name in tasks:
            targets[name].append(labels.encode(block.table, name)[torch.from_numpy(readable)])
        numbers = block.table.numbers
        wrong = {row: f"row {numbers[row]}, {problem}" for row, problem in parsed.wrong.items()}
        summary.add_rows(len(block.table), wrong)
    summary.check()
    split = TensorSplit(torch.cat(inputs), {name: torch.cat(parts) for name, parts in targets.items()})
    loader = Loader(split, _BATCH_SIZE, shuffle=False)
    outputs = SplitOutputs(tasks, loader)
    metrics: dict[str, dict[str, float]] = {}
    for network in predictor.only(list(tasks)).networks:
        chosen = {name: tasks[name] for name in network.tasks}
        metrics |= evaluate(network.model, chosen, loader, predictor.device, outputs=outputs)
    metrics = {name: metrics[name] for name in tasks}
    intervals = find_intervals(outputs, metrics, predictor.device).bounds
    notes += _describe(labels.strange)
    directions = {name: predictor.record.directions[name] for name in tasks}
    return Evaluation(predictor.record.run_id, str(path), metrics, intervals, directions, notes=notes), summary


def _describe(strange: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return a sentence on the labels of each task that the run does not know."""
    lines = []
    for task, counts in strange.items():
        shown = [f"{text!r} ({count:,} row{'s' * (count != 1)})" for text, count in list(counts.items())[:_LISTED]]
        more = f" and {len(counts) - _LISTED} more" if len(counts) > _LISTED else ""
        lines.append(f"{task}: labels that the run does not know count as missing: {', '.join(shown)}{more}")
    return lines
