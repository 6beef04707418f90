"""Completion of a config whose dataset finds its tasks: `dataset.predict` names columns, and tasks take its place.

The keys of such a dataset, besides those of its class, which are all gone from the resolved config:

    predict: columns, or names of tasks, to predict
    task_finder: importable name of a function that finds a kind of task for each
    name: of the data, after which runs are named

What the user sets below `tasks` counts: a task that has a class keeps it, and single keys, such as
`tasks.sex.class_weights=balanced`, are set on the task that is found. So the run is the same as the one whose tasks are
all written down, as with `variants`.
"""

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from mtlrun.config.arguments import as_plain
from mtlrun.config.nodes import load_option
from mtlrun.config.targets import check_targets, locate
from mtlrun.errors import ConfigError

_KEYS = ("predict", "task_finder", "name")
_COMPRESSED = (".gz", ".bz2", ".xz", ".zip")
_LONGEST_NAME = 60
# Keys of a dataset that follow from its tasks.
_OF_TASKS = re.compile(r"\$\{(oc\.dict\.keys|per_task|sizes|positives):")
_SPLIT = re.compile("train(ing)?|val(id(ation)?)?|dev|test(ing)?", re.IGNORECASE)


@dataclass(frozen=True)
class Finding:
    """A task that was found.

    Args:
        kind: the option of the group `task`; None for a task that the config has already.
        options: keys of the task that follow from the data, such as its number of outputs.
        line: what was found and how to change it, for the user; empty for a task that the config has already.
    """

    kind: str | None
    options: Mapping[str, Any] = field(default_factory=dict)
    line: str = ""


@dataclass(frozen=True)
class Findings:
    """What a task finder returns.

    Args:
        tasks: {task: what was found}, in the order of `predict`.
        keys: keys of the dataset, with values that follow from the data.
    """

    tasks: Mapping[str, Finding]
    keys: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Completed:
    """A config with all of its tasks, still with interpolations.

    Args:
        cfg: without the keys of completion.
        name: of the data; None if its option is its name.
        found: {task: a line on what was found}.
    """

    cfg: DictConfig
    name: str | None = None
    found: Mapping[str, str] = field(default_factory=dict)


def complete(cfg: DictConfig, *, named_by_user: bool) -> Completed:
    """Return a composed config with the tasks that its dataset finds.

    Args:
        cfg: without the `hydra` node.
        named_by_user: whether the option of the group `dataset` is the user's, whose name tells the data.

    Raises:
        ConfigError: `predict` is not usable, or the config names what is no component.
        DataError: the data cannot be read, or no kind of task suits a column.
    """
    if problems := check_targets(OmegaConf.to_container(cfg, resolve=False)):
        raise ConfigError(problems)
    node = cfg.get("dataset")
    if not isinstance(node, DictConfig) or "task_finder" not in node:
        return Completed(cfg)
    given = OmegaConf.to_container(node, resolve=False)
    assert isinstance(given, dict)
    default_name = OmegaConf.is_interpolation(node, "name")
    name = None if named_by_user and default_name else node.get("name")
    tasks = {str(task): item for task, item in (cfg.get("tasks") or DictConfig({})).items_ex(resolve=False)}
    of_tasks = [key for key, value in given.items() if isinstance(value, str) and _OF_TASKS.match(value)]
    keys = {key: _plain(node[key]) for key in node if key not in (*_KEYS, *of_tasks)}
    set_keys = {
        task: OmegaConf.to_container(item, resolve=False)
        for task, item in tasks.items()
        if isinstance(item, DictConfig)
    }
    findings = Findings({})
    if node.predict is not None or not tasks:
        findings = locate(node.task_finder, "dataset.task_finder", Callable[..., Findings])(
            _plain(node.predict), keys, set_keys
        )
    completed = copy.deepcopy(cfg)
    OmegaConf.set_struct(completed, False)
    for key in _KEYS:
        completed.dataset.pop(key, None)
    for key, value in findings.keys.items():
        completed.dataset[key] = _literal(value)
    merged = {}
    for task, finding in findings.tasks.items():
        item = tasks.get(task, {})
        option = [] if finding.kind is None else [load_option("task", finding.kind), _literal(dict(finding.options))]
        merged[task] = OmegaConf.merge(*option, item)
    completed.tasks = merged | {task: item for task, item in tasks.items() if task not in merged}
    lines = {task: finding.line for task, finding in findings.tasks.items() if finding.line}
    return Completed(completed, None if name is None else str(name), lines)


def name_of_files(path: Any) -> str | None:
    """Return what a table is called by its file: the stem; where each split has its file, without the split's name.

    >>> name_of_files("data/penguins.csv.gz")
    'penguins'
    >>> name_of_files({"train": "adult_train.csv", "test": "adult_test.csv"})
    'adult'
    >>> name_of_files({"train": "adult/train.csv", "test": "adult/test.csv"})
    'adult'
    """
    paths = [str(item) for item in path.values()] if isinstance(path, Mapping | DictConfig) else [path]
    if not paths or not all(isinstance(item, str) for item in paths):
        return None
    name = _stem(paths[0])
    if len(paths) > 1:
        words = [word for word in re.split(r"[\W_]+", name) if not _SPLIT.fullmatch(word)]
        name = "_".join(words) or PurePath(paths[0]).parent.name or name
    return re.sub(r"[^\w.]+", "_", name).strip("._")[:_LONGEST_NAME] or None


def _stem(path: str) -> str:
    file = PurePath(path)
    return PurePath(file.stem).stem if file.suffix.lower() in _COMPRESSED else file.stem


def _literal(value: Any) -> Any:
    """Return a value from the data so that no text in it, such as the name of a column, is taken for ${a reference}."""
    if isinstance(value, Mapping):
        return {_literal(key) if isinstance(key, str) else key: _literal(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_literal(item) for item in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    return as_plain(
        OmegaConf.to_container(value, resolve=True) if isinstance(value, DictConfig | ListConfig) else value
    )
