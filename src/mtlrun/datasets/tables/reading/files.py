"""One table from one file, or from one file per split."""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy

from mtlrun.datasets.split_names import SplitName
from mtlrun.datasets.tables.reading.cells import Cells
from mtlrun.datasets.tables.reading.columns import Columns
from mtlrun.datasets.tables.splits.given import usual_name
from mtlrun.errors import DataError

_EXAMPLE = "{train: a.csv, test: b.csv}"


@dataclass(frozen=True)
class JoinedColumns(Columns):
    """The rows of several files below each other.

    Args:
        files: their paths.
        starts: the first row of each file.
    """

    files: tuple[str, ...] = ()
    starts: tuple[int, ...] = ()

    def file(self, row: int) -> str:
        return self.files[bisect_right(self.starts, row) - 1]

    def name(self, row: int) -> str:
        return f"{super().name(row)} of {self.file(row)}"

    def ids(self) -> list[str]:
        return [f"{self.file(row)}:{number}" for row, number in enumerate(self.numbers)]


def name_files(path: str | Mapping[str, str], key: str) -> dict[SplitName | None, str]:
    """Return the file of each split, or {None: the one file of all}.

    Raises:
        ValueError: the mapping has a key that names no split, or no file for train or test; `key` begins the message.
    """
    if isinstance(path, str):
        return {None: path}
    files: dict[SplitName | None, str] = {}
    for text, file in path.items():
        name = usual_name(str(text))
        if name is None or name in files:
            raise ValueError(f"{key} must name a file for each of train, val (optional) and test, found {dict(path)}")
        if not isinstance(file, str):
            raise ValueError(f"{key}.{text} must be the name of a file, found {file!r}")
        files[name] = file
    if not {"train", "test"} <= files.keys():
        raise ValueError(
            f"{key} must name a file for train and test, as in '{key}={_EXAMPLE}', found {', '.join(path) or 'none'}; "
            "val may be left out, and one file for all splits is named without braces"
        )
    return files


def read_files(
    files: Mapping[SplitName | None, str], read: Callable[[str], Columns]
) -> tuple[Columns, list[SplitName | None] | None]:
    """Return the table, and the split of each row if each split has its file.

    Args:
        files: as `name_files` returns them.
        read: reads one of them.

    Raises:
        DataError: a file cannot be read, or their columns differ.
    """
    tables = {name: read(file) for name, file in files.items()}
    if None in tables:
        return tables[None], None
    one, *others = tables.values()
    for other in others:
        _check_same_columns(one, other)
    cells = {name: Cells.join([table.cells[name] for table in tables.values()]) for name in one.cells}
    ends = numpy.cumsum([len(table) for table in tables.values()]).tolist()
    joined = JoinedColumns(
        path=" and ".join(table.path for table in tables.values()),
        cells=cells,
        numbers=[number for table in tables.values() for number in table.numbers],
        files=tuple(table.path for table in tables.values()),
        starts=(0, *ends[:-1]),
        notation=one.notation,
        missing_texts=one.missing_texts,
        notes=[note for table in tables.values() for note in table.notes],
    )
    return joined, [name for name, table in tables.items() for _ in range(len(table))]


def _check_same_columns(one: Columns, other: Columns) -> None:
    problems = []
    for first, second in ((one, other), (other, one)):
        absent = [column for column in first.cells if column not in second.cells]
        if absent:
            problems.append(f"{second.path} has no column {', '.join(absent)}, as {first.path} has")
    if problems:
        raise DataError(
            f"{'; '.join(problems)}; the files of all splits need the same columns, those of the targets included. A "
            "file without targets cannot be a split: name the other file alone, and the splits are drawn from it"
        )
