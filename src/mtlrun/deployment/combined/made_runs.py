"""Results that are made from finished runs: their names, their folders, and the record that `compare` shows."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mtlrun.deployment.combined.members import Member
from mtlrun.errors import ConfigError, DataError, RecordError
from mtlrun.records.folder import check_writable
from mtlrun.records.record import Record
from mtlrun.records.stamps import as_plain
from mtlrun.runs.recording import now
from mtlrun.setup.environment import describe
from mtlrun.training.parts import Parts


def choose_folder(kind: str, method: str, members: Sequence[Member], name: str | None, place: Path | None) -> Path:
    """Return the folder of a result: beside the first of its runs, unless a place is given.

    Args:
        kind: `ensemble` or `merge`.
        method: such as `average`.
        members: the runs.
        name: of the folder; None for one made of the method and the runs.
        place: the folder that it is in.

    Raises:
        ConfigError: the name is none for a folder, or nothing can be written there.
    """
    if name is not None and not re.fullmatch(r"\w[\w.-]*", name):
        raise ConfigError(f"--name {name}: must be the name of a folder, of letters, digits, . _ and -")
    folder = (members[0].folder.parent if place is None else place) / (name or result_id(kind, method, members))
    check_writable(folder)
    return folder


def result_id(kind: str, method: str, members: Sequence[Member]) -> str:
    """Return the id of a result, and the name of its folder unless another is given; see `choose_folder`."""
    content = json.dumps([kind, method, sorted(member.name for member in members)])
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    return f"{kind}-{method}-{count(members)}-{digest}".replace(" ", "")


def count(members: Sequence[Member]) -> str:
    """Return the number of runs in words."""
    return f"{len(members)} run{'s' * (len(members) > 1)}"


def finished(folder: Path, kind: str, method: str, members: Sequence[Member]) -> Record | None:
    """Return the record in a folder if it is that of this method and these runs, as they are now.

    Raises:
        ConfigError: the folder has another run.
    """
    try:
        record = Record.read(folder)
    except RecordError:
        return None
    if record is None:
        return None
    if record.made_from is None or record.run_id != result_id(kind, method, members):
        raise ConfigError(f"{folder} has the record of something else ({record.run_id}); give another --name")
    if record.status != "completed":
        return None
    then = sorted((run["run_id"], run.get("ended")) for run in record.made_from["runs"])
    return record if then == sorted((member.name, member.record.ended) for member in members) else None


def made_record(
    kind: str,
    method: str,
    members: Sequence[Member],
    parts: Parts,
    *,
    config: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any],
) -> Record:
    """Return the record of a result, without its metrics.

    Args:
        kind, method, members: see `choose_folder`.
        parts: of a run on the same data.
        config: of the result; None for what those of the members have in common.
        settings: what was chosen on validation.
    """
    records = [member.record for member in members]
    config = common_config([record.config for record in records]) if config is None else dict(config)
    config["names"] = config["names"] | {
        "made_from": f"{method} of {count(members)}" if kind == "ensemble" else f"merge by {method}"
    }
    seconds = [record.seconds.get("train", 0.0) for record in records]
    groups = dict.fromkeys(group for record in records for group in record.parameters)
    return Record(
        run_id=result_id(kind, method, members),
        config=config,
        status="completed",
        task_sizes={name: dict(sizes) for name, sizes in parts.task_sizes.items()},
        directions={name: dict(task.directions()) for name, task in parts.tasks.items()},
        main_metrics={name: task.main_metric for name, task in parts.tasks.items()},
        splits={name: asdict(summary) for name, summary in parts.splits.items()},
        learned=dict(records[0].learned),
        data=as_plain(parts.data),
        parameters={group: sum(record.parameters.get(group, 0) for record in records) for group in groups},
        macs=sum(record.macs for record in records),
        seconds={"train": sum(seconds)},
        made_from={
            "method": method,
            "runs": [
                {"run_id": member.name, "folder": str(member.folder), "ended": member.record.ended}
                for member in members
            ],
            "settings": dict(settings),
        },
        started=now(),
        environment=describe(parts.device),
    )


def common_config(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what several configs have in common; options that differ have all of their names, such as `hard, mtan`.

    Raises:
        DataError: they are of different datasets.
    """
    common = _in_common(configs)
    all_names = [config["names"] for config in configs]
    names = {
        group: ", ".join(dict.fromkeys(str(each.get(group)) for each in all_names))
        if group not in common["names"]
        else value
        for group, value in all_names[0].items()
    }
    if "," in str(names.get("dataset")):
        raise DataError(f"runs are on different datasets: {names['dataset']}")
    return common | {"names": names}


def _in_common(nodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first, *others = nodes
    common: dict[str, Any] = {}
    for key, value in first.items():
        values = [other[key] for other in others if key in other]
        if len(values) < len(others):
            continue
        if isinstance(value, Mapping) and all(isinstance(other, Mapping) for other in values):
            common[key] = _in_common([value, *values])
        elif all(other == value and type(other) is type(value) for other in values):
            common[key] = value
    return common
