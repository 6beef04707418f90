"""Numbers as people write them: decimal commas, separated thousands, signs of percent and currency."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy
import pandas

#: What may stand between groups of three digits; a space stands for the narrow and the unbreakable ones too.
THOUSANDS = (",", ".", " ", "'", "_")
_SPACES = "\u00a0\u2009\u202f"
_SIGN = r"(?:[$€£¥₹₽%‰]|EUR|USD|GBP|CHF|JPY)"
_SIGNED = re.compile(rf"([+-]?)\s*{_SIGN}?\s*([+-]?[\d.,' ]*\d[\d.,' ]*?)\s*{_SIGN}?", re.IGNORECASE)
_NUMERIC = re.compile(r"[\d\s.,'’_+−-]*\d[\d\s.,'’_eE+-]*")


@dataclass(frozen=True)
class Notation:
    """The notation of the numbers of a table.

    Args:
        decimal: the sign before decimals, a point or a comma.
        thousands: one of `THOUSANDS` that may separate groups of three digits; None for none.
    """

    decimal: str = "."
    thousands: str | None = None

    def __post_init__(self) -> None:
        if self.decimal not in (".", ","):
            raise ValueError(f"decimal must be '.' or ',', found {self.decimal!r}")
        if self.thousands is not None and self.thousands not in THOUSANDS:
            raise ValueError(f"thousands must be one of {', '.join(map(repr, THOUSANDS))}, found {self.thousands!r}")
        if self.thousands == self.decimal:
            raise ValueError(f"thousands must differ from decimal, found {self.thousands!r} for both")

    def parse(self, texts: Sequence[str]) -> numpy.ndarray:
        """Return the texts of a column as numbers, float64 [num_texts]; NaN for a text that is none."""
        plain = self == Notation() or (self.decimal == "," and _has_points(texts))
        return to_numbers(texts if plain else [self._translate(text) for text in texts])

    def _translate(self, text: str) -> str:
        """Return a number in this notation in that of Python, and any other text as one that is no number."""
        plain = _plain(text)
        if self.thousands is not None and self.thousands in plain:
            if not re.fullmatch(_grouped(self.thousands, self.decimal), plain):
                return ""
            plain = plain.replace(self.thousands, "")
        if self.decimal == ",":
            plain = "" if "." in plain else plain.replace(",", ".")
        return plain

    def overrides(self) -> list[str]:
        """Return what sets this notation on the command line."""
        keys = [] if self.decimal == "." else [f'dataset.decimal="{self.decimal}"']
        return keys if self.thousands is None else [*keys, f'dataset.thousands="{self.thousands}"']


def to_numbers(texts: Sequence[str]) -> numpy.ndarray:
    """Return texts in the notation of Python as numbers, float64 [num_texts]; NaN for a text that is none."""
    column = pandas.Series(list(texts), dtype=object)
    values: numpy.ndarray = pandas.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=numpy.nan)
    return values


def other_notations(texts: Sequence[str], current: Notation) -> list[Notation]:
    """Return the notations in which all texts are numbers; of these, those that differ least from the current one.

    There is more than one where 1,234 may be a thousand or little more than one.
    """
    if not texts or not all(map(_NUMERIC.fullmatch, texts)):
        return []
    signs = set(_plain("".join(texts)))
    found = [
        other
        for other in _others(current)
        if (other.thousands is None or other.thousands in signs) and numpy.isfinite(other.parse(texts)).all()
    ]
    fewest = min((_distance(notation, current) for notation in found), default=0)
    return [notation for notation in found if _distance(notation, current) == fewest]


def are_other_numbers(texts: Sequence[str], current: Notation) -> numpy.ndarray:
    """Return which texts are numbers in a notation other than the current one, bool [num_texts]."""
    mask = numpy.array([_NUMERIC.fullmatch(text) is not None for text in texts], dtype=bool)
    some = [text for text, numeric in zip(texts, mask, strict=True) if numeric]
    if some:
        mask[mask] = numpy.any([numpy.isfinite(other.parse(some)) for other in _others(current)], axis=0)
    return mask


def _others(current: Notation) -> list[Notation]:
    signs = (current.decimal, "," if current.decimal == "." else ".")
    pairs = [pair for pair in product(signs, (None, *THOUSANDS)) if pair[0] != pair[1]]
    return [notation for notation in (Notation(*pair) for pair in pairs) if notation != current]


def strip_sign(text: str) -> str | None:
    """Return a number without its sign of percent or currency; None if it has none."""
    if re.search(_SIGN, text, re.IGNORECASE) is None:
        return None
    match = _SIGNED.fullmatch(text.strip())
    return None if match is None else (match[1] + match[2]).strip()


def _distance(notation: Notation, current: Notation) -> int:
    return (notation.decimal != current.decimal) + (notation.thousands != current.thousands)


def _plain(text: str) -> str:
    for space in _SPACES:
        text = text.replace(space, " ")
    return text.replace("\u2019", "'").replace("\u2212", "-").strip()


def _grouped(thousands: str, decimal: str) -> str:
    return rf"[+-]?[1-9]\d{{0,2}}(?:{re.escape(thousands)}\d{{3}})+(?:{re.escape(decimal)}\d*)?"


def _has_points(texts: Sequence[str]) -> bool:
    """Return True if a column plainly has decimal points, though the table has decimal commas.

    Most of its points must be no signs between thousands, as that of 0.125 or 1.25; those of 1.250 may be.
    """
    points = [text for text in texts if "." in text]
    if not points or any("," in text for text in texts):
        return False
    return 2 * sum(re.fullmatch(_grouped(".", ","), text.strip()) is not None for text in points) < len(points)
