"""What a cell or a column that cannot be read as numbers holds, and the keys that settle it."""

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy

from mtlrun.datasets.tables.reading.cells import Cells
from mtlrun.datasets.tables.reading.dates import ISO, find_formats, look_like_dates
from mtlrun.datasets.tables.reading.missing import MISSING, is_usual
from mtlrun.datasets.tables.reading.notation import Notation, are_other_numbers, other_notations, strip_sign

# Different texts that are looked at to find out what a column holds.
_LOOKED_AT = 5000
_LIST = re.compile(r"\[.*\]|\{.*\}|\(.*,.*\)|-?\d[\d.]*(?:\s?[;,|/]\s?-?\d[\d.]*)+", re.DOTALL)


@dataclass(frozen=True)
class Finding:
    """What a column of texts holds that is neither a number nor a category.

    Args:
        what: in words, with an example.
        notations: overrides, each of which makes the cells numbers.
        missing: texts that probably stand for empty cells.
        date_formats: the formats in which the cells are dates; several if it is unclear which.
        may_be_categories: the cells may also be categories.
    """

    what: str
    notations: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    date_formats: list[str] = field(default_factory=list)
    may_be_categories: bool = True


def override(key: str, value: object) -> str:
    """Return an override as it is typed into a shell; texts are in quotes where Hydra needs them."""
    return shlex.quote(f"dataset.{key}={_write(value)}")


def examine(cells: Cells, notation: Notation, numbers: Sequence[int]) -> Finding | None:
    """Return what a column of texts holds if it should not be read as categories without being asked for.

    Args:
        cells: of the column; not all of them are numbers.
        notation: of numbers.
        numbers: of the rows, for messages.
    """
    counts = numpy.bincount(cells.indices[cells.indices >= 0], minlength=len(cells.labels))
    words = [index for index, label in enumerate(cells.labels) if not is_usual(label)]
    if not words:
        return None
    weights = counts[words] / counts[words].sum()
    texts = [cells.labels[index] for index in words]
    are_numbers = numpy.isfinite(notation.parse(texts))

    def place(text: str) -> str:
        return f"{text!r} in row {numbers[int((cells.indices == cells.labels.index(text)).argmax())]}"

    others = [text for text, is_number in zip(texts, are_numbers, strict=True) if not is_number]
    found = _examine_others(texts, others, notation, place, weights[:_LOOKED_AT], are_numbers)
    if found is not None:
        return found
    if weights[are_numbers].sum() < 0.5:
        return None
    absent = [label for label in cells.labels if is_usual(label)]
    listing = ", ".join(place(text) for text in [*others, *absent][:3])
    more = "" if len(others) + len(absent) <= 3 else f" and {len(others) + len(absent) - 3} other texts"
    what = f"{listing}{more}, where most of the column are numbers"
    if others:
        what += "; correct them, or add those that stand for an empty cell to dataset.missing"
    # A word, rather than a number with a typing error in it.
    words_alone = [text for text in others if not re.search(r"\d", text)][:3]
    return Finding(what, missing=[*absent, *words_alone])


