"""Names of columns, and labels, as they are written in a config: YAML and Hydra take some of them for numbers."""

import json
import re
import shlex
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

from mtlrun.config.bounds import Written
from mtlrun.config.checks import quotes_advice

#: The name of a column; a whole number stands for its digits.
ColumnName = str | int
#: A label, or another cell of the table; a number stands for every cell of the same value.
Label = str | int | Written

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z_][\w/.-]*|-?\d+(\.\d+)?", re.ASCII)


def column_name(value: ColumnName, key: str) -> str:
    """Return the name of a column.

    Args:
        value: as the config gives it.
        key: of the config, without `dataset.`, which begins the error.

    Raises:
        ValueError: it is a boolean, null, or a number that is not whole.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{key} must name a column, found {value!r}; {quotes_advice(value, f'dataset.{key}')}")
    return str(value)


def column_names(values: Iterable[ColumnName], key: str) -> list[str]:
    """Return the names of several columns; see `column_name`."""
    return [column_name(value, key) for value in values]


def label_text(value: Label, key: str) -> str:
    """Return a label as a text without spaces around it; `key` and errors are those of `column_name`."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{key} must hold labels, found {value!r}; {quotes_advice(value, f'dataset.{key}', True)}")
    return str(value).strip()


def label_value(text: str) -> str | Decimal:
    """Return what labels are compared by: the value of a number, so that 1 and 1.0 are equal; else the text."""
    try:
        return Decimal(text) if _NUMBER.fullmatch(text) else text
    except InvalidOperation:  # an exponent beyond all bounds
        return text


def assignment(key: str, values: Iterable[str]) -> str:
    """Return the word of a command line that sets `dataset.<key>` to a list of texts, quoted for shell and Hydra."""
    return shlex.quote(f"dataset.{key}=[{','.join(map(_write, values))}]")


def assignment_of_label(key: str, label: str) -> str:
    """Return the word of a command line that sets a key to a label, quoted for shell and Hydra."""
    return shlex.quote(f"{key}={_write(label)}")


def _write(text: str) -> str:
    return text if _is_plain(text) else json.dumps(text, ensure_ascii=False)


def _is_plain(text: str) -> bool:
    """Return True if Hydra reads a text as it is, or as a number that stands for it, without quotes."""
    return bool(_PLAIN.fullmatch(text)) and text.lower() not in ("true", "false", "null", "nan", "inf")
