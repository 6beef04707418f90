"""run(): one resolved config, trained once, leaving one record. The page to read first."""

import json
import logging
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from mtlrun.datasets import SPLITS
from mtlrun.errors import DivergedError, MtlrunError, RunInterruptedError
from mtlrun.records.display import make_console
from mtlrun.records.folder import CHECKPOINTS, CONFIG, finished_record, hold, start_anew
from mtlrun.records.identity import run_folder, run_id
from mtlrun.records.record import Record, write_atomically
from mtlrun.setup.environment import describe, peak_memory_mib
from mtlrun.setup.loaders import tell_draws
from mtlrun.setup.prepare import Parts, make_trainer, prepare
from mtlrun.training.observers import MetricsFile, Observer, RunInfo, Screen, TensorBoard
from mtlrun.training.observers.console import logging_handler
from mtlrun.training.trainer import Trainer

logger = logging.getLogger("mtlrun")


def run(
    config: Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    console: Console | None = None,
    started: float | None = None,
) -> Record:
    """Train the run that `config` describes, or continue it, and return its record.

    A run that is completed is returned as it is; an interrupted, killed or failed one goes on from its last checkpoint.

    Args:
        config: as `mtlrun.config.compose.resolve` or `compose` returns it.
        overrides: what the user typed, for the record.
        console: where the screen is; standard output if left out.
        started: `time.time()` when the program started, for the time to the first step.

    Raises:
        ConfigError, DataError: before anything is on disk.
        RunInUseError: another process is training this run.
        DivergedError, RunInterruptedError, and whatever else ends a training; the record says so.
    """
    started = time.time() if started is None else started
    record = finished_record(config)
    if record is not None:
        return record
    parts = prepare(config)
    folder = run_folder(config)
    with hold(folder):
        if parts.runtime.rerun:
            start_anew(folder)
        return _train(config, parts, folder, list(overrides), console or make_console(), started)


def _train(
    config: Mapping[str, Any], parts: Parts, folder: Path, overrides: list[str], console: Console, started: float
) -> Record:
    """Train in a folder that this process holds."""
    (folder / CHECKPOINTS).mkdir(exist_ok=True)
    write_atomically(folder / CONFIG, _as_yaml(config).encode())
    record = _new_record(config, parts, overrides)
    record.write(folder)
    _write_identifiers(parts, folder)
    screen = Screen(console, quiet=parts.runtime.quiet)
    observers: list[Observer] = [MetricsFile(folder), TensorBoard(folder), screen]
    with _logging(folder, console, quiet=parts.runtime.quiet), _stop_signals() as stop_signal:
        minutes = parts.runtime.checkpoint_minutes
        trainer = make_trainer(
            parts,
            folder=folder / CHECKPOINTS,
            observers=observers,
            stop_signal=stop_signal,
            checkpoint_seconds=None if minutes is None else 60 * minutes,
        )
        try:
            if trainer.resume():
                logger.info("continued at epoch %d, step %d", trainer.progress.epoch + 1, trainer.progress.step)
            for observer in observers:
                observer.started(_run_info(config, parts, folder, trainer), trainer.progress.step)
            _tell_match(config, parts)
            tell_draws(parts.loaders["train"], parts.tasks, trainer.total_steps)
            _warn_of_warm_up(trainer)
            trainer.fit()
            _find_result(trainer, parts, record, observers)
            record.status = "completed"
        except BaseException as error:
            record.status = _status_of(error)
            record.error = str(error) if isinstance(error, MtlrunError) else f"{type(error).__name__}: {error}"
            if record.status == "failed" and not isinstance(error, MtlrunError):
                logger.debug("%s", error, exc_info=True)  # the traceback, to run.log only
            raise
        finally:
            for observer in observers:
                observer.closed()
            _complete(record, trainer, parts, started)
            record.write(folder)
            logger.info("%s: %s%s", folder, record.status, f" ({record.error})" if record.error else "")
    return record


def _write_identifiers(parts: Parts, folder: Path) -> None:
    """Save which samples each split is made of, where the dataset can tell."""
    found = {name: getattr(parts.loaders[name].split, "sample_ids", None) for name in SPLITS}
    if any(names is not None for names in found.values()):
        write_atomically(folder / "splits.json", json.dumps(found).encode())


def _tell_match(config: Mapping[str, Any], parts: Parts) -> None:
    """Say which width was chosen, and how near it comes."""
    if parts.match is not None:
        logger.info(
            "backbone.width=%g: %s parameters, model=%s has %s",
            parts.match.width,
            f"{parts.match.parameters:,}",
            config["names"]["match_parameters"],
            f"{parts.match.wanted:,}",
        )


