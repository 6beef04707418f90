"""The record: what a run leaves behind as data, one JSON file, written atomically."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from mtlrun.config.settings import Protocol
from mtlrun.errors import DataError, RecordError
from mtlrun.records.entries import (
    BootstrapEntries,
    ConfigEntries,
    MadeFromEntries,
    SelectionEntries,
    SkillEntries,
    SplitEntries,
)
from mtlrun.records.folder import RECORD, is_being_removed, open_atomically
from mtlrun.records.identity import find_folder, is_same_run, run_id
from mtlrun.records.json_types import read_as
from mtlrun.records.stamps import Stamp

SCHEMA_VERSION = 2

Status = Literal["running", "completed", "failed", "interrupted", "diverged"]
TaskMetrics = dict[str, dict[str, float]]
_Entries = dict[str, Any]


@dataclass(frozen=True)
class SplitSummary:
    """What a run saw of one split.

    Args:
        samples: number of samples that it used. With `trainer.limit_batches`, in training, those of the first epoch;
            as many others may follow.
        labeled: {task: number of these with its label}; empty if labels cannot be read without loading the inputs.
        fingerprint: of the whole split: equal for the same samples in the same order; None if nothing but their number
            is known.
        available: number of samples of the whole split.
        repeated: number of `samples` with the same inputs as a sample of the training split; None for that split, and
            where it is not counted.
        repeated_in_val: of the test split, number of `samples` with the same inputs as a validation sample.
    """

    samples: int
    labeled: dict[str, int]
    fingerprint: str | None
    available: int
    repeated: int | None = None
    repeated_in_val: int | None = None


@dataclass(frozen=True)
class Match:
    """A backbone width at which one model is as large as another.

    Args:
        width: value of `backbone.width`.
        parameters: number of parameters at this width.
        reference_parameters: number of parameters of the model that was to be matched.
    """

    width: float
    parameters: int
    reference_parameters: int


@dataclass
class Record:
    """Everything that `compare` and a reader of the run may want to know, without opening any other file."""

    run_id: str
    config: Annotated[_Entries, ConfigEntries]
    overrides: list[str] = field(default_factory=list)
    status: Status = "running"  # if no process holds the run's folder, a "running" run was killed
    error: str | None = None
    # {task: {key: number}}, such as num_classes: what the config leaves out of `tasks` and the dataset gave
    task_sizes: dict[str, dict[str, int]] = field(default_factory=dict)
    # {task: {metric: "max" or "min"}}, and the main metric of each task
    directions: dict[str, dict[str, Annotated[str, Literal["max", "min"]]]] = field(default_factory=dict)
    main_metrics: dict[str, str] = field(default_factory=dict)
    # standard: selected on validation, tested once. legacy: test-selected: the test split was evaluated during
    # training, `test` is the mean over the last evaluations, `val` is empty, and best.pt holds the last weights.
    protocol: Protocol = "standard"
    # How and when the checkpoint was selected: {tasks: [...], rule, epoch, step, skill}, one per separate selection.
    # legacy: one entry, rule "last_mean", with the number of `evaluations` in the mean and the `first_epoch` of them.
    selection: list[Annotated[_Entries, SelectionEntries]] = field(default_factory=list)
    # Per task the skill of its main metric on validation: "selected", that of the checkpoint that its result is from,
    # and "best", the highest of all evaluations, with its "best_epoch" and "best_step". Not for legacy.
    skills: dict[str, Annotated[dict[str, float], SkillEntries]] = field(default_factory=dict)
    val: TaskMetrics = field(default_factory=dict)  # at the selected checkpoint
    test: TaskMetrics = field(default_factory=dict)  # once, at the end, on the selected checkpoint; see protocol
    # How much metrics vary over the test samples, by the bootstrap, {"test": {task: {metric: [low, high]}}}; not over
    # seeds; none for dense tasks, detection and legacy. And how that was found: level, seed, resamples, whether whole
    # groups were drawn, {task: number of samples, or groups}, {task: {metric: fraction of resamples without a value}},
    # {task: [metrics with Wilson's interval]}
    intervals: dict[str, dict[str, dict[str, Annotated[list[float], tuple[float, float]]]]] = field(
        default_factory=dict
    )
    bootstrap: Annotated[_Entries, BootstrapEntries] = field(default_factory=dict)
    # Per split the metrics of its best constant prediction, the zero of the skills: {"val": {task: {metric: value}}}
    trivial: dict[str, TaskMetrics] = field(default_factory=dict)
    # What simple predictors that were fitted to the training split get on test: {"constant": {task: {metric: value}},
    # "linear": ..., "boosting": ...}; and what validation chose for them: {"linear": {task: {"penalty": ...}}, ...}
    baselines: dict[str, TaskMetrics] = field(default_factory=dict)
    baseline_settings: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    # {key: number}, such as batch_size: what the config leaves out of `trainer` and the number of training samples gave
    chosen: dict[str, int] = field(default_factory=dict)
    total_steps: int = 0  # planned length; fewer are made if patience runs out
    steps: int = 0
    epochs: int = 0
    # Per split a SplitSummary, as a dictionary; the sample IDs are in splits.json
    splits: dict[str, Annotated[_Entries, SplitEntries]] = field(default_factory=dict)
    # What its user would want to know of the data, such as repeated samples; also in the log
    notes: list[str] = field(default_factory=list)
    # What dataset and tasks learned from the data, such as classes and scales of targets, as in learned.json; a section
    # that would make this file long, such as that of the inputs of a table with thousands of columns, is only there
    learned: dict[str, Any] = field(default_factory=dict)
    # The files and folders that the run read, {path: a Stamp, as a dictionary}; see `mtlrun.records.stamps`
    data: dict[str, Annotated[_Entries, Stamp]] = field(default_factory=dict)
    # Per parameter group: shared, <task>, ..., and one for frozen parameters, which has no learning rate
    parameters: dict[str, int] = field(default_factory=dict)
    learning_rates: dict[str, float] = field(default_factory=dict)  # before the schedule
    macs: int = 0  # of one sample's predictions for all tasks
    match: Annotated[dict[str, float], Match] | None = None  # with match_parameters: a Match, as a dictionary
    passes_per_step: dict[str, int] = field(default_factory=dict)  # forward, backward
    # train: training, validation and checkpoints; waiting: the part of it in which batches of training were waited
    # for; to_first_step: from the start of the program; standard only: test, with the predictions on validation, and
    # intervals, with the file of predictions; baselines: 0 or so if they were known from another run
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_mib: dict[str, float] = field(default_factory=dict)
    fallbacks: int = 0  # steps in which a solver failed and a fallback direction was used
    skipped_steps: int = 0  # with precision=fp16, steps that were not applied, since gradients exceeded it
    # {task: steps without its labels}, under methods that need a label in each of several parts of the batch
    left_out: dict[str, int] = field(default_factory=dict)
    # Of a run that was made from another by `mtlrun extend`: the other's {run_id, folder}, and the `steps` that it had
    parent: dict[str, Any] | None = None
    # {run_id, folder} of the run whose networks this one started from, with `model.init_from`
    started_from: dict[str, Any] | None = None
    # Of what was not trained, but made from finished runs, such as an ensemble: the method, {run_id, folder, ended} of
    # each of the runs, and what was fitted or chosen on validation. `config` is what their configs have in common, and
    # costs are the sums of theirs.
    made_from: Annotated[_Entries, MadeFromEntries] | None = None
    resumed: int = 0  # how often the run was continued from a checkpoint
    # With `trainer.vectorized_seeds`: the seeds that this process trained together, and how many steps of this run were
    # made at once with those of others. Seconds of the training are then this run's part of the time.
    seeds_together: list[int] = field(default_factory=list)
    joint_steps: int = 0
    started: str = ""
    ended: str = ""
    # {"mtlrun": commit of its code, "git": commit of the current folder, where there is one; versions, hardware}
    environment: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def evaluation_tag(self) -> str:
        """Prefix of the metrics of evaluations during training."""
        return "val" if self.protocol == "standard" else "test_selected"

    @property
    def result_tag(self) -> str:
        """Prefix of the metrics that are the run's result."""
        return "test" if self.protocol == "standard" else "test_selected_mean"

    def lacks_baselines(self, config: Mapping[str, Any]) -> bool:
        """Return True if `config`, of this run, asks for all baselines, and the run was completed without asking."""
        asked = config["trainer"].get("baselines") is True
        return asked and self.status == "completed" and self.config["trainer"].get("baselines") is not True

    def write(self, folder: Path) -> None:
        """Write `record.json` atomically."""
        text = json.dumps(dataclasses.asdict(self), indent=2, allow_nan=True)
        with open_atomically(folder / RECORD) as file:
            file.write(text.encode())

    @classmethod
    def read(cls, folder: Path) -> "Record | None":
        """Return the record in `folder`, or None if there is none, or it is being removed.

        Raises:
            RecordError: it cannot be read, or is not what a record is.
            DataError: it was written by a later version of mtlrun.
        """
        path = folder / RECORD
        if is_being_removed(folder):
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise RecordError(f"{path} cannot be read ({error.strerror or error})") from error
        except (ValueError, RecursionError) as error:
            raise RecordError(f"{path} is no record of a run (not JSON)") from error
        if not isinstance(content, dict) or not {"run_id", "config"} <= content.keys():
            raise RecordError(f"{path} is no record of a run (without `run_id` and `config`)")
        version = content.get("schema_version")
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise DataError(
                f"{path} has schema version {version}, and this version of mtlrun reads up to {SCHEMA_VERSION}; use "
                "the version that wrote it, or a later one"
            )
        record = cls(**_as_fields(content, path))
        problem = record._find_contradiction()
        if problem:
            raise RecordError(f"{path} is no record of a run ({problem})")
        return record

    def _find_contradiction(self) -> str:
        """Return in words what of the record is missing, "" if nothing is."""
        for task, metric in self.main_metrics.items():
            if metric not in self.directions.get(task, {}):
                return f"without a direction of {metric}, the main metric of {task}"
            if self.status == "completed" and metric not in self.test.get(task, {}):
                return f"`status` is completed, and `test` lacks {metric} of {task}"
        legacy = self.protocol == "legacy" and bool(self.test)
        if legacy and [{"evaluations", "first_epoch"} <= entry.keys() for entry in self.selection] != [True]:
            return "`protocol` is legacy, and `selection` is not one mean"
        return ""


