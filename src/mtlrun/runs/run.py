"""run(): one resolved config, trained once, leaving one record. The page to read first."""

import json
import logging
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from mtlrun.datasets import SPLITS
from mtlrun.errors import WorkerDiedError
from mtlrun.records.config_text import as_yaml
from mtlrun.records.display import make_console
from mtlrun.records.folder import (
    CHECKPOINTS,
    CONFIG,
    LEARNED,
    RECORD,
    SAMPLE_IDS,
    hold,
    is_being_removed,
    open_atomically,
    set_aside,
    start_anew,
    storing,
    sync_folder,
)
from mtlrun.records.identity import find_folder
from mtlrun.records.record import Record, finished_record
from mtlrun.records.stamps import explain_result_of_changed_data
from mtlrun.runs.baselines import add_baselines
from mtlrun.runs.data_changes import (
    check_files,
    check_splits,
    continue_as_begun,
    log_possible_changes,
    record_to_continue,
)
from mtlrun.runs.first_stage import started_from, train_first_stage
from mtlrun.runs.heartbeat import beating
from mtlrun.runs.logs import (
    gathering,
    log_few_evaluations,
    log_found,
    log_plan,
    log_protocol,
    log_undefined,
    log_waiting,
    logging_to,
)
from mtlrun.runs.other_code import note_other_code
from mtlrun.runs.out_of_memory import explaining_out_of_memory
from mtlrun.runs.predictions import keep_predictions
from mtlrun.runs.recording import complete, new_record, record_intervals, recording
from mtlrun.runs.signals import stop_signals
from mtlrun.setup.model_description import SECTION, ModelDescription
from mtlrun.setup.peak_memory import forget_peaks
from mtlrun.setup.prepare import prepare
from mtlrun.setup.trial import try_memory
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.checkpoint import check_version
from mtlrun.training.observers import EpochLines, MetricsFile, Screen, TensorBoard
from mtlrun.training.parts import Parts
from mtlrun.training.trainer import Trainer

logger = logging.getLogger("mtlrun")

StopSignals = Callable[[], AbstractContextManager[Callable[[], int | None]]]


@dataclass(frozen=True)
class PendingStep:
    """A training step that is to be made: the trainer, its batch, and the meta batch if its method looks ahead."""

    trainer: Trainer
    batch: LabeledBatch
    meta_batch: LabeledBatch | None = None


def run(
    config: Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    console: Console | None = None,
    started: float | None = None,
) -> Record:
    """Train the run that `config` describes, or continue it, and return its record.

    A completed run is returned as it is, or with the baselines that it lacks and that are asked for; an interrupted,
    killed or failed one is continued from its last checkpoint.

    Args:
        config: as `mtlrun.config.compose.resolve` or `compose` returns it.
        overrides: what the user typed, for the record.
        console: where to print; standard output if left out.
        started: `time.monotonic()` when the program started, for the time to the first step.

    Raises:
        ConfigError, DataError, CheckpointError: before anything is on disk, but for what this run starts from.
        RunInUseError: another process is training this run.
        LockLostError: the lock of its folder was removed, and another process may be training it.
        StorageError: a file cannot be written: the disk is full, ...
        DivergedError, RunInterruptedError, and whatever else ends a training early; the record holds the reason.
    """
    running = run_by_steps(config, overrides=overrides, console=console, started=started)
    error: BaseException | None = None
    while True:
        try:
            pending = next(running) if error is None else running.throw(error)
        except StopIteration as end:
            record: Record = end.value
            return record
        try:
            pending.trainer.train_step(pending.batch, pending.meta_batch)
            error = None
        except BaseException as raised:
            error = raised


def run_by_steps(
    config: Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    console: Console | None = None,
    started: float | None = None,
    signals: StopSignals = stop_signals,
) -> Generator[PendingStep, None, Record]:
    """Do what `run` does but the training steps, each of which is yielded for the caller to make; return the record.

    What a step raises is to be thrown into the generator, which then ends the run as `run` would.

    Args:
        config, overrides, console, started: see `run`.
        signals: the context in which signals that stop the run are recorded.
    """
    started = time.monotonic() if started is None else started
    record = finished_record(config)
    folder = find_folder(config) or _refuse(config)
    if record is not None:
        changes = explain_result_of_changed_data(record.data, record.started)
        for line in changes:
            logger.warning("%s", line)
        if record.lacks_baselines(config) and not changes:
            _complete_baselines(config, record, folder, console or make_console())
        return record
    train_first_stage(config, overrides, console, run)
    earlier, problem = None, ""
    if not config["runtime"].get("rerun") and not is_being_removed(folder):
        check_version(folder / CHECKPOINTS)
        earlier, problem = record_to_continue(config)
    doubtful = [] if earlier is None else check_files(earlier)
    forget_peaks()
    with gathering() as early_lines:
        if problem:
            logger.warning("%s; it is kept as %s.bad", problem, RECORD)
        parts = prepare(config)
        log_possible_changes(doubtful)
        if earlier is not None:
            parts = continue_as_begun(earlier, parts)
    if earlier is not None:
        check_splits(earlier, parts)
    try_memory(parts, config)
    console = console or make_console()
    with hold(folder) as lock, signals() as stop_signal:
        if parts.runtime.rerun or is_being_removed(folder):
            start_anew(folder)
        elif problem:
            set_aside(folder / RECORD)
        record = new_record(config, parts, overrides)
        record.parent = None if earlier is None else earlier.parent
        record.started_from = started_from(parts.model.init_from)
        with logging_to(folder, console, quiet=parts.runtime.quiet), recording(record, folder):
            if lock.note is not None:
                logger.warning("%s", lock.note)
            write_inputs(parts, record, folder)
            trainer = _make_trainer(parts, record, folder, console, stop_signal)
            try:
                with trainer.observers, beating(folder, trainer):
                    yield from _train(trainer, record, folder, early_lines)
            finally:
                parts.close()
                complete(record, trainer, started)
    return record


