"""The record: what a run leaves behind as data, one JSON file, written atomically."""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

SCHEMA_VERSION = 1
FILE_NAME = "record.json"

Status = Literal["running", "completed", "failed", "interrupted", "diverged"]
Protocol = Literal["standard", "legacy"]
TaskMetrics = dict[str, dict[str, float]]


@dataclass
class Record:
    """Everything that `compare` and a reader of the run may want to know, without opening any other file."""

    run_id: str
    config: dict[str, Any]
    overrides: list[str] = field(default_factory=list)
    status: Status = "running"  # "running" of a run that no process holds means that it was killed
    error: str | None = None
    # {task: {metric: "max" or "min"}}, and which of them is the task's main one
    directions: dict[str, dict[str, str]] = field(default_factory=dict)
    main_metrics: dict[str, str] = field(default_factory=dict)
    # standard: selected on validation, tested once. legacy: test-selected; the test split was evaluated on the way,
    # `test` is the mean over the last evaluations, `val` is empty, and best.pt holds the last weights.
    protocol: Protocol = "standard"
    # How the checkpoint was selected, and where: {tasks: [...], rule, epoch, step}, one entry per separate selection.
    # legacy: one entry, rule "last_mean", with the number of `evaluations` in the mean, and the `first_epoch` of them.
    selection: list[dict[str, Any]] = field(default_factory=list)
    val: TaskMetrics = field(default_factory=dict)  # at the selected checkpoint
    test: TaskMetrics = field(default_factory=dict)  # once, at the end, on the selected checkpoint; see protocol
    steps: int = 0
    epochs: int = 0
    # {split: {samples, labeled: {task: samples with its label}, fingerprint}}; the samples' names are in splits.json
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)  # per group: shared, <task>, ..., and frozen ones
    macs: int = 0  # of one sample's predictions for all tasks
    # With match_parameters: the backbone's width, the parameters of the model that was to be matched, and of this one
    match: dict[str, float] | None = None
    passes_per_step: dict[str, int] = field(default_factory=dict)  # forward, backward
    # train: training, validation and checkpoints; to_first_step: from the start of the program; test, but for legacy
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_mib: dict[str, float] = field(default_factory=dict)
    fallbacks: int = 0  # how often a solver failed and something else was done
    resumed: int = 0  # how often the run was continued from a checkpoint
    started: str = ""
    ended: str = ""
    environment: dict[str, Any] = field(default_factory=dict)  # git commit, versions, hardware
    schema_version: int = SCHEMA_VERSION

    def write(self, folder: Path) -> None:
        """Write `record.json` so that a reader, or a crash, sees the old or the new one, never a half."""
        text = json.dumps(dataclasses.asdict(self), indent=2, allow_nan=True)
        write_atomically(folder / FILE_NAME, text.encode())

    @classmethod
    def read(cls, folder: Path) -> "Record | None":
        """Return the record in `folder`, or None where there is none that can be read."""
        try:
            content = json.loads((folder / FILE_NAME).read_text())
        except (OSError, json.JSONDecodeError):
            return None
        known = {item.name for item in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in content.items() if key in known})


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, bring it to the disk, then give it its name."""
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
