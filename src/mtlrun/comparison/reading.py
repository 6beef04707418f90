"""Records of many folders, and the files among them that are none."""

from collections.abc import Iterable
from pathlib import Path

from mtlrun.comparison.data_sets import group_by_data, meaning_of_task
from mtlrun.comparison.groups import group_baselines, group_by_config
from mtlrun.errors import DataError, RecordError
from mtlrun.records.folder import RECORD
from mtlrun.records.record import Record


def read_records(folders: Iterable[Path]) -> tuple[list[Record], list[str]]:
    """Return all records in and below `folders`, and what is wrong with each file that is called one and is none.

    Raises:
        DataError: a folder does not exist, or holds no record.
    """
    all_records: dict[str, Record] = {}
    problems: list[str] = []
    for folder in folders:
        if not folder.exists():
            raise DataError(f"{folder}: there is no such folder")
        records: dict[str, Record] = {}
        for path in sorted(folder.rglob(RECORD)):
            try:
                record = Record.read(path.parent)
                if record is not None:
                    _check_comparable(record, path)
            except DataError as error:
                problems.append(str(error))
            else:
                records |= {} if record is None else {record.run_id: record}
        if not records:
            found = "; ".join(problems) or "no run has left a record in or below this folder"
            raise DataError(f"{folder}: {found}")
        all_records |= records
    return list(all_records.values()), problems


def _check_comparable(record: Record, path: Path) -> None:
    """Raise RecordError if a record alone cannot be compared, whatever it is in its config that makes no sense."""
    try:
        group_by_data([record])
        for group in (*group_by_config([record]), *group_baselines([record])):
            for task, metric in record.main_metrics.items():
                group.summary(task, metric)
                meaning_of_task(record, task)
    except Exception as error:
        raise RecordError(f"{path} cannot be compared ({type(error).__name__}: {error})") from error
