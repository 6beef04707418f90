"""Warm start: coupled networks that start from networks trained on one task each, as cross-stitch networks do.

With `model.init_from=auto` these are of a run with the same config but for what tasks have in common: its first stage.
"""

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mtlrun.config.suggest import suggest
from mtlrun.errors import ConfigError, DataError
from mtlrun.models import MultiTaskModel
from mtlrun.records.folder import BEST, CHECKPOINTS
from mtlrun.records.identity import run_folder
from mtlrun.records.record import Record, find_record
from mtlrun.training.checkpoint import Checkpoints

logger = logging.getLogger(__name__)

#: Value of `model.init_from`: the first stage of the run, which is trained if need be.
AUTO = "auto"


def first_stage(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the config of the run of model=single that a run starts from; None if it starts from none, or a given one.

    It is what `model=single weighting=equal` makes of the same command.
    """
    node = config.get("model")
    if not isinstance(node, Mapping) or node.get("init_from") != AUTO:
        return None
    stage: dict[str, Any] = copy.deepcopy(dict(config))
    names = stage["names"]
    stage["model"] = {"_target_": "mtlrun.models.SingleTask"}
    names["model"] = "single"
    if names.get("weighting") != "equal":
        from mtlrun.config.compose import (
            compose,  # Hydra takes a while to import, and is not needed to use a finished run
        )

        stage["weighting"] = compose(["weighting=equal"])["weighting"]
        names["weighting"] = "equal"
    if stage.get("match_parameters") is not None:
        stage["match_parameters"] = None
        names.pop("match_parameters", None)
    for task in stage.get("tasks", {}).values():
        if isinstance(task, dict) and "weight" in task:
            task["weight"] = 1.0
    if isinstance(stage.get("trainer"), dict):
        stage["trainer"]["log_affinity_every"] = None
    return stage


def find_first_stage(config: Mapping[str, Any]) -> Path | None:
    """Return the folder of the first stage of a run, None if it has none, or that is not finished."""
    stage = first_stage(config)
    if stage is None:
        return None
    record, _ = find_record(stage)
    return run_folder(stage) if record is not None and record.status == "completed" else None


def start_from(model: MultiTaskModel, run: str, *, legacy: bool = False) -> None:
    """Copy the selected state of a completed run of `model=single` into each task's network.

    A head whose shape differs here, because its input is not the output of its network alone, keeps its random state.

    Args:
        model: with a network per task.
        run: the folder of that run.
        legacy: True if the run that starts has `dataset.protocol=legacy`. A run with the standard protocol must not
            start from a legacy one, whose networks were trained on its validation split.

    Raises:
        ConfigError: there is no such run, it lacks a task, or its networks have other shapes.
        CheckpointError: its best.pt cannot be read.
    """
    key = f"model.init_from={run}"
    state = _selected_state(Path(run), key, legacy=legacy)
    for task, (backbone, head) in model.task_networks().items():
        known = sorted({name.split(".")[1] for name in state})
        if task not in known:
            raise ConfigError(f"{key}: that run has no task {task}; {suggest(task, known, 'it has')}")
        prefix = f"networks.{task}."
        _load(backbone, _below(state, f"{prefix}0."), f"{key}: the network of task {task}")
        head_state = _below(state, f"{prefix}1.")
        if _shapes(head_state) == _shapes(head.state_dict()):
            head.load_state_dict(head_state)
        else:
            logger.info("%s: the head of task %s has other shapes and starts from random weights", key, task)


def _selected_state(folder: Path, key: str, *, legacy: bool) -> dict[str, Tensor]:
    """Return the state of the selected model of a run of `model=single`."""
    try:
        record = Record.read(folder)
    except DataError as error:
        raise ConfigError(f"{key}: {error}") from error
    if record is None:
        raise ConfigError(f"{key}: no run there (no record.json); give the folder of a finished run")
    name = record.config["names"]["model"]
    if name != "single":
        raise ConfigError(f"{key}: that run has model={name}; give one with model=single, a network per task")
    if record.status != "completed":
        raise ConfigError(f"{key}: that run is {record.status}; give one that is completed")
    if record.protocol == "legacy" and not legacy:
        raise ConfigError(
            f"{key}: that run has dataset.protocol=legacy, so it was trained on this run's validation split; give one "
            "with dataset.protocol=standard"
        )
    state = Checkpoints(folder / CHECKPOINTS, record.run_id).load_best()
    if state is None:
        raise ConfigError(f"{key}: its {CHECKPOINTS}/{BEST} is gone, so there are no weights to start from")
    return state


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def _load(module: nn.Module, state: dict[str, Tensor], what: str) -> None:
    ours, theirs = _shapes(module.state_dict()), _shapes(state)
    for name in [*ours, *theirs]:
        if ours.get(name) != theirs.get(name):
            raise ConfigError(
                f"{what}: {name} has shape {ours.get(name, 'none')} here and {theirs.get(name, 'none')} in that run; "
                "use the same backbone, with the same keys, and the same data"
            )
    module.load_state_dict(state)
