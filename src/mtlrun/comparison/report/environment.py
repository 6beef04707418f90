"""What the runs were trained with: code, versions and hardware, and where that differs between them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mtlrun.comparison.report.document import Block, Cell, Column, Paragraph, Table
from mtlrun.comparison.run import Run

_HARDWARE = (
    "device", "gpu", "cuda", "cudnn", "driver", "tf32", "cudnn_benchmark", "deterministic", "cache", "cpus", "threads",
    "platform", "host",
)  # fmt: skip


def environment(runs: Sequence[Run]) -> list[Block]:
    """Return a table of what the records say of the environment; what differs between runs is marked."""
    found: dict[str, Counter[str]] = {}
    for run in runs:
        for name, value in _facts(run.record.environment):
            found.setdefault(name, Counter())[value] += 1
    if not found:
        return []
    rows, differing = [], []
    for name, counts in found.items():
        unknown = len(runs) - counts.total()
        values = [*counts.most_common(), *([("not recorded", unknown)] if unknown else [])]
        differs = len(values) > 1
        differing += [name] * differs
        for value, number in values:
            rows.append([Cell(name), Cell(value, mark="differs" if differs else ""), Cell(f"{number}", sort=number)])
    summary = f"differ between the runs: {', '.join(differing)}" if differing else "are the same for all runs"
    columns = [Column("of"), Column("value"), Column("runs", True)]
    return [Paragraph(f"Code, versions and hardware {summary}."), Table("Environment of the runs", columns, rows)]


def _facts(environment: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield name and value of each fact of a record's environment."""
    for key, name in (("mtlrun", "commit of mtlrun"), ("git", "commit of the current folder")):
        commit = environment.get(key)
        if isinstance(commit, Mapping) and commit.get("commit"):
            changed = ", with uncommitted changes" if commit.get("dirty") else ""
            yield name, f"{str(commit['commit'])[:12]}{changed}"
    versions = environment.get("versions")
    for package, version in versions.items() if isinstance(versions, Mapping) else ():
        yield str(package), str(version)
    for key in _HARDWARE:
        if environment.get(key) is not None:
            yield key, str(environment[key])