def _refuse(config: Mapping[str, Any]) -> NoReturn:
    """Raise ConfigError with all problems of a config that lacks what its folder is named after."""
    prepare(config)
    raise AssertionError("prepare refuses such a config")


def _make_trainer(
    parts: Parts, record: Record, folder: Path, console: Console, stop_signal: Callable[[], int | None]
) -> Trainer:
    quiet, minutes = parts.runtime.quiet, parts.runtime.checkpoint_minutes
    return Trainer(
        parts,
        folder=folder / CHECKPOINTS,
        run_id=record.run_id,
        observers=[MetricsFile(folder), TensorBoard(folder), Screen(console, quiet=quiet), EpochLines()],
        stop_signal=stop_signal,
        checkpoint_seconds=None if minutes is None else 60 * minutes,
    )


def _train(
    trainer: Trainer, record: Record, folder: Path, early_lines: list[logging.LogRecord]
) -> Generator[PendingStep, None, None]:
    """Yield the steps from the newest checkpoint on, and put the result into the record.

    `early_lines` of the log come first.
    """
    parts = trainer.parts
    if trainer.resume():
        logger.info("continued at epoch %d, step %d", trainer.progress.epoch + 1, trainer.progress.step)
    log_found(record)
    for line in early_lines:
        logger.handle(line)
    log_protocol(parts)
    note_other_code(record, folder)
    trainer.observers.started(record, trainer.progress.step)
    log_plan(parts, record)
    try:
        with explaining_out_of_memory(trainer, record.config):
            for batch, meta_batch in trainer.steps():
                yield PendingStep(trainer, batch, meta_batch)
            log_waiting(trainer)
            _find_result(trainer, record, folder)
    except WorkerDiedError:
        trainer.pause_if_asked()  # what stops the run may have ended its workers before
        raise
    trainer.pause_if_asked()
    add_baselines(parts, record)


def _complete_baselines(config: Mapping[str, Any], record: Record, folder: Path, console: Console) -> None:
    """Compute the baselines that a finished run lacks, and write them into its record."""
    parts = prepare(config)
    check_splits(record, parts)
    with hold(folder) as lock, logging_to(folder, console, quiet=parts.runtime.quiet):
        if lock.note is not None:
            logger.warning("%s", lock.note)
        record.notes = list(parts.notes)
        add_baselines(parts, record)
        record.config = dict(config)
        record.write(folder)


def write_inputs(parts: Parts, record: Record, folder: Path) -> None:
    """Write what is known of a run that starts: its config, what was learned from the data, sample IDs, the record."""
    with storing(folder / CHECKPOINTS):
        (folder / CHECKPOINTS).mkdir(exist_ok=True)
    sync_folder(folder)
    with open_atomically(folder / CONFIG) as file:
        file.write(as_yaml(record.config).encode())
    learned = {**parts.learned, SECTION: ModelDescription.of(parts).as_plain()}
    with open_atomically(folder / LEARNED) as file:
        file.write(json.dumps(learned).encode())
    sample_ids = {name: parts.loaders[name].split.sample_ids for name in SPLITS}
    if any(ids is not None for ids in sample_ids.values()):
        with open_atomically(folder / SAMPLE_IDS) as file:
            file.write(json.dumps(sample_ids).encode())
    record.write(folder)


def _find_result(trainer: Trainer, record: Record, folder: Path) -> None:
    """Evaluate the selected model on the test split: the only time that this split is used; keep its predictions.

    Under the legacy protocol it was used all the time, and the result is the mean over the last evaluations, for which
    no single prediction stands.
    """
    if record.protocol == "legacy":
        record.test = trainer.selected.metrics
        log_few_evaluations(trainer.progress.evaluations, trainer.parts)
    else:
        record.val = trainer.selected.metrics
        log_undefined(trainer)
        start = time.monotonic()
        record.test = trainer.test()
        record.seconds["test"] = time.monotonic() - start
        keep_predictions(trainer.parts, trainer.outputs, folder)
        record_intervals(record, trainer.parts, trainer.outputs["test"])
        record.seconds["intervals"] = time.monotonic() - start - record.seconds["test"]
    trainer.observers.tested(trainer.progress.step, record.test)
