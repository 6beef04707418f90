"""Checks that many constructors share, with one wording."""

import json
from typing import Any, get_args

from mtlrun.config.shortening import shorten


def check_one_of(name: str, value: Any, choices: Any) -> None:
    """Raise ValueError unless `value` is one of the values of the Literal type `choices`."""
    allowed = get_args(choices)
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, found {shorten(value)}")


def quotes_advice(value: bool | float | None, key: str, listed: bool = False) -> str:
    """Return how to write a text that YAML and Hydra read as this value.

    Args:
        value: as which the text was read.
        key: where it stands in the config.
        listed: whether it stands in a list.
    """
    if isinstance(value, bool):
        read = "true, yes and on are booleans" if value else "false, no and off are booleans"
    else:
        read = "null is no text" if value is None else "a number is no text"
    text = f"'{json.dumps(value)}'"
    other = f", or '{'yes' if value else 'no'}', as it stands in the file" if isinstance(value, bool) else ""
    return f'{read} in YAML; a text needs quotes, as in "{key}={f"[{text}]" if listed else text}"{other}'