@cache
def _hints() -> dict[str, Any]:
    """Return the annotations of the fields of a record."""
    return get_type_hints(Record, include_extras=True)


def _as_fields(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the fields of a record that was read from a file."""
    fields = {}
    field = "schema_version"
    try:
        if content.get(field) == 1:
            content = _from_version_1(content)
        for field, hint in _hints().items():
            if field in content:
                fields[field] = read_as(hint, content[field])
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise RecordError(f"{path} is no record of a run (`{field}` has a wrong type)") from error
    return fields


def find_record(config: Mapping[str, Any]) -> tuple[Record | None, str]:
    """Return the record of this run, and what is wrong with the file if that is another one, or none.

    Raises:
        DataError: it was written by a later version of mtlrun.
    """
    folder = find_folder(config)
    if folder is None:
        return None, ""
    try:
        record = Record.read(folder)
        if record is not None and (record.run_id != run_id(config) or not is_same_run(record.config, config)):
            raise RecordError(f"{folder / RECORD} is the record of another run")
        lacking = [task for task in config.get("tasks", {}) if record and task not in record.main_metrics]
        if record is not None and lacking:
            raise RecordError(f"{folder / RECORD} lacks task {lacking[0]} of this run")
    except RecordError as error:
        return None, str(error)
    return record, ""


def finished_record(config: Mapping[str, Any]) -> Record | None:
    """Return the record of this run if there is nothing left to train: it is completed, or has diverged."""
    if find_folder(config) is None or config["runtime"].get("rerun"):
        return None
    record, _ = find_record(config)
    return record if record is not None and record.status in ("completed", "diverged") else None


def _from_version_1(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record of schema version 1 with the names of version 2; its config stays as it was composed."""
    new = {**content, "macs": content.get("multiply_adds", 0), "schema_version": SCHEMA_VERSION}
    new["splits"] = {
        name: {"labeled" if key == "labelled" else key: value for key, value in split.items()}
        for name, split in content.get("splits", {}).items()
    }
    new["selection"] = [
        entry | ({"rule": "mean_relative_gain"} if entry.get("rule") == "gain" else {})
        for entry in content.get("selection", [])
    ]
    match = content.get("match")
    if match is not None:
        new["match"] = {"reference_parameters" if key == "wanted" else key: value for key, value in match.items()}
    return new
