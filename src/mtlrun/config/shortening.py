"""Values of a config in messages, shortened: a list of ten thousand numbers must not fill the screen."""

import re
from collections.abc import Mapping
from typing import Any

_LENGTH = 120  # characters of a value
_ITEMS = 8  # of a list or a mapping


def shorten(value: Any, length: int = _LENGTH) -> str:
    """Return how a value is shown in a message: texts in quotes, and of what is long the beginning and its size.

    >>> shorten(list(range(10_000)))
    '[0, 1, 2, 3, 4, 5, 6, 7, ... (10,000 items)]'
    >>> shorten("x" * 5_000, length=10)
    "'xxxxxxxxxx...' (5,000 characters)"
    """
    if isinstance(value, str):
        return repr(value) if len(value) <= length else f"{value[:length] + '...'!r} ({len(value):,} characters)"
    if isinstance(value, int) and value.bit_length() > 4 * length:  # Python writes no number of thousands of digits
        return f"a whole number of {value.bit_length():,} bits"
    if isinstance(value, list | tuple | Mapping):
        start, end = ("{", "}") if isinstance(value, Mapping) else ("[", "]")
        inner = max(length // 3, 20)
        if isinstance(value, Mapping):
            items = [f"{shorten(key, inner)}: {shorten(item, inner)}" for key, item in [*value.items()][:_ITEMS]]
        else:
            items = [shorten(item, inner) for item in value[:_ITEMS]]
        while len(items) > 1 and len(", ".join(items)) > length:
            items.pop()
        if len(items) < len(value):
            items.append(f"... ({len(value):,} items)")
        return start + ", ".join(items) + end
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]}..."


def shorten_text(text: str, length: int = _LENGTH) -> str:
    """Return a text without quotes, such as an override of a command line, shortened if it is long."""
    return text if len(text) <= length else f"{text[:length]}... ({len(text):,} characters)"


def shorten_words(text: str, length: int = 400) -> str:
    """Return a message with the words in it shortened that are longer than a path or a name is."""
    return re.sub(rf"\S{{{length + 1},}}", lambda word: shorten_text(word[0]), text)