def _warn_of_warm_up(trainer: Trainer) -> None:
    """Say so if the run is too short for its weighting ever to be itself."""
    first, epochs = trainer.weighting.first_epoch, trainer.total_steps / trainer.steps_per_epoch
    if epochs < first:
        name = type(trainer.weighting).__name__
        logger.warning(
            "%s is itself only from epoch %d on, and this run has %g: it trains as in warm-up", name, first, epochs
        )


def _find_result(trainer: Trainer, parts: Parts, record: Record, observers: Sequence[Observer]) -> None:
    """Evaluate the selected checkpoint on the test split: the only time that this split is looked at.

    Under the legacy protocol it was looked at all the time, and nothing is evaluated here.
    """
    found = {task: values for selection in trainer.selections for task, values in selection.metrics.items()}
    wanted = parts.dataset.averaged_evaluations
    if wanted is not None:
        record.test = found
        if trainer.progress.evaluations < wanted:
            logger.warning(
                "the result is the mean over %d evaluations, and the protocol's is over the last %d; train for longer",
                trainer.progress.evaluations,
                wanted,
            )
    else:
        trainer.load_best()
        record.val = found
        start = time.monotonic()
        record.test = trainer.evaluate("test")
        record.seconds["test"] = time.monotonic() - start
    for observer in observers:
        observer.tested(trainer.progress.step, record.test)


def _status_of(error: BaseException) -> Any:
    if isinstance(error, DivergedError):
        return "diverged"
    return "interrupted" if isinstance(error, RunInterruptedError | KeyboardInterrupt) else "failed"


def _new_record(config: Mapping[str, Any], parts: Parts, overrides: list[str]) -> Record:
    forward, backward = parts.weighting.passes(len(parts.tasks))
    if parts.settings.micro_batches > 1:
        forward += parts.weighting.needs_batch_losses
    return Record(
        run_id=run_id(config),
        config=dict(config),
        overrides=overrides,
        directions=parts.directions,
        main_metrics=parts.main_metrics,
        protocol="standard" if parts.dataset.averaged_evaluations is None else "legacy",
        splits={name: asdict(summary) for name, summary in parts.splits.items()},
        parameters={name: count for name, count, _ in _groups(parts)},
        macs=parts.macs,
        match=None if parts.match is None else asdict(parts.match),
        passes_per_step={"forward": forward, "backward": backward},
        started=_now(),
        environment=describe(parts.device),
    )


def _complete(record: Record, trainer: Trainer, parts: Parts, started: float) -> None:
    """Write into the record what is known only at the end."""
    progress = trainer.progress
    record.steps = progress.step
    record.epochs = progress.epoch + (progress.batch == trainer.steps_per_epoch)
    record.selection = [selection.summary() for selection in trainer.selections if selection.number]
    record.resumed = progress.resumed
    record.fallbacks = parts.weighting.fallbacks
    record.seconds["train"] = progress.seconds
    if trainer.first_step_at is not None:
        record.seconds["to_first_step"] = trainer.first_step_at - started
    record.peak_memory_mib = peak_memory_mib(parts.device)
    record.ended = _now()


def _run_info(config: Mapping[str, Any], parts: Parts, folder: Path, trainer: Trainer) -> RunInfo:
    return RunInfo(
        run_id=run_id(config),
        folder=folder,
        config=config,
        directions=parts.directions,
        main_metrics=parts.main_metrics,
        parameter_groups=_groups(parts),
        labeled={name: (summary.samples, summary.labeled) for name, summary in parts.splits.items()},
        macs=parts.macs,
        total_steps=trainer.total_steps,
        steps_per_epoch=trainer.steps_per_epoch,
        averaged_evaluations=parts.dataset.averaged_evaluations,
    )


def _groups(parts: Parts) -> list[tuple[str, int, float]]:
    """Return (name, number of parameters, learning rate) of each group, with one for what is frozen."""
    found = [(group["name"], _count(group["params"]), group["initial_lr"]) for group in parts.optimizer.param_groups]
    frozen = _count([parameter for parameter in parts.model.parameters() if not parameter.requires_grad])
    return [*found, ("frozen", frozen, 0.0)] if frozen else found


def _count(parameters: Sequence[Any]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _as_yaml(config: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(config), sort_keys=False)


@contextmanager
def _logging(folder: Path, console: Console, *, quiet: bool) -> Iterator[None]:
    """Send the log to run.log and to the screen while the run lasts."""
    to_file = logging.FileHandler(folder / "run.log")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handlers = [to_file, logging_handler(console, quiet=quiet)]
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


@contextmanager
def _stop_signals() -> Iterator[Any]:
    """Note SIGINT and SIGTERM and let the trainer finish its step; the second one stops the program at once."""
    received: list[int] = []

    def note(number: int, _: Any) -> None:
        received.append(number)
        signal.signal(number, previous[number])

    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # Python lets no other thread set handlers
        previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
