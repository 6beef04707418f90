"""Values of a config against the annotations of the arguments that they are for: types, and bounds of numbers."""

import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from mtlrun.config.bounds import bounds_of, is_number, violations
from mtlrun.config.checks import quotes_advice
from mtlrun.config.shortening import shorten
from mtlrun.config.targets import TARGET, expected_bases, is_factory, is_object, options

_WORDS = {bool: ("true or false", "booleans"), str: ("a text", "texts"), type(None): ("null", "null")}


def find_problems(value: Any, hint: Any, key: str) -> list[str]:
    """Return what is wrong with a value for an argument of type `hint`; nodes with a `_target_` are not looked into.

    Args:
        value: of a resolved config.
        hint: an annotation; what is unknown, or for callers in Python, accepts any value.
        key: where the value stands in the config, with which every problem begins.
    """
    if not has_type(value, hint):
        return _mismatches(value, hint, key)
    return list(violations(value, hint, key))


def has_type(value: Any, hint: Any) -> bool:
    """Return True if a config value may be passed for `hint`, whatever the bounds of numbers."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return has_type(value, inner[0])
    if hint is Any:
        return True
    if isinstance(value, Mapping) and TARGET in value:  # whether it names what may stand here is `locate`'s question
        return bool(expected_bases(hint))
    if origin in (typing.Union, types.UnionType):
        return any(has_type(value, option) for option in inner)
    if origin is typing.Literal:
        return value in inner
    if hint is None or hint is type(None):
        return value is None
    if hint is bool or hint is str:
        return isinstance(value, hint)
    if hint is int:
        return is_number(value) and isinstance(value, int)
    if hint is float:
        return is_number(value)
    container = origin or hint
    if container is tuple:
        if not isinstance(value, list):
            return False
        if inner and inner[-1] is not Ellipsis:
            return len(value) == len(inner) and all(map(has_type, value, inner))
        return all(has_type(item, inner[0]) for item in value) if inner else True
    if container in (list, Sequence):
        return isinstance(value, list) and all(has_type(item, inner[0]) for item in value if inner)
    if container in (dict, Mapping):
        return isinstance(value, Mapping) and all(has_type(item, inner[1]) for item in value.values() if inner)
    # A class: the config can only describe it by a `_target_`, which was accepted above.
    return not is_object(hint)


def _mismatches(value: Any, hint: Any, key: str) -> list[str]:
    """Return the problems of a value that does not match: one for each wrong entry of a mapping, else one."""
    mapping = next((option for option in options(hint) if _container(option) in (dict, Mapping)), None)
    if isinstance(value, Mapping) and mapping is not None:
        of_entries = typing.get_args(mapping)[1]
        wrong = {name: item for name, item in value.items() if not has_type(item, of_entries)}
        return [problem for name, item in wrong.items() for problem in _mismatches(item, of_entries, f"{key}.{name}")]
    advice = next((f"; {quotes_advice(item, key, listed)}" for item, listed in _misread(value, hint)), "")
    if isinstance(value, str) and any(_container(option) in (list, Sequence) for option in options(hint)):
        advice = f", as in '{key}=[{value}]'" if re.fullmatch(r"[\w.-]{1,100}", value, re.ASCII) else advice
    return [f"{key} must be {_join(_describe(hint))}, found {shorten(value)}{advice}"]


def _misread(value: Any, hint: Any) -> Iterator[tuple[Any, bool]]:
    """Yield what stands where a text may stand and is none, with whether it is an item of a list."""
    if isinstance(value, list):
        for option in options(hint):
            if _container(option) in (list, tuple, Sequence):
                allowed = typing.get_args(option)[:1]
                wrong = [item for item in value if allowed and not has_type(item, allowed[0])]
                yield from ((item, True) for item in wrong for _ in _misread(item, allowed[0]))
    elif not isinstance(value, Mapping) and str in options(hint):
        yield value, False


def _container(hint: Any) -> Any:
    """Return `list` for `list[int]`, and a plain type as it is."""
    return typing.get_origin(hint) or hint


def _describe(hint: Any, plural: bool = False) -> list[str]:
    """Describe the values that `hint` allows: one phrase for each alternative."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        # A class beside plain types, such as a tensor beside a number, is for callers in Python; a factory is not.
        simple = [option for option in inner if not is_object(option) or is_factory(option)] or inner
        if sum(bounds_of(option) is not None for option in simple) > 1:  # whole numbers are numbers
            simple = [option for option in simple if option is not int]
        return [phrase for option in simple for phrase in _describe(option, plural)]
    if (numbers := bounds_of(hint)) is not None:
        base, bounds = numbers
        words = f"{'whole ' if base is int else ''}number{'s' if plural else ''}"
        allowed = "" if bounds.low is None else f" {bounds.describe()}".rstrip()
        return [f"{'' if plural else 'a '}{words}{allowed}"]
    if origin is typing.Literal:
        return [repr(option) for option in inner]
    if hint in _WORDS:
        return [_WORDS[hint][plural]]
    if (origin or hint) in (list, tuple, Sequence):
        start = "lists" if plural else "a list"
        items = [item for item in inner if item is not Ellipsis]
        if len(items) > 1 and len(set(items)) == 1:
            return [f"{start} of {len(items)} {_join(_describe(items[0], plural=True))}"]
        if len(items) != 1:  # a number of items, each of its own type
            return [start + (f" of [{', '.join(_join(_describe(item)) for item in items)}]" if items else "")]
        return [f"{start} of {_join(_describe(items[0], plural=True))}"]
    if (origin or hint) in (dict, Mapping):
        return ["mappings" if plural else "a mapping"]
    if origin is Callable:
        return ["a _target_ with _partial_: true"]
    return [f"a _target_ that builds {getattr(hint, '__name__', hint)}"]


def _join(phrases: Sequence[str]) -> str:
    """Return `a text, a whole number or null`; of words only, `one of 'a', 'b'`."""
    if len(phrases) > 1 and all(phrase.startswith("'") for phrase in phrases):
        return f"one of {', '.join(phrases)}"
    *others, last = phrases
    return f"{', '.join(others)} or {last}" if others else last
