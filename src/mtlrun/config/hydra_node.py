"""The check of what Hydra itself would call: plugins, callbacks and the parts of a logging configuration."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from mtlrun.config.targets import TARGET, locate
from mtlrun.errors import ConfigError

# The classes of launchers and sweepers, and what they take that is built, too.
_PLUGIN = r"hydra\._internal\.core_plugins\.\w+\.[A-Z]\w*|hydra_plugins(\.\w+)+\.[A-Z]\w*|optuna\.samplers\.[A-Z]\w*"
# The classes that a logging configuration may name, and the objects; others are programs.
_LOGGING = (
    "logging.StreamHandler",
    "logging.FileHandler",
    "logging.NullHandler",
    "logging.handlers.RotatingFileHandler",
    "logging.handlers.TimedRotatingFileHandler",
    "logging.Formatter",
    "colorlog.ColoredFormatter",
)
# What Hydra would make or go to before all of a run is checked; mtlrun has a folder for each run.
_FOLDERS = {
    "job.chdir": (False, "a run stays in the current folder, and paths are as seen from there"),
    "run.dir": ("${oc.env:MTLRUN_SCRATCH,.}", "what a run writes is in runtime.root/runtime.study"),
    "output_subdir": (None, "the config of a run is in its folder, in config.yaml and record.json"),
}
_FOLDER = "${hydra.runtime.output_dir}/"
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")


def check_hydra(node: DictConfig) -> None:
    """Check the `hydra` node of a composed config before Hydra acts on it.

    Raises:
        ConfigError: it names what is no plugin, no callback and no part of a logging configuration, or has Hydra make
            or enter folders of a run, in which outputs would be lost, or left by a run that is refused.
    """
    plain = OmegaConf.to_container(node, resolve=False)
    assert isinstance(plain, dict)
    problems = _check_folders(plain)
    for name in ("launcher", "sweeper"):
        if not isinstance(plain.get(name), Mapping):
            problems.append(
                f"hydra.{name}={plain.get(name)}: must be one of Hydra's plugins, as in hydra/{name}=mtlrun"
            )
    if not isinstance(plain.get("callbacks") or {}, Mapping):
        problems.append("hydra.callbacks must be a mapping of names to callbacks")
    for path, key, value in _entries(plain, ("hydra",)):
        place = path[1] if len(path) > 1 else ""
        if place in ("job_logging", "hydra_logging"):
            problems += _check_logging(f"{'.'.join(path)}.{key}", key, value)
        elif key == TARGET and place in ("launcher", "sweeper"):
            if not re.fullmatch(_PLUGIN, str(value)):
                problems.append(f"{'.'.join(path)}.{key}={value}: it is none of Hydra's plugins")
        elif key == TARGET and not (place == "callbacks" and len(path) == 3):
            problems.append(f"{'.'.join(path)}.{key}={value}: nothing stands here that could be called; leave it out")
    if problems:
        raise ConfigError(problems)
    for name, callback in (plain.get("callbacks") or {}).items():
        if isinstance(callback, Mapping) and TARGET in callback:
            locate(OmegaConf.select(node, f"callbacks.{name}.{TARGET}"), f"hydra.callbacks.{name}.{TARGET}", Callback)


def check_plugins(node: DictConfig) -> None:
    """Raise ConfigError unless the launcher and the sweeper are among the plugins that Hydra has found."""
    known = Plugins.instance().class_name_to_class
    problems = []
    for name in ("launcher", "sweeper"):
        target = OmegaConf.select(node, f"{name}.{TARGET}")
        if target not in known:
            problems.append(
                f"hydra.{name}.{TARGET}={target}: no plugin of this name is installed; leave it out, or choose one by "
                f"hydra/{name}=<name>"
            )
    if problems:
        raise ConfigError(problems)


def _check_folders(plain: Mapping[Any, Any]) -> list[str]:
    """Return the problems of keys that have Hydra make or enter folders."""
    problems = []
    for key, (shipped, reason) in _FOLDERS.items():
        value: Any = plain
        for name in key.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None and value != shipped:
            problems.append(f"hydra.{key}={value}: {reason}; leave it out")
    return problems


def _check_logging(place: str, key: str, value: Any) -> list[str]:
    if key in ("()", "class", "queue", "listener") and value not in _LOGGING:
        return [f"{place}={value}: logging may use {', '.join(_LOGGING)}"]
    if isinstance(value, str) and "://" in value and value not in _STREAMS:
        return [f"{place}={value}: logging may refer to {' and '.join(_STREAMS)}"]
    if key == "filename" and (not str(value).startswith(_FOLDER) or ".." in str(value)):
        return [f"{place}={value}: a log file lies in {_FOLDER}; others would be opened before the run is checked"]
    if isinstance(value, str) and "${" in value and not value.startswith(_FOLDER):
        return [f"{place}={value}: in a logging configuration, only a file name in {_FOLDER} is filled in"]
    return []


def _entries(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """Yield (path of the mapping, key, value) for all that stands in a node."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield path, str(key), item
            yield from _entries(item, (*path, str(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield path, str(index), item
            yield from _entries(item, (*path, str(index)))
