"""Composition with Hydra, and resolution into the plain config that a run is built from."""

import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import InterpolationKeyError, MissingMandatoryValue, OmegaConfBaseException

from mtlrun.config.aliases import canonical
from mtlrun.config.arguments import as_plain, expand_home, quote_overrides
from mtlrun.config.completion import complete, name_of_files
from mtlrun.config.diagnosis import diagnose, explain_list, first_line
from mtlrun.config.hydra_node import check_hydra, check_plugins
from mtlrun.config.options import list_groups, loss_scalings, shipped, sweepable
from mtlrun.config.root import explain_missing
from mtlrun.config.schema import (
    CONFIG_MODULE,
    FILLED_IN,
    GROUPS,
    SIZE_KEYS,
    explain_task_name,
    how_to_add_task,
    unknown_task,
)
from mtlrun.config.variants import check_variants, value_of_variant, without_variants
from mtlrun.errors import ConfigError

#: The environment variable that the shipped config takes the folder from in which Hydra writes.
SCRATCH = "MTLRUN_SCRATCH"

_NOT_AVAILABLE = r"provider=.*, path=(.*) is not available\."


def register_with_hydra() -> None:
    """Register what the shipped YAML refers to, and the options that have no file.

    `${per_task:key}` is the list of `tasks.<t>.<key>` over all tasks, in their order; `${sizes:}` that of their numbers
    of classes, levels or labels, null where they are not given; `${positives:}` that of the positive classes of binary
    tasks; `${all:group}` a sweep over the shipped options of a group that ask for no key besides; `${groups:}` the text
    of --help that lists the options of each group; `${variant:value}` the value of a key unless the node's variant has
    another; `${name_of_files:path}` what a table is called by its file.
    `weighting/losses=<name>` is an option for each weighting that can scale losses.
    """

    def per_task(key: str, *, _root_: DictConfig) -> list[Any]:
        return [_root_.tasks[name][key] for name in _root_.tasks]

    def sizes(*, _root_: DictConfig) -> list[int | None]:
        nodes = [_root_.tasks[name] for name in _root_.tasks]
        given = [[node[key] for key in SIZE_KEYS if key in node] for node in nodes]
        return [next((size for size in one if type(size) is int), None) for one in given]

    def positives(*, _root_: DictConfig) -> list[Any]:
        given = [_root_.tasks[name].get("positive") for name in _root_.tasks]
        return [None if isinstance(label, bool) else label for label in given]  # which the task refuses

    def every_option(group: str) -> str:
        return ",".join(sweepable(group))

    def groups(*, _root_: DictConfig) -> str:
        sources = _root_.hydra.runtime.config_sources
        return list_groups([Path(source.path) for source in sources if source.schema == "file"])

    OmegaConf.register_new_resolver("name_of_files", name_of_files, replace=True)
    OmegaConf.register_new_resolver("per_task", per_task, replace=True)
    OmegaConf.register_new_resolver("variant", value_of_variant, replace=True)
    OmegaConf.register_new_resolver("sizes", sizes, replace=True)
    OmegaConf.register_new_resolver("positives", positives, replace=True)
    OmegaConf.register_new_resolver("all", every_option, replace=True)
    OmegaConf.register_new_resolver("groups", groups, replace=True)
    for name in loss_scalings():
        node = {"defaults": [f"/weighting/{name}@_here_"]}
        ConfigStore.instance().store(group="weighting/losses", name=name, node=node)


