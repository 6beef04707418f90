"""Instantiation of config nodes: `build` checks a node against its class's signature and makes the object.

The signature of the class is the schema: names, types and required arguments come from it, so that a user's class is
checked exactly like a shipped one, bounds of numbers included. The constructor checks what is left, with ValueError.
"""

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from mtlrun.config.bounds import FOREIGN
from mtlrun.config.schema import explain_removed
from mtlrun.config.shortening import shorten
from mtlrun.config.suggest import suggest
from mtlrun.config.targets import (
    PARTIAL,
    TARGET,
    expected_bases,
    is_factory,
    item_hint,
    locate,
)
from mtlrun.config.values import find_problems, has_type
from mtlrun.errors import ConfigError


def build(node: Any, key: str, expected: Any = Any, *, partial: bool = False, **given: Any) -> Any:
    """Build the object that `node` describes.

    With `partial`, or the node's `_partial_: true`, return a function instead, which takes the missing arguments and
    builds an object at each call.

    Args:
        node: a mapping with `_target_` (an importable name) and the arguments of that callable, as plain containers.
            Arguments that hold a `_target_` themselves are built first.
        key: the node's place in the config, with which every message begins.
        expected: the class that the node's must derive from; see `mtlrun.config.targets.locate`.
        partial: return a function instead of the object.
        given: further arguments, which the program supplies.

    Raises:
        ConfigError: all problems of the node together: a missing or unknown target, unknown or missing arguments,
            values of the wrong type, or a ValueError of the constructor (of a partial: raised when it is called).
    """
    if not isinstance(node, Mapping) or TARGET not in node:
        raise ConfigError(f"{key} must hold a _target_ (the class to build) and its arguments, found {shorten(node)}")
    target = locate(node[TARGET], f"{key}.{TARGET}", expected)
    partial = partial or _is_partial(node, key, expected)
    return construct(target, arguments_of(node), key, partial=partial, **given)


def construct(
    target: Callable[..., Any], arguments: Mapping[str, Any], key: str, *, partial: bool = False, **given: Any
) -> Any:
    """Build what `build` does, of a class that the program has chosen.

    Args:
        target: the class.
        arguments: those in the config.
        key, partial, given: see `build`.

    Raises:
        ConfigError: see `build`.
    """
    problems = check_arguments(target, arguments, key, given, complete=not partial)
    parameters = constructor_parameters(target)
    built = {}
    for name, value in arguments.items():
        if name not in parameters or not has_type(value, parameters[name].annotation):
            continue  # a problem already
        try:
            built[name] = _build_nested(value, f"{key}.{name}", parameters[name].annotation)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)

    def make(*late: Any, **later: Any) -> Any:
        for name in inspect.signature(target).bind_partial(*late).arguments:
            if name in built:
                raise ConfigError(f"{key}.{name} is filled in by the program; leave it out")
        try:
            return target(*late, **built, **given, **later)
        except ValueError as error:
            raise ConfigError(_prefix(str(error), key, arguments)) from error

    return make if partial else make()


def check_nested(node: Mapping[str, Any], key: str, expected: Any, packages: Sequence[str] | None = None) -> list[str]:
    """Return the problems of what a node names and of what is named below it, without calling any of it.

    Args:
        node: with a `_target_`.
        key, expected: see `build`.
        packages: import only what is in one of these, and look at nothing below the rest; None for no limit.
    """
    if packages is not None and str(node[TARGET]).split(".")[0] not in packages:
        return []
    try:
        target = locate(node[TARGET], f"{key}.{TARGET}", expected)
    except ConfigError as error:
        return error.problems
    parameters = constructor_parameters(target)
    problems = []
    for name, value in arguments_of(node).items():
        hint = parameters[name].annotation if name in parameters else None
        for place, nested, of_nested in _nested_nodes(value, f"{key}.{name}", hint):
            if expected_bases(of_nested):
                problems += check_nested(nested, place, of_nested, packages)
            else:
                problems.append(f"{place}.{TARGET}={nested[TARGET]}: no component stands here; leave it out")
    return problems


def arguments_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a node's class."""
    return {name: value for name, value in node.items() if name not in (TARGET, PARTIAL)}


