"""Categories of a column of texts, by the texts of the training split, or by hashes of texts."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy

from mtlrun.datasets.tables.reading.cells import Cells
from mtlrun.datasets.tables.words import ColumnName, column_name

#: `one_hot`: a number for each category; `index`: one number, which is 0 for what is none of them.
Encoding = Literal["one_hot", "index"]
#: Columns with more different texts than this have so many buckets; or {column: buckets}; None to hash none.
HashBuckets = int | dict[str, int] | None


@dataclass(frozen=True)
class Categories:
    """The categories of a column.

    Args:
        labels: texts, or numbers of buckets, in the order of their indices; None is the empty cell.
        buckets: how many there are; None if texts are not hashed.
        indices: for each row the place of its category in `labels`, -1 if it has none, int32 [num_rows].
        unseen: which rows have a text that neither training has, nor, with buckets, falls into one of training's.
        num_rare: number of texts or buckets of training that are no category, since too few rows have them.
        repeat: True if a text is in more than one row of training. Where none is, nothing can be learned from them.
    """

    labels: list[str | int | None]
    buckets: int | None
    indices: numpy.ndarray
    unseen: numpy.ndarray
    num_rare: int
    repeat: bool


def find_categories(cells: Cells, train: numpy.ndarray, buckets: int | None, min_rows: int) -> Categories:
    """Return the categories that at least `min_rows` rows of the training split have, in sorted order.

    Args:
        cells: of the column.
        train: the rows of the training split.
        buckets: into how many texts are hashed; None to have a category for each.
        min_rows: 1 or more.
    """
    names: list[str | int] = list(cells.labels)
    codes = cells.indices
    repeat = bool((numpy.bincount(codes[train] + 1)[1:] > 1).any())
    if buckets is not None:
        hashed = numpy.array([hash_text(text, buckets) for text in cells.labels], dtype=numpy.int64)
        used, places = numpy.unique(hashed, return_inverse=True)
        names, codes = used.tolist(), numpy.append(places, -1)[codes]
    counts = numpy.bincount(codes[train] + 1, minlength=len(names) + 1)  # that of the empty cell first
    kept = sorted((code for code in range(len(names)) if counts[code + 1] >= min_rows), key=names.__getitem__)
    labels: list[str | int | None] = [names[code] for code in kept]
    if counts[0] >= min_rows:
        kept.append(-1)
        labels.append(None)
    index_of = numpy.full(len(names) + 1, -1, dtype=numpy.int32)
    index_of[numpy.array(kept, dtype=numpy.int64) + 1] = numpy.arange(len(kept))
    rare = (counts[1:] > 0) & (counts[1:] < min_rows)
    unseen = (counts[codes + 1] == 0) & (codes >= 0)
    return Categories(labels, buckets, index_of[codes + 1], unseen, int(rare.sum()), repeat)


def match_categories(
    cells: Cells, labels: Sequence[str | int | None], buckets: int | None
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return for each further row the place of its category in `labels`, -1 if it has none, and which texts are none.

    Args:
        cells: of the column.
        labels, buckets: see `Categories`.
    """
    place_of = {label: place for place, label in enumerate(labels)}
    found = [place_of.get(text if buckets is None else hash_text(text, buckets), -1) for text in cells.labels]
    places = numpy.array([*found, place_of.get(None, -1)], dtype=numpy.int32)[cells.indices]
    return places, (places < 0) & (cells.indices >= 0)


def hash_text(text: str, buckets: int) -> int:
    """Return the bucket of a text: the CRC-32 of its UTF-8 bytes, as of zip and gzip, modulo the number of buckets."""
    return zlib.crc32(text.encode()) % buckets


def check_buckets(given: int | Mapping[ColumnName, int] | None) -> HashBuckets:
    """Return the numbers of buckets with the names of columns as texts."""
    if isinstance(given, Mapping):
        return {column_name(name, "hash_buckets"): number for name, number in given.items()}
    return given


def buckets_of(column: str, num_texts: int, given: HashBuckets) -> int | None:
    """Return into how many buckets a column with so many different texts is hashed; None for no hashing."""
    if isinstance(given, int):
        return given if num_texts > given else None
    return None if given is None else given.get(column)