def resolve(cfg: DictConfig, choices: Mapping[str, Any], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return the config as plain containers with all interpolations resolved and the names of the chosen options.

    Tasks that `dataset.predict` asks for are found in the data and filled in: see `mtlrun.config.completion`.

    Args:
        cfg: the composed config without the `hydra` node.
        choices: the option chosen in each group, as in `hydra.runtime.choices`.
        overrides: of the command line, which are in the config already; one that deletes a task must not be in vain.

    Raises:
        ConfigError: an interpolation fails, a mandatory value is missing, a variant is unknown, or `dataset.predict`
            asks for a task that an override deletes.
        DataError: tasks are to be found in data that cannot be read, or cannot be predicted.
    """
    for key, what in FILLED_IN.items():
        if key in cfg:
            raise ConfigError(f"{key}: unknown key; the program fills in {what}")
    names = {group: choices.get(group) for group in ("dataset", "model", "backbone", "weighting")}
    if "match_parameters" in cfg:
        names["match_parameters"] = choices.get("model@match_parameters")
    problems = [explain_missing(key) for key in GROUPS if key not in cfg]
    merged = [group for group in GROUPS if group in cfg and group not in choices]  # Hydra's choices have no lists
    problems += [f"{group}: {explain_list(group)}" for group in merged]
    if problems := problems + check_variants(cfg):
        raise ConfigError(problems)
    try:
        completed = complete(cfg, named_by_user=names["dataset"] not in shipped("dataset"))
    except OmegaConfBaseException as error:
        raise ConfigError(_unresolved(error)) from error
    check_deleted(completed.found, overrides)
    cfg = completed.cfg
    if completed.name is not None:
        names["data"] = completed.name
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        incomplete = _incomplete_tasks(cfg)
        if incomplete:  # the lists of what the tasks are cannot be made
            raise ConfigError(incomplete) from error
        raise ConfigError(_unresolved(error)) from error
    plain = without_variants(plain)
    assert isinstance(plain, dict)
    config: dict[str, Any] = {"names": names, **as_plain(plain)}
    if isinstance(config.get("runtime"), dict) and config["runtime"].get("root") == "~":
        config["runtime"]["root"] = os.path.expanduser("~")
    if completed.found:
        config["found"] = dict(completed.found)
    return config


def check_deleted(found: Iterable[str], overrides: Sequence[str]) -> None:
    """Raise ConfigError if an override deletes a task that `dataset.predict` asks for, which would be in vain.

    Args:
        found: the tasks that `dataset.predict` asks for.
        overrides: of the command line.
    """
    deleted = {override[1:].partition("=")[0] for override in overrides if override.startswith("~tasks.")}
    if problems := [
        f"~tasks.{task}: dataset.predict asks for this task; leave it out there"
        for task in found
        if f"tasks.{task}" in deleted
    ]:
        raise ConfigError(problems)


def _unresolved(error: OmegaConfBaseException) -> str:
    """Return what is wrong with a value that cannot be resolved."""
    problem = f"{error.full_key or 'config'}: {str(error).splitlines()[0]}"
    if isinstance(error, InterpolationKeyError):
        problem += "; a text that has ${ in it is written with a backslash before it"
    if isinstance(error, MissingMandatoryValue):
        problem = f"{error.full_key} must be given, as in {error.full_key}=<value>; ??? stands for what is missing"
    return problem


def _incomplete_tasks(cfg: DictConfig) -> list[str]:
    """Return the problems of tasks without a class."""
    tasks = OmegaConf.to_container(cfg.get("tasks") or OmegaConf.create({}), resolve=False)
    assert isinstance(tasks, dict)
    known = [str(name) for name, node in tasks.items() if isinstance(node, dict) and "_target_" in node]
    problems = []
    for name, node in tasks.items():
        if not isinstance(node, dict):
            problems.append(how_to_add_task(str(name), node))
        elif str(name) not in known:
            below = [str(key) for key, value in node.items() if isinstance(value, dict) and "_target_" in value]
            problems.append(explain_task_name(f"{name!s}.{below[0]}") if below else unknown_task(str(name), known))
    return problems


def compose(overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> dict[str, Any]:
    """Compose and resolve the shipped configs in Python, as the command line would.

    >>> compose(["model=hard", "weighting=gradnorm"])["names"]["weighting"]
    'gradnorm'

    Args:
        overrides: as on the command line.
        config_dir: the folder of the user's YAML, as given by `--config-dir`.

    Raises:
        ConfigError: with all problems of the overrides.
    """
    overrides = quote_overrides(canonical(overrides)[0])
    config_dir = expand_home(config_dir)
    try:
        cfg = compose_with_hydra(overrides, config_dir)
    except (HydraException, OmegaConfBaseException) as error:
        found = diagnose(overrides, partial(compose_with_hydra, config_dir=config_dir))
        raise ConfigError(found.problems or first_line(error)) from error
    choices = cfg.hydra.runtime.choices
    return resolve(without_hydra(cfg), choices, overrides)


def compose_with_hydra(overrides: Sequence[str], config_dir: str | Path | None = None) -> DictConfig:
    """Compose with Hydra's API, including the `hydra` node; Hydra's exceptions are raised.

    Raises:
        ConfigError: Hydra would call what it must not; see `check_hydra`.
    """
    if config_dir is not None:
        make_importable(config_dir)
    register_with_hydra()
    GlobalHydra.instance().clear()
    searchpath = [] if config_dir is None else [f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"]
    with hydra.initialize_config_module(CONFIG_MODULE, version_base="1.3"), _whole_searchpath():
        try:
            cfg = hydra.compose("config", overrides=[*searchpath, *overrides], return_hydra_config=True)
        except ValueError as error:  # of group=null
            raise HydraException(str(error)) from error
    check_hydra(cfg.hydra)
    return cfg


def check_sweep(overrides: Sequence[str], config_dir: str | Path | None) -> None:
    """Check what Hydra's runner would call for these overrides, if they can be composed.

    Raises:
        ConfigError: see `check_hydra`.
    """
    register_with_hydra()
    GlobalHydra.instance().clear()
    searchpath = [] if config_dir is None else [f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"]
    with (
        suppress(HydraException, OmegaConfBaseException, ValueError),
        hydra.initialize_config_module(CONFIG_MODULE, version_base="1.3"),
        _whole_searchpath(),
    ):
        loader = GlobalHydra.instance().config_loader()
        sweep = [*searchpath, *overrides]
        cfg = loader.load_configuration("config", sweep, RunMode.MULTIRUN, from_shell=False)
        check_hydra(cfg.hydra)
        check_plugins(cfg.hydra)


@contextmanager
def _whole_searchpath() -> Iterator[None]:
    """Refuse an entry of `hydra.searchpath` that has no configs, of which Hydra only warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=_NOT_AVAILABLE)
        try:
            yield
        except UserWarning as warning:
            path = re.sub(_NOT_AVAILABLE, r"\1", str(warning))
            raise ConfigError(
                f"hydra.searchpath: there are no configs in {path}; write file://<folder> or pkg://<package>, or name "
                "the folder by --config-dir"
            ) from warning