def check_arguments(
    target: Callable[..., Any],
    arguments: Mapping[str, Any],
    key: str,
    given: Mapping[str, Any] | None = None,
    *,
    complete: bool = True,
) -> list[str]:
    """Return the problems of calling `target` with `arguments` and those in `given`, which the program supplies.

    Unless `complete`, arguments may be missing.
    """
    given = given or {}
    parameters = constructor_parameters(target)
    configurable = [name for name in parameters if name not in given]
    problems = []
    for name, value in arguments.items():
        if name in given:
            problems.append(f"{key}.{name} is filled in by the program and cannot be set")
        elif name not in parameters:
            hint = _hint(name, key, configurable, f"{getattr(target, '__name__', target)} takes")
            if not str(getattr(target, "__module__", "")).startswith("mtlrun."):  # the key may be that of an option
                hint += f"; to leave out what an option sets: ~{key}.{name}"
            problems.append(explain_removed(f"{key}.{name}", value) or f"{key}.{name}: unknown key; {hint}")
        elif wrong := find_problems(value, parameters[name].annotation, f"{key}.{name}"):
            problems += wrong
        elif isinstance(value, Mapping) and value.get(PARTIAL) is not True and is_factory(parameters[name].annotation):
            problems.append(f"{key}.{name} needs _partial_: true; the program adds the arguments that only it knows")
    for name, parameter in parameters.items() if complete else ():
        if parameter.default is inspect.Parameter.empty and name not in arguments and name not in given:
            problems.append(f"{key}.{name} is missing; {getattr(target, '__name__', target)} needs it")
    return problems


@cache
def constructor_parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the named parameters of `target`, with evaluated annotations.

    A class whose constructor passes **kwargs on also takes the arguments of its base classes.
    """
    if not inspect.isclass(target):
        return _signature(target)
    parameters: dict[str, inspect.Parameter] = {}
    for base in inspect.getmro(target):
        if "__init__" not in vars(base) or base is object:
            continue
        constructor = vars(base)["__init__"]
        itself, *_ = inspect.signature(constructor).parameters
        for name, parameter in _signature(constructor).items():
            if name != itself:
                parameters.setdefault(name, parameter)
        kinds = [parameter.kind for parameter in inspect.signature(constructor).parameters.values()]
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            break
    return parameters or _signature(target)  # a class that only has __new__


def _signature(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):  # annotations that only a type checker can evaluate: types stay unchecked
        hints = {}
    module = str(getattr(function, "__module__", ""))
    hints |= next((FOREIGN[package] for package in FOREIGN if f"{module}.".startswith(f"{package}.")), {})
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        name: parameter.replace(annotation=hints.get(name, Any))
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in named
    }


def _is_partial(node: Mapping[str, Any], key: str, expected: Any) -> bool:
    """Return whether a node describes a function that makes objects.

    Raises:
        ConfigError: it does, and an object is needed.
    """
    partial = node.get(PARTIAL, False)
    if not isinstance(partial, bool):
        raise ConfigError(f"{key}.{PARTIAL} must be true or false, found {partial!r}")
    if partial and not any(factory for _, factory in expected_bases(expected)):
        raise ConfigError(f"{key}.{PARTIAL}: an object is needed here, and not what makes one; leave it out")
    return partial


def _build_nested(value: Any, key: str, hint: Any) -> Any:
    if isinstance(value, Mapping):
        if TARGET in value:
            return build(value, key, hint)
        return {name: _build_nested(item, f"{key}.{name}", item_hint(hint, name)) for name, item in value.items()}
    if isinstance(value, list):
        return [_build_nested(item, f"{key}[{index}]", item_hint(hint)) for index, item in enumerate(value)]
    return value


def _nested_nodes(value: Any, key: str, hint: Any) -> Iterator[tuple[str, Mapping[str, Any], Any]]:
    """Yield the nodes in a value that name something: their places, themselves, and what is expected there."""
    if isinstance(value, Mapping):
        if TARGET in value:
            yield key, value, hint
        else:
            for name, item in value.items():
                yield from _nested_nodes(item, f"{key}.{name}", item_hint(hint, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _nested_nodes(item, f"{key}[{index}]", item_hint(hint))


def _hint(name: str, key: str, allowed: Sequence[str], what: str) -> str:
    """Return which argument is meant by a name that a class does not take, or which other options have it."""
    from mtlrun.config.places import hint_at_places  # which reads many files, for this message alone

    elsewhere = hint_at_places(name, {key.split(".")[0]: None})
    return elsewhere + suggest("" if elsewhere else name, allowed, what)


def _prefix(message: str, key: str, arguments: Mapping[str, Any]) -> str:
    """Put the key before a constructor's message: `alpha must be ...` becomes `weighting.alpha must be ...`."""
    first = message.split(maxsplit=1)[0].rstrip(":") if message else ""
    return f"{key}.{message}" if first.split(".")[0] in arguments else f"{key}: {message}"
