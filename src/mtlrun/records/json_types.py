"""Comparison of what was read from JSON with annotations of types."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache
from math import nan
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

_Reader = Callable[[Any], Any]


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
    return _reader(hint)(value)


@cache
def _reader(hint: Any) -> _Reader:
    """Return the function that reads values of one annotation, which is looked into only once."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return _read_any
    if hint is float:
        return _read_float
    if origin is Literal:
        return lambda value: _checked(value, isinstance(value, str) and value in arguments)
    if origin is NotRequired:
        return _reader(arguments[0])
    if origin is Annotated:
        readers = [_reader(argument) for argument in arguments]
        return lambda value: _read_in_turn(readers, value)
    if origin in (UnionType, Union):
        (other,) = (_reader(argument) for argument in arguments if argument is not NoneType)
        return lambda value: None if value is None else other(value)
    if origin is list:
        item = _reader(arguments[0])
        return lambda value: [item(element) for element in _checked(value, isinstance(value, list))]
    if origin is tuple:
        items = [_reader(argument) for argument in arguments]
        return lambda value: _read_tuple(items, value)
    if origin is dict:
        of_value = _reader(arguments[1])
        if of_value is _read_any:
            return lambda value: _checked(value, isinstance(value, dict))
        return lambda value: {
            key: of_value(element) for key, element in _checked(value, isinstance(value, dict)).items()
        }
    if is_typeddict(hint):
        return _keys_reader(hint, hint.__required_keys__)
    if dataclasses.is_dataclass(hint):
        defaults = (dataclasses.MISSING, dataclasses.MISSING)
        required = {item.name for item in dataclasses.fields(hint) if (item.default, item.default_factory) == defaults}
        return _keys_reader(hint, required)
    return lambda value: _checked(value, type(value) is hint)


def _read_any(value: Any) -> Any:
    return value


def _read_float(value: Any) -> Any:
    return nan if value is None else _checked(value, type(value) in (int, float))


def _read_in_turn(readers: list[_Reader], value: Any) -> Any:
    for reader in readers:
        value = reader(value)
    return value


def _read_tuple(readers: list[_Reader], value: Any) -> list[Any]:
    items = _checked(value, isinstance(value, list) and len(value) == len(readers))
    return [reader(item) for reader, item in zip(readers, items, strict=True)]


def _keys_reader(hint: Any, required: set[str] | frozenset[str]) -> _Reader:
    """Return the reader of a dictionary whose values fit those of the annotated keys; others may have any value."""
    readers = {key: _reader(value) for key, value in get_type_hints(hint, include_extras=True).items()}

    def read(value: Any) -> dict[str, Any]:
        _checked(value, isinstance(value, Mapping) and required <= value.keys())
        return {key: readers[key](item) if key in readers else item for key, item in value.items()}

    return read


def _checked(value: Any, fits: bool) -> Any:
    if not fits:
        raise TypeError
    return value