def compose_single_run(overrides: Sequence[str], config_dir: str | Path | None) -> DictConfig | None:
    """Return the config of a run for which nothing of Hydra's runner is needed, and let `HydraConfig` know it.

    The runner composes every config twice, the first time only to learn whether it is a sweep. None for a sweep, for a
    config that cannot be composed, and for one that asks the runner for more: callbacks, logging, folders, variables.
    """
    try:
        cfg = compose_with_hydra(overrides, config_dir)
    except (HydraException, OmegaConfBaseException):
        return None
    node = cfg.hydra
    if (
        node.mode == RunMode.MULTIRUN
        or (config_dir is not None and not Path(config_dir).is_dir())
        or node.callbacks
        or node.verbose
        or node.job.env_set
        or node.job.chdir
        or node.output_subdir is not None
        or node.run.dir != os.environ.get(SCRATCH)
        or any(logs is None or logs.root is not None for logs in (node.hydra_logging, node.job_logging))
    ):
        return None
    with read_write(node.runtime):
        node.runtime.output_dir = node.run.dir
    HydraConfig.instance().set_config(cfg)
    return without_hydra(cfg)


def make_importable(config_dir: str | Path | None) -> None:
    """Let `_target_` name classes in the current folder, and in the folder beside --config-dir.

    They are appended, so that the user's files never hide an installed package.
    """
    folders = [Path.cwd()] + ([] if config_dir is None else [Path(config_dir).resolve().parent])
    sys.path += [str(folder) for folder in folders if str(folder) not in sys.path]


def without_hydra(cfg: DictConfig) -> DictConfig:
    """Return a composed config without the `hydra` node."""
    return DictConfig({key: value for key, value in cfg.items_ex(resolve=False) if key != "hydra"})
