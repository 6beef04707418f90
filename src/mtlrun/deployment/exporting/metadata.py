"""What an exported file has beside its program: enough to encode inputs and to read predictions, as JSON."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mtlrun.deployment.predictor import Predictor
from mtlrun.errors import DataError
from mtlrun.records.record import Record
from mtlrun.setup.model_description import SECTION

#: Keys of the metadata: all that `mtlrun predict` needs; and for programs that know nothing of mtlrun, what the inputs
#: are made of, and {task: what its outputs mean}.
RUN, INPUTS, TASKS = "mtlrun", "inputs", "tasks"

_FORMAT = 1
# Where the data were is of no use elsewhere, and may be nobody's business.
_PRIVATE = ("path", "root", "labels")


def write_metadata(predictor: Predictor, parts: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the metadata of an exported program.

    Args:
        predictor: of the run.
        parts: {task: names of its outputs}, of the tasks that were exported.
    """
    record = predictor.record
    config = {group: record.config[group] for group in ("names", "tasks", "dataset")}
    config["tasks"] = {task: node for task, node in config["tasks"].items() if task in parts}
    config["dataset"] = {key: value for key, value in config["dataset"].items() if key not in _PRIVATE}
    plain = predictor.description.as_plain()
    for section in ("classes", "task_state"):
        plain[section] = {task: value for task, value in plain[section].items() if task in parts}
    run = {
        "format": _FORMAT,
        "run_id": record.run_id,
        "config": config,
        "task_sizes": {task: sizes for task, sizes in record.task_sizes.items() if task in parts},
        "main_metrics": {task: record.main_metrics[task] for task in parts},
        "directions": {task: record.directions[task] for task in parts},
        "test": {task: record.test[task] for task in parts if task in record.test},
        "learned": {**predictor.learned, SECTION: plain},
    }
    return {
        RUN: json.dumps(run),
        INPUTS: json.dumps({"shape": list(predictor.input_shape), **predictor.learned.get("inputs", {})}),
        TASKS: json.dumps({task: _describe(predictor, task, names) for task, names in parts.items()}),
    }


def _describe(predictor: Predictor, task: str, parts: Sequence[str]) -> dict[str, Any]:
    target = predictor.learned.get("targets", {}).get(task, {})
    return {
        "kind": type(predictor.tasks[task]).__name__,
        "columns": target.get("columns", []),
        "classes": predictor.names(task),
        "outputs": [f"{task}.{part}" for part in parts],
    }


def read_metadata(metadata: Mapping[str, str], where: str) -> tuple[Record, Mapping[str, Any]]:
    """Return the record of the exported run, as far as it was kept, and what it learned.

    Args:
        metadata: of the file.
        where: the file, for messages.

    Raises:
        DataError: it is not one of `mtlrun export`, or of another version.
    """
    if RUN not in metadata:
        raise DataError(f"{where}: no metadata of mtlrun; give a file that `mtlrun export` wrote")
    try:
        run = json.loads(metadata[RUN])
        if run["format"] != _FORMAT:
            raise DataError(
                f"{where}: its metadata are of format {run['format']}, and this version of mtlrun reads {_FORMAT}; "
                "export the run again"
            )
        record = Record(
            run["run_id"], run["config"], status="completed", task_sizes=run["task_sizes"],
            main_metrics=run["main_metrics"], directions=run["directions"], test=run["test"],
        )  # fmt: skip
        return record, run["learned"]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{where}: its metadata are damaged ({type(error).__name__}: {error})") from error
