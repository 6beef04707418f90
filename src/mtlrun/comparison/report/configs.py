"""What the configs of a data set's runs have in common, and where they differ."""

from collections.abc import Mapping, Sequence
from typing import Any

from mtlrun.comparison.report.document import Block, Cell, Code, Column, Details, Points, Table
from mtlrun.comparison.report.results import in_order, label_columns, row_labels
from mtlrun.comparison.run import Run
from mtlrun.comparison.table import ComparisonTable, Row


def configs(table: ComparisonTable) -> list[Block]:
    """Return where the configs of the rows differ, what all runs have in common, and the sizes of their splits."""
    runs = [run for row in table.configs for run in row.group.runs]
    if not runs:
        return []
    common = _common([run.config for run in runs])
    rows = []
    for row in in_order(table):
        own = _common([run.config for run in row.group.runs])
        repeated = {key for run in row.group.runs for key in run.config if key not in own}
        texts = [f"{_shorten(key)}={_show(value)}" for key, value in own.items() if _tells(key, value, common)]
        texts += [f"{key}=…" for key in sorted(repeated) if key not in row.group.over]
        rows.append([*row_labels(table, row), Cell(", ".join(texts))])
    columns = [*label_columns(table), Column("keys with values that not all runs have")]
    blocks: list[Block] = []
    if len(rows) > 1:
        blocks.append(Table(f"Where the configs on {table.title} differ", columns, rows, num_labels=len(columns) - 1))
    lines = [f"{key}={_show(value)}" for key, value in common.items()]
    blocks.append(Details(f"Keys that all runs on {table.title} have in common ({len(lines)})", [Code(lines)]))
    if samples := _samples(table.configs):
        blocks.append(Points(samples, small=True))
    return blocks


def _common(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the keys that have the same value in all of some flat configs."""
    first, *others = configs
    return {
        key: value
        for key, value in first.items()
        if all(key in config and _same(config[key], value) for config in others)
    }


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


def _tells(key: str, value: Any, common: Mapping[str, Any]) -> bool:
    return not (key in common and _same(common[key], value)) and key != "seed" and not key.endswith("._target_")


def _shorten(key: str) -> str:
    return key.removeprefix("names.")


def _show(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{','.join(map(_show, value))}]" if isinstance(value, list) else str(value)


def _samples(rows: Sequence[Row]) -> list[str]:
    """Return the number of samples of each split, as sentences."""
    sentences = []
    runs: list[Run] = [run for row in rows for run in row.group.runs]
    for split in dict.fromkeys(split for run in runs for split in run.record.splits):
        counts = sorted({run.record.splits[split]["samples"] for run in runs if split in run.record.splits})
        number = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
        sentences.append(f"{split} split: {number} samples")
    return sentences
