"""Names of splits as people write them, and the splits that a column of the table gives."""

import json
import re
from collections.abc import Mapping, Sequence

import numpy

from mtlrun.datasets.split_names import SPLITS, SplitName
from mtlrun.datasets.tables.reading.columns import Columns
from mtlrun.errors import DataError

# In any case. Words that mean different splits to different people, such as `eval` and `holdout`, are not among them.
_USUAL: dict[str, SplitName] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
#: In `dataset.splits`, the name of an empty cell.
EMPTY = "empty"
# More different values than this are hardly the names of splits.
_MANY = 10


def usual_name(text: str) -> SplitName | None:
    """Return the split that a text names in one of the usual ways, None if it names none."""
    return _USUAL.get(text.strip().lower())


def check_splits(splits: Mapping[str, str | None]) -> None:
    """Raise ValueError if `dataset.splits` maps a value to something that is no split."""
    for value, name in splits.items():
        if name is not None and name not in SPLITS:
            raise ValueError(f"splits must map each value to train, val, test or null, found {value}: {name!r}")


def read_splits(table: Columns, column: str, splits: Mapping[str, SplitName | None]) -> list[SplitName | None]:
    """Return the split of each row that a column gives, None for the rows to leave out.

    Args:
        table: has the column.
        column: holds usual names of splits, or the values of `splits`.
        splits: {value: train, val, test, or None to leave its rows out}; `empty` is the value of empty cells.

    Raises:
        DataError: a value is unknown; the message has the line to add.
    """
    known = {_normalized(value): name for value, name in splits.items()}
    cells = [EMPTY if cell is None else cell.strip() for cell in table.texts(column)]
    found = dict.fromkeys(cells)
    absent = [value for value in splits if _normalized(value) not in map(_normalized, found)]
    if absent:
        raise DataError(
            f"dataset.splits: no cell of {table.path}, column {column}, is {absent[0]!r}; it has: {_list(list(found))}"
        )
    meaning = {cell: known.get(_normalized(cell), usual_name(cell)) for cell in found}
    unknown = [cell for cell in found if _normalized(cell) not in known and usual_name(cell) is None]
    if unknown:
        row = cells.index(unknown[0])
        subject = "the cell is empty" if unknown[0] == EMPTY else f"{unknown[0]!r} is not the name of a split"
        unknown.sort(key=cells.count, reverse=True)
        raise DataError(f"{table.where(column, row)}: {_explain(subject, unknown, splits, meaning)}")
    return [meaning[cell] for cell in cells]


def _normalized(value: object) -> str:
    """Return a form in which 1, 1.0 and 01 are equal, and so are True and true."""
    text = str(value).strip()
    try:
        number = float(text)
    except ValueError:
        return text.lower() if text.lower() in ("true", "false") else text
    return str(int(number)) if number.is_integer() else str(number)


def _explain(
    subject: str, unknown: Sequence[str], splits: Mapping[str, SplitName | None],
    meaning: Mapping[str, SplitName | None],
) -> str:  # fmt: skip
    """Return what is wrong with values that name no split, and the line that names them."""
    if len(unknown) > _MANY:
        return f"{subject}, and the column has {len(unknown) - 1} more such values; is it the column of splits?"
    guesses = dict(splits) | _guess(unknown, set(meaning.values()))
    allowed = "train, val, test, or null to leave its rows out"
    return f"{subject}; add what it is, as in {write_splits(guesses)} ({allowed})"


def write_splits(splits: Mapping[str, str | None]) -> str:
    """Return how to set `dataset.splits`: the word of a command line, or a line of YAML for what that cannot hold."""
    if all(re.fullmatch(r"[\w \\()\[\]{}:=,.+/%@?|-]+", value, re.ASCII) for value in splits):
        mapping = ", ".join(f"{_escaped(value)}: {name or 'null'}" for value, name in splits.items())
        return f"'dataset.splits={{{mapping}}}'"
    mapping = ", ".join(f"{json.dumps(value, ensure_ascii=False)}: {name or 'null'}" for value, name in splits.items())
    return f"'splits: {{{mapping}}}' below dataset: in a YAML file of yours"


def _guess(unknown: Sequence[str], named: set[SplitName | None]) -> dict[str, SplitName | None]:
    """Return an example of what values may mean, the most frequent first: train is the largest split."""
    free: list[SplitName | None] = [name for name in ("test", "val") if name not in named]
    values = [value for value in unknown if value != EMPTY]
    if len(values) == 3 and not named - {None}:
        free.reverse()
    rest: SplitName | None = None
    if "train" not in named:
        free.insert(0, "train")
        rest = "train"
    if len(values) == 1:
        free = ["test"] if "test" in free else free
    guesses = {value: free[index] if index < len(free) else rest for index, value in enumerate(values)}
    return guesses | dict.fromkeys(set(unknown) - set(values))


def _escaped(value: str) -> str:
    """Return a value as a key of a mapping on the command line."""
    return "".join(f"\\{letter}" if letter in "\\()[]{}:=," else letter for letter in value)


def _list(values: Sequence[str]) -> str:
    return ", ".join(values[:_MANY]) + (", ..." if len(values) > _MANY else "")


def rows_of(names: Sequence[SplitName | None]) -> dict[SplitName, numpy.ndarray]:
    """Return the rows of each split as sorted positions."""
    array = numpy.array([name or "" for name in names])
    return {name: numpy.flatnonzero(array == name) for name in SPLITS}
