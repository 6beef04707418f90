"""What `_target_` may name: a component, where one stands, and nothing else.

A config is a program: what it names is imported and called. So all of its `_target_`s are checked before any is
called: each must stand where a component is expected and name a class that derives from what is expected there, or a
function marked by `component`. Python's modules are refused without a look at what is in them. What a component's
module does when it is imported cannot be checked: a config of a stranger's, with classes of theirs, is code of theirs.
"""

import inspect
import pkgutil
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mtlrun.errors import ConfigError

#: The keys of a config node that are instructions and no arguments.
TARGET, PARTIAL = "_target_", "_partial_"

# The nodes of a config that components stand in; below `tasks`, one for each task.
_PLACES = ("dataset", "model", "match_parameters", "backbone", "weighting", "optimizer", "scheduler", "tasks")
# What an argument without an annotation may be built from: importable names of the base classes of components.
_BASES = frozenset({
    "mtlrun.datasets.base.MultiTaskDataset",
    "mtlrun.datasets.batches.sampling.Sampling",
    "mtlrun.tasks.base.Task",
    "mtlrun.training.optim.Schedule",
    "torch.nn.modules.module.Module",
    "torch.optim.optimizer.Optimizer",
})  # fmt: skip
_MARK = "__mtlrun_component__"

Function = typing.TypeVar("Function", bound=Callable[..., Any])


def component(function: Function) -> Function:
    """Mark a function as one that a config may name by `_target_`, and return it; classes need no mark.

    A function is for what takes a function, such as `tasks.<t>.function`, or for what makes an object, such as a head.
    """
    setattr(function, _MARK, True)
    return function


def check_targets(config: Any) -> list[str]:
    """Return the problems of all `_target_`s of a config that can be found without importing anything.

    Args:
        config: plain containers; interpolations that are not resolved yet are not looked at.
    """
    problems = []
    for key, node in _nodes_with_target(config, ""):
        name = node[TARGET]
        if key.split(".")[0] not in _PLACES or key in ("tasks", ""):
            where = f"{key}.{TARGET}" if key else TARGET
            problems.append(f"{where}={name}: no component stands here, and nothing is called; leave it out")
        elif not (isinstance(name, str) and "${" in name) and (problem := _problem_of_name(name)):
            problems.append(f"{key}.{TARGET}={name}: {problem}")
    return problems


def named_packages(config: Any) -> set[str]:
    """Return the packages of all `_target_`s of a config."""
    return {str(node[TARGET]).split(".")[0] for _, node in _nodes_with_target(config, "")}


def locate(name: Any, key: str, expected: Any = Any) -> Callable[..., Any]:
    """Import what `name` names, and return it if it may stand at `key`.

    Args:
        name: such as `package.module.Class`.
        key: the place of the name in the config, with which every message begins.
        expected: a class that it must derive from, or `Callable[..., Class]` for what makes objects of one; `Any` for
            any component.

    Raises:
        ConfigError: it is not such a name, cannot be imported, or may not stand here.
    """
    if problem := _problem_of_name(name):
        raise ConfigError(f"{key}={name}: {problem}")
    try:
        target = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{key}={name}: cannot be imported ({error}); your classes must be in an installed package, "
            "in the current folder or beside the folder given by --config-dir"
        ) from error
    if not _may_stand(target, expected):
        names = [base.__name__ for base, _ in expected_bases(expected) if base is not None]
        what = f"a class that derives from {' or '.join(names)}" if names else "the class of a component"
        found = "another class" if inspect.isclass(target) else f"a {type(target).__name__}"
        raise ConfigError(f"{key}={name} must be {what}, or a function marked by @mtlrun.component, found {found}")
    return typing.cast(Callable[..., Any], target)


def expected_bases(hint: Any) -> list[tuple[type | None, bool]]:
    """Return what a component at an argument with this annotation may derive from; empty if none can stand there.

    Each with whether it is to be a factory: `Callable[..., Base]`. None as a base for any component.
    """
    if hint is Any:
        return [(None, False), (None, True)]
    if len(options(hint)) > 1:
        return [base for option in options(hint) for base in expected_bases(option)]
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Callable:
        made = inner[1] if inner else Any
        return [(made if inspect.isclass(made) else None, True)]
    return [(origin or hint, False)] if is_object(hint) else []


def item_hint(hint: Any, key: str | None = None) -> Any:
    """Return the annotation of the items of the list, or with a `key` of the mapping, that `hint` allows.

    `Any` if they have none; None if `hint` allows no such container.
    """
    containers = (list, tuple, Sequence) if key is None else (dict, Mapping)
    for option in options(hint):
        if option is Any or (typing.get_origin(option) or option) in containers:
            inner = [item for item in typing.get_args(option) if item is not Ellipsis]
            return inner[-1] if inner else Any
    return None


def options(hint: Any) -> tuple[Any, ...]:
    """Return the types of a union, or the one type."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def is_factory(hint: Any) -> bool:
    """Return True if `hint` is a function that the program calls."""
    return any(typing.get_origin(option) is Callable for option in options(hint))


def is_object(hint: Any) -> bool:
    """Return True if `hint` is a class that no plain config value is an instance of."""
    plain = (int, float, bool, str, type(None), list, tuple, dict, Sequence, Mapping, object)
    container = typing.get_origin(hint) or hint
    if container is typing.Annotated:
        return is_object(typing.get_args(hint)[0])
    return inspect.isclass(container) and container not in plain and container is not types.UnionType


def _may_stand(target: Any, expected: Any) -> bool:
    allowed = [base for base, _ in expected_bases(expected)]
    if inspect.isfunction(target):
        return bool(allowed) and getattr(target, _MARK, False) is True
    if not inspect.isclass(target) or isinstance(target, types.GenericAlias):
        return False
    bases = inspect.getmro(target)
    names = {f"{base.__module__}.{base.__qualname__}" for base in bases}
    return any(names & _BASES if base is None else base in bases for base in allowed)


def _problem_of_name(name: Any) -> str | None:
    """Return why a name is none of a component's, or None; imports nothing."""
    if not isinstance(name, str):
        return "it must be the importable name of a class"
    if not re.fullmatch(r"\w+(\.\w+)+", name):
        return "it must be the importable name of a class, as in package.module.Class"
    package = name.split(".")[0]
    if package in sys.stdlib_module_names or package in sys.builtin_module_names:
        return f"{package} is a module of Python, which has no components"
    return None


def _nodes_with_target(value: Any, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, Mapping):
        if TARGET in value:
            yield key, value
        for name, item in value.items():
            yield from _nodes_with_target(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _nodes_with_target(item, f"{key}[{index}]")