def _examine_others(
    texts: Sequence[str], others: Sequence[str], notation: Notation, place: object, weights: numpy.ndarray,
    are_numbers: numpy.ndarray,
) -> Finding | None:  # fmt: skip
    """Return what the texts of a column that are no numbers have in common, if most of the column has it."""
    assert callable(place)
    if not others:
        return None
    some = others[:_LOOKED_AT]
    # A few of them may be typing errors: what most have in common is what they are.
    looked, plain = texts[:_LOOKED_AT], are_numbers[:_LOOKED_AT]

    def most(matches: Sequence[bool], *, with_numbers: bool = False) -> bool:
        mask = numpy.array(matches, dtype=bool)
        mask = mask | plain if with_numbers else mask
        return bool(weights[mask].sum() > 0.5 * weights.sum()) and sum(matches) > 0.5 * (~plain).sum()

    numeric = _where(some, are_other_numbers(some, notation))
    if numeric and most([text in set(numeric) for text in looked], with_numbers=True):
        notations = other_notations(numeric, notation)
        if notations:
            return Finding(f"{place(numeric[0])} is a number in another notation", _overrides(notations, notation))
    signed = _signed_numbers(some, notation)
    if signed and most([text in set(signed) for text in looked], with_numbers=True):
        return Finding(f"{place(signed[0])} is a number with a sign; take the signs out of the file to use it")
    dates = look_like_dates(looked)
    if most(dates):
        matched = [text for text, is_date in zip(looked, dates, strict=True) if is_date]
        return Finding(f"{place(matched[0])} is a date or a time", date_formats=find_formats(matched))
    lists = [not number and _LIST.fullmatch(text) is not None for text, number in zip(looked, plain, strict=True)]
    if most(lists):
        return Finding(f"{place(looked[lists.index(True)])} is a list; give each of its parts a column")
    joined = [len(re.split("[;|]", text)) > 1 for text in looked]
    parts = {part.strip() for text in looked for part in re.split("[;|]", text)}
    if most(joined) and len(parts) < len(looked):
        return Finding(f"{place(looked[joined.index(True)])} is a list of texts; give each of them a column")
    return None


def explain_cell(column: str, cells: Cells, row: int, notation: Notation, missing: Sequence[str]) -> str:
    """Return the end of a message about a cell that is no number where one is needed: what settles it."""
    text = cells.texts[row]
    if is_usual(text):
        known = numpy.isfinite(notation.parse(cells.labels))
        words = [
            label for label, is_number in zip(cells.labels, known, strict=True) if not is_number and is_usual(label)
        ]
        return f"; if it stands for an empty cell, add {override('missing', missing_entries(missing, words))}"
    notations = other_notations([label for label in cells.labels if not is_usual(label)], notation)
    notations = notations or other_notations([text], notation)
    if notations:
        return f"; if it is a number in another notation, add {' or '.join(_overrides(notations, notation))}"
    if _signed_numbers([text], notation):
        return "; take the signs of percent or currency out of the file"
    if look_like_dates([text])[0]:
        return "; a date cannot be predicted as a number: replace it by one in the file"
    return ""


def missing_entries(missing: Iterable[str], words: Iterable[str]) -> list[str]:
    """Return `dataset.missing` with further words; the defaults come first, in their order."""
    entries = set(missing)
    return [*(text for text in MISSING if text in entries), *sorted(entries - set(MISSING)), *words]


def _where(texts: Sequence[str], mask: Iterable[bool]) -> list[str]:
    return [text for text, chosen in zip(texts, mask, strict=True) if chosen]


def _signed_numbers(texts: Sequence[str], notation: Notation) -> list[str]:
    """Return the texts that are numbers with a sign of percent or currency."""
    bare = {text: rest for text in texts if (rest := strip_sign(text)) is not None}
    rests = list(bare.values())
    return _where(list(bare), numpy.isfinite(notation.parse(rests)) | are_other_numbers(rests, notation))


def _overrides(notations: Sequence[Notation], current: Notation) -> list[str]:
    """Return for each notation what sets it, typed into a shell."""
    return [
        " ".join(
            override(key, getattr(notation, key))
            for key in ("decimal", "thousands")
            if getattr(notation, key) != getattr(current, key)
        )
        for notation in notations
    ]


def _write(value: object) -> str:
    """Write a value in Hydra's notation."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_write(key)}: {_write(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return f"[{','.join(map(_write, value))}]"
    text = str(value)
    if isinstance(value, int) or value is None:
        return "null" if value is None else text
    plain = re.fullmatch(r"[A-Za-z_]\w*", text, re.ASCII) and text.lower() not in (
        "null",
        "true",
        "false",
        "nan",
        "inf",
    )
    return text if plain else json.dumps(text, ensure_ascii=False)


def write_formats(formats: Mapping[str, str]) -> str:
    """Return the override of `dataset.dates`: a list of columns, or a mapping where a format must be given."""
    if all(format == ISO or not format for format in formats.values()):
        return override("dates", list(formats))
    return override("dates", {column: format or None for column, format in formats.items()})
