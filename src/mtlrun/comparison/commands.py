"""Commands that make runs: those that a comparison lacks, and those that it has."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from mtlrun.comparison.run import Run

#: Overrides about how tasks share a network, which do not apply to a network of one task, as a pattern.
SHARING = (
    r"(model|weighting|match_parameters|model@match_parameters|weighting/losses)([./=].*|$)|tasks\.[^.]+\.weight=.*"
    r"|trainer\.log_affinity_every=.*"
)
#: Overrides that tell the repetitions of a config apart, as a pattern.
REPEATED = r"(seed|hydra)([./=].*|$)|dataset\.fold=.*"
#: Overrides that cannot change what a run computes or keeps, as a pattern.
CIRCUMSTANCES = r"runtime\.(rerun|quiet|checkpoint_minutes)=.*"
_NOT_OF_BASELINE = re.compile(rf"{SHARING}|{REPEATED}|{CIRCUMSTANCES}|runtime\.predictions=.*")
_NOT_OF_TRAINING = re.compile(rf"{CIRCUMSTANCES}|runtime\.num_workers=.*")
_STUDY = re.compile(r"\+?study=")


def single_task_commands(runs: Sequence[Run], seeds: Sequence[Any], folds: Sequence[Any] = ()) -> list[str]:
    """Return the commands that make the single-task baselines of some runs; as few as there can be.

    Args:
        runs: that lack a baseline.
        seeds: of the baselines.
        folds: of cross-validation, if there are any.
    """
    fixed = {"model": ["single"], "weighting": ["equal"], "seed": list(map(str, seeds))}
    if folds:
        fixed["dataset.fold"] = list(map(str, folds))
    distinct = {
        repr(values): values for values in (override_values(run.record.overrides, _NOT_OF_BASELINE) for run in runs)
    }
    return [as_command(fixed | values) for values in _merge(list(distinct.values()))]


def training_commands(runs: Sequence[Run]) -> list[str]:
    """Return commands that train exactly these runs again, by their overrides; as few as are found."""
    distinct: dict[str, dict[str, list[str]]] = {}
    extensions: dict[str, None] = {}
    for run in runs:
        record = run.record
        if record.parent is not None:
            words = ["mtlrun", "extend", str(record.parent.get("folder")), *record.overrides]
            extensions[shlex.join(words)] = None
        else:
            values = override_values(record.overrides, _NOT_OF_TRAINING)
            distinct[repr(sorted(values.items()))] = values
    commands = list(distinct.values())
    while len(merged := _merge(commands)) < len(commands):
        commands = merged
    return [*map(as_command, commands), *extensions]


def override_values(overrides: Sequence[str], dropped: re.Pattern[str]) -> dict[str, list[str]]:
    """Return {key: [value]} of overrides, without "=" no value; a study sweeps over nothing then.

    Args:
        overrides: in the record of a run.
        dropped: matches those that are left out, without the + or ~ that they begin with.
    """
    values: dict[str, list[str]] = {}
    for override in overrides:
        if not dropped.fullmatch(override.lstrip("+~")):
            key, sign, value = override.partition("=")
            values[key] = [value] if sign else []
    if any(_STUDY.match(override) for override in overrides):  # what the study sweeps over is among the overrides
        values |= {f"hydra.sweeper.{key}": ["null"] for key in ("params", "runs", "exclude")}
    return values


def _merge(commands: Sequence[Mapping[str, list[str]]]) -> list[dict[str, list[str]]]:
    """Return commands that make the same runs; those that differ in the value of one key are one."""
    merged: list[dict[str, list[str]]] = []
    for command in commands:
        for other in merged:
            if command.keys() == other.keys():
                differing = [key for key in command if command[key] != other[key]]
                if len(differing) == 1 and command[differing[0]] and differing[0] not in ("study", "+study"):
                    other[differing[0]] = [*other[differing[0]], *command[differing[0]]]
                    break
        else:
            merged.append(dict(command))
    return merged


def as_command(values: Mapping[str, list[str]]) -> str:
    """Return the command with these overrides, a sweep if a key has several values."""
    words = [f"{key}={','.join(found)}" if found else key for key, found in values.items()]
    sweeps = any(len(found) > 1 for found in values.values())
    return " ".join(["mtlrun", *["-m"] * sweeps, *map(shlex.quote, words)])
