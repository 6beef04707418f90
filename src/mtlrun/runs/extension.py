"""Extension: a finished run, continued for longer as another run, which says what it was made from."""

import copy
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from mtlrun.errors import CheckpointError, ConfigError, DataError
from mtlrun.models import MultiTaskModel
from mtlrun.records.config_text import as_yaml
from mtlrun.records.folder import CHECKPOINTS, CONFIG, EVENTS, LOG, METRICS, hold, open_atomically
from mtlrun.records.identity import run_folder, run_id
from mtlrun.records.record import Record
from mtlrun.setup.prepare import prepare
from mtlrun.training.checkpoint import Checkpoints
from mtlrun.training.parts import Parts

#: The keys that may be another in the longer run: its length, and those that cannot change what was trained so far.
LENGTH_KEYS = ("trainer.epochs", "trainer.steps", "trainer.patience")


def extend(folder: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Make a run that continues the finished one in `folder`, and return its config, by which it is trained.

    The new run begins with the last state of the finished one, its curves and its log; it ends as if it had been that
    long from the start. If it exists already, nothing is made: training its config continues it.

    Args:
        folder: of a completed run.
        overrides: `trainer.epochs=60`, or `trainer.steps`; `trainer.patience` and keys of `runtime` may come with it.

    Raises:
        DataError: there is no completed run in the folder.
        ConfigError: another key is to change, the run would not be longer, or what was trained so far depends on the
            length: a schedule, or a model that anneals something.
        CheckpointError: the last state cannot be read.
    """
    parent = Record.read(folder)
    if parent is None or parent.status != "completed":
        found = "no run" if parent is None else f"a run that is {parent.status}"
        raise DataError(f"{folder}: found {found}; only a completed run can be extended")
    if parent.made_from is not None:
        raise DataError(f"{folder}: it was made from other runs, and not trained; only a training can be extended")
    config = _with_overrides(parent.config, overrides)
    config["runtime"].setdefault("rerun", False)
    new_folder = run_folder(config)
    if run_id(config) == parent.run_id:
        raise ConfigError(f"{' '.join(overrides)}: that is how long {parent.run_id} was trained")
    if Record.read(new_folder) is not None:
        return config
    parts = prepare(config)
    _check_length(parent, parts)
    record = replace(
        parent,
        run_id=run_id(config),
        config=config,
        status="interrupted",
        parent={"run_id": parent.run_id, "steps": parent.steps, "folder": str(folder)},
        test={}, val={}, intervals={}, bootstrap={}, baselines={}, baseline_settings={},
    )  # fmt: skip
    with hold(new_folder):
        (new_folder / CHECKPOINTS).mkdir(exist_ok=True)
        for pattern in (METRICS, EVENTS, LOG):
            for path in folder.glob(pattern):
                shutil.copyfile(path, new_folder / path.name)
        with open_atomically(new_folder / CONFIG) as file:
            file.write(as_yaml(config).encode())
        old = Checkpoints(folder / CHECKPOINTS, parent.run_id)
        if not old.copy_training(Checkpoints(new_folder / CHECKPOINTS, record.run_id)):
            raise CheckpointError(f"{folder / CHECKPOINTS}: there is no training state to continue from")
        record.write(new_folder)
    return config


def _with_overrides(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the config with these values in place of its own.

    Raises:
        ConfigError: an override is none, or its key is not one that may change.
    """
    new = copy.deepcopy(dict(config))
    problems, longer = [], False
    for text in overrides:
        key, separator, value = text.partition("=")
        group, _, name = key.partition(".")
        if not separator or (key not in LENGTH_KEYS and group != "runtime") or name not in new.get(group, {}):
            problems.append(
                f"{text}: may be {', '.join(LENGTH_KEYS)} or a key of runtime; all else would be another run"
            )
            continue
        longer = longer or key in LENGTH_KEYS[:2]
        new[group][name] = yaml.safe_load(value)
    if not problems and not longer:
        problems.append("what is the new length? add trainer.epochs=<n> or trainer.steps=<n>")
    if problems:
        raise ConfigError(problems)
    return new


def _check_length(parent: Record, parts: Parts) -> None:
    """Raise ConfigError if the steps made so far are not those of the longer run."""
    before, after = parent.total_steps, parts.total_steps
    if after <= before:
        raise ConfigError(
            f"trainer.epochs, trainer.steps: {after} steps are not more than the {before} of {parent.run_id}"
        )
    if parent.steps < before and parts.settings.patience == parent.config["trainer"].get("patience"):
        raise ConfigError(
            f"{parent.run_id} ended after {parent.steps} of {before} steps, since its patience had run out; a longer "
            "run would end there, too: add trainer.patience=null, or a larger number"
        )
    factors = [
        [parts.schedule.factor(step, parts.steps_per_epoch, total) for step in range(parent.steps)]
        for total in (before, after)
    ]
    if factors[0] != factors[1]:
        raise ConfigError(
            f"scheduler={parent.config.get('names', {}).get('scheduler', type(parts.schedule).__name__)}: its learning "
            "rates depend on the length of the run, so the steps made so far are not those of a longer one; train that "
            "from the start"
        )
    if type(parts.model).on_train_step is not MultiTaskModel.on_train_step:
        raise ConfigError(
            f"model={parent.config['names']['model']}: what it anneals depends on the length of the run, so the steps "
            "made so far are not those of a longer one; train that from the start"
        )
