"""Reading of tables, CSV and Parquet, with a clear word about other kinds of files."""

from collections.abc import Collection, Iterable
from pathlib import Path

from mtlrun.datasets.tables.reading.columns import Columns
from mtlrun.datasets.tables.reading.csv_file import CsvFile
from mtlrun.datasets.tables.reading.missing import MISSING, Missing
from mtlrun.datasets.tables.reading.notation import Notation
from mtlrun.datasets.tables.reading.parquet_file import read_parquet
from mtlrun.errors import DataError

_PARQUET = (".parquet", ".pq")
_EXCEL = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods")
_OTHER = (".feather", ".arrow", ".json", ".jsonl", ".h5", ".hdf5", ".pkl", ".pickle", ".dta", ".sav", ".rds", ".npy")


def read(
    path: str,
    separator: str | None = None,
    missing: Iterable[str | float] = MISSING,
    *,
    encoding: str = "utf-8",
    notation: Notation | None = None,
    texts: Collection[str] = (),
) -> Columns:
    """Read a CSV file, or a Parquet file if its name ends in .parquet or .pq. Rows of empty cells are left out.

    Args:
        path: of the file.
        separator: between the cells of a CSV file; None to find it.
        missing: cells that count as empty, besides empty ones.
        encoding: of a CSV file.
        notation: of numbers that are texts.
        texts: columns that are needed as texts even if they are numbers, which makes reading them faster.

    Raises:
        DataError: the file is missing, or cannot be read.
    """
    notation = notation or Notation()
    if is_parquet(path):
        columns = read_parquet(path, Missing(missing), notation)
    else:
        columns = CsvFile(path, separator or tab_of(path), encoding, Missing(missing), notation).read(texts)
    if len(columns) == 0:
        raise DataError(f"{path}: there are no rows beneath the header")
    return columns


def is_parquet(path: str) -> bool:
    """Return True if a file is Parquet by its name, else it is read as CSV.

    Raises:
        DataError: there is no such file, or it is neither.
    """
    if not Path(path).is_file():
        what = "this is a folder" if Path(path).is_dir() else f"there is no such file, as seen from {Path.cwd()}"
        raise DataError(f"{path}: {what}; name a CSV or Parquet file")
    suffix = Path(path).suffix.lower()
    _check_kind(path, suffix)
    return suffix in _PARQUET


def tab_of(path: str) -> str | None:
    """Return the tab for a file whose name ends in .tsv, the separator of which need not be found."""
    suffix = Path(path).suffix.lower()
    return "\t" if Path(path.lower().removesuffix(suffix) + suffix).suffix == ".tsv" else None


def _check_kind(path: str, suffix: str) -> None:
    """Raise DataError if the name or the first bytes of a file are those of another kind."""
    with open(path, "rb") as file:
        start = file.read(4)
    if suffix in _EXCEL or start == b"\xd0\xcf\x11\xe0" or (start == b"PK\x03\x04" and suffix != ".zip"):
        raise DataError(
            f"{path}: workbooks of Excel or LibreOffice cannot be read; save the sheet as CSV UTF-8, and name that"
        )
    if suffix in _OTHER:
        raise DataError(f"{path}: files ending in {suffix} cannot be read; convert it to CSV or Parquet")
    for magic, ending in ((b"PAR1", ".parquet"), (b"\x1f\x8b", ".gz")):
        if start.startswith(magic) and suffix not in (ending, *_PARQUET):
            raise DataError(f"{path}: the content is that of a {ending} file; let its name end so")
