"""The files of a table, with the keys that say how they are read; what was read is kept for the next who asks."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mtlrun.datasets.split_names import SplitName
from mtlrun.datasets.tables.reading.columns import Columns
from mtlrun.datasets.tables.reading.csv_file import check_encoding
from mtlrun.datasets.tables.reading.files import name_files, read_files
from mtlrun.datasets.tables.reading.missing import MISSING
from mtlrun.datasets.tables.reading.notation import Notation
from mtlrun.datasets.tables.reading.read import read
from mtlrun.datasets.tables.reading.separators import check_separator
from mtlrun.datasets.tables.words import Label, label_text

#: A table, and the split of each row if each split has its file.
Content = tuple[Columns, list[SplitName | None] | None]


@dataclass(frozen=True)
class Source:
    """The file of a table, or a file for each split, and how it is read.

    Args:
        files: (split, path); the split is None for the one file of all.
        separator, missing, encoding, notation: see `read`.
    """

    files: tuple[tuple[SplitName | None, str], ...]
    separator: str | None
    missing: tuple[str, ...]
    encoding: str
    notation: Notation

    #: The last table that was read ahead, which `read` hands out once: (source, stamps of its files, table).
    _ahead: ClassVar[list[tuple["Source", Any, Content]]] = []

    @staticmethod
    def from_keys(
        path: str | Mapping[str, str],
        key: str,
        *,
        missing: Sequence[Label] = MISSING,
        separator: str | None = None,
        encoding: str = "utf-8",
        decimal: str = ".",
        thousands: str | None = None,
    ) -> "Source":
        """Return the source that keys of a dataset describe; `key` is that of the path, for errors.

        Raises:
            ValueError: a value is none that its key allows.
        """
        files = name_files(path, key)
        check_encoding(encoding)
        texts = tuple(label_text(text, "missing") for text in missing)
        return Source(tuple(files.items()), check_separator(separator), texts, encoding, Notation(decimal, thousands))

    def read_ahead(self, texts: Collection[str] = ()) -> Columns:
        """Return the table, and keep it: the next `read` of the same files costs nothing.

        Args:
            texts: see `read`.
        """
        stamps = self._stamps()
        content = self._read(texts)
        self._ahead[:] = [(self, stamps, content)]
        return content[0]

    def read(self, texts: Collection[str] = ()) -> Content:
        """Return the table and, if each split has its file, the split of each row.

        Args:
            texts: columns that are needed as texts even if they are numbers, which makes reading them faster.

        Raises:
            DataError: a file cannot be read, or their columns differ.
        """
        ahead, self._ahead[:] = list(self._ahead), []
        for source, stamps, content in ahead:
            if source == self and stamps == self._stamps():
                return content
        return self._read(texts)

    def _read(self, texts: Collection[str]) -> Content:
        def read_one(file: str) -> Columns:
            return read(file, self.separator, self.missing, encoding=self.encoding, notation=self.notation, texts=texts)

        return read_files(dict(self.files), read_one)

    def _stamps(self) -> list[tuple[int, int] | None]:
        """Return size and time of each file; None for one that is not there."""
        stamps: list[tuple[int, int] | None] = []
        for _, file in self.files:
            try:
                status = os.stat(file)
                stamps.append((status.st_size, status.st_mtime_ns))
            except OSError:
                stamps.append(None)
        return stamps
