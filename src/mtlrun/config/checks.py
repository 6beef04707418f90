"""Checks that many constructors share, with one wording."""

from typing import Any, get_args


def check_one_of(name: str, value: Any, choices: Any) -> None:
    """Raise ValueError unless `value` is one of the values of the Literal type `choices`."""
    allowed = get_args(choices)
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, found {value!r}")
