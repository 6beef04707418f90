"""Comparison of what was read from JSON with annotations of types."""

import dataclasses
from collections.abc import Mapping
from math import nan
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict


def read_as(hint: Any, value: Any) -> Any:
    """Return `value` if it is what an annotation describes; null is NaN where a number belongs.

    Args:
        hint: `Any`, `str`, `int`, `float`, `bool`, a `TypedDict`, a dataclass, which stands for a dictionary of its
            fields, and of these lists, tuples, which are lists in JSON, dictionaries, literals, and unions with None.
            All arguments of `Annotated[...]` must fit.
        value: what `json.loads` returned.

    Raises:
        TypeError: it is something else.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if hint is float:
        return nan if value is None else _checked(value, type(value) in (int, float))
    if origin is Literal:
        return _checked(value, isinstance(value, str) and value in arguments)
    if origin is NotRequired:
        return read_as(arguments[0], value)
    if origin is Annotated:
        for argument in arguments:
            value = read_as(argument, value)
        return value
    if origin in (UnionType, Union):
        (other,) = (argument for argument in arguments if argument is not NoneType)
        return None if value is None else read_as(other, value)
    if origin is list:
        return [read_as(arguments[0], item) for item in _checked(value, isinstance(value, list))]
    if origin is tuple:
        items = _checked(value, isinstance(value, list) and len(value) == len(arguments))
        return [read_as(argument, item) for argument, item in zip(arguments, items, strict=True)]
    if origin is dict:
        items = _checked(value, isinstance(value, dict)).items()
        return {key: read_as(arguments[1], item) for key, item in items}
    if is_typeddict(hint):
        return _read_keys(hint, value, hint.__required_keys__)
    if dataclasses.is_dataclass(hint):
        defaults = (dataclasses.MISSING, dataclasses.MISSING)
        required = {item.name for item in dataclasses.fields(hint) if (item.default, item.default_factory) == defaults}
        return _read_keys(hint, value, required)
    return _checked(value, type(value) is hint)


def _read_keys(hint: Any, value: Any, required: set[str] | frozenset[str]) -> dict[str, Any]:
    """Return a dictionary whose values fit those of the annotated keys; others may have any value."""
    hints = get_type_hints(hint, include_extras=True)
    _checked(value, isinstance(value, Mapping) and required <= value.keys())
    return {key: read_as(hints.get(key, Any), item) for key, item in value.items()}


def _checked(value: Any, fits: bool) -> Any:
    if not fits:
        raise TypeError
    return value
