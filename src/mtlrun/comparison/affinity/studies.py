"""Commands that train groups of tasks, each group as a run of its own for every seed."""

import re
from collections.abc import Collection, Iterable, Sequence
from itertools import combinations
from typing import Any

from mtlrun.comparison.affinity.methods import by_method, tasks_of, widest
from mtlrun.comparison.commands import CIRCUMSTANCES, REPEATED, SHARING, as_command, override_values
from mtlrun.comparison.data_sets import dataset_of
from mtlrun.comparison.groups import ConfigGroup
from mtlrun.comparison.run import Run

# Overrides that are given anew, or are about the circumstances of a run.
_GIVEN_ANEW = rf"{REPEATED}|{CIRCUMSTANCES}|dataset\.(predict|exclude)=.*|runtime\.study=.*"
_ADDED = re.compile(r"\+(?:task@)?tasks\.(\w+)=")


def template(groups: Sequence[ConfigGroup], label: str = "") -> ConfigGroup:
    """Return the config as which groups of tasks are trained: one of this label, or else hard sharing.

    Args:
        groups: the runs on one data set; only those with the most tasks are considered.
        label: of a method, as `by_method` gives it; "" for any.
    """
    candidates = widest(groups)[0]
    labeled = [group for name, of_method in by_method(candidates) if label and name == label for group in of_method]

    def preference(group: ConfigGroup) -> tuple[bool, bool]:
        return group.runs[0].lookup("model") == "hard", group.runs[0].lookup("weighting") == "equal"

    return max(labeled or candidates, key=preference)


def pair_commands(groups: Sequence[ConfigGroup], study: str) -> list[str]:
    """Return a command that trains each task alone, and one for each pair of tasks; see `template`."""
    group = template(groups)
    tasks = tasks_of(group)
    alone = _command(group, tasks, study, single=True)
    return [alone, *group_commands(group, combinations(tasks, 2), study)]


def group_commands(group: ConfigGroup, networks: Iterable[Collection[str]], study: str) -> list[str]:
    """Return a command for each network, which trains its tasks with the other keys and the seeds of some runs.

    Args:
        group: runs with all of the tasks.
        networks: the tasks of each.
        study: name of the study that the new runs are part of.
    """
    return [_command(group, network, study, single=len(network) == 1) for network in networks]


def _command(group: ConfigGroup, network: Collection[str], study: str, *, single: bool) -> str:
    """Return the command that trains some of the tasks; `single`: a network of its own for each."""
    run = group.runs[0]
    overrides = run.record.overrides
    left_out = [task for task in tasks_of(group) if task not in network]
    about_others = [rf"(task@)?tasks\.{re.escape(task)}([.=].*|$)" for task in left_out]
    dropped = "|".join([_GIVEN_ANEW, *[SHARING] * single, *about_others])
    values = override_values(overrides, re.compile(dropped))
    fixed: dict[str, list[str]] = {"runtime.study": [study]}
    if single:
        fixed |= {"model": ["single"], "weighting": ["equal"]}
    seeds = sorted({run.lookup("seed") for run in group.runs}, key=lambda seed: (str(type(seed)), seed))
    repeated = {"seed": list(map(str, seeds))}
    folds = sorted({run.fold for run in group.runs if run.fold is not None})
    if folds:
        repeated["dataset.fold"] = list(map(str, folds))
    return as_command(fixed | values | _selected(run, network, left_out) | repeated)


def _selected(run: Run, network: Collection[str], left_out: Sequence[str]) -> dict[str, list[str]]:
    """Return the overrides by which a run has these tasks only, and the same inputs as before."""
    dataset = dataset_of(run.record)
    targets = dataset.get("targets") or {}
    words: dict[str, list[str]] = {}
    if run.record.config.get("found"):  # tasks that were found for dataset.predict
        words["dataset.predict"] = [_listed(list(network))]
    else:
        added = {match[1] for word in run.record.overrides if (match := _ADDED.match(word))}
        words |= {f"~tasks.{task}": [] for task in left_out if task not in added}
    excluded = [str(column) for column in dataset.get("exclude") or ()]
    if "exclude" in dataset and dataset.get("inputs") is None:
        # A column of a table that is no target anymore would become an input, and give the other labels away.
        columns = [column for task in left_out for column in _columns(targets.get(task, task))]
        excluded += [column for column in columns if column not in excluded]
    return words | ({"dataset.exclude": [_listed(excluded)]} if excluded else {})


def _columns(target: Any) -> list[str]:
    return [str(column) for column in target] if isinstance(target, list | tuple) else [str(target)]


def _listed(value: Any) -> str:
    """Return a name, or a list of names, as Hydra reads it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_listed, value))}]"
    text = str(value)
    return text if re.fullmatch(r"[A-Za-z_]\w*", text) else "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
