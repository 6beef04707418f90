"""The log of a run: where its lines go, and the lines about the run as a whole."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from math import isnan
from pathlib import Path
from typing import TextIO

from rich.console import Console

from mtlrun.datasets.base import BatchSplit
from mtlrun.errors import RunInterruptedError
from mtlrun.records.display import TEST_SELECTED, print_line
from mtlrun.records.folder import LOG
from mtlrun.records.notes import NOTED
from mtlrun.records.printable import printable
from mtlrun.records.record import Record
from mtlrun.setup.loaders import log_sampling
from mtlrun.training.parts import Parts
from mtlrun.training.trainer import Trainer

logger = logging.getLogger("mtlrun")

_LARGE_STEP = 5e9  # MACs of a forward pass of a batch, with which a step takes about a second on one thread
_MOST_THREADS = 8
# Seconds in which batches were waited for, and the fraction of the training time, that are worth a line.
_WORTH_A_LINE, _LONG_WAIT = 1.0, 0.1


class _Expendable(logging.Handler):
    """A handler without which a run goes on: if it cannot write a line, a warning to all others says so.

    Args:
        name: of what the lines go to.
        write: writes a line.
    """

    def __init__(self, name: str, write: Callable[[str], None]) -> None:
        super().__init__()
        self._title, self._write, self._has_failed = name, write, False

    def emit(self, record: logging.LogRecord) -> None:
        if self._has_failed:
            return
        try:
            line = printable(self.format(record))
        except Exception:  # a wrong line of code
            self.handleError(record)
            return
        try:
            self._write(line)
        except (KeyboardInterrupt, RunInterruptedError):
            raise
        except BaseException as error:  # that is, SystemExit as well, which Rich raises for a closed pipe
            self._has_failed = True
            reason = (isinstance(error, OSError) and error.strerror) or error
            logger.warning("%s", f"{self._title} cannot be written: {reason}; the run goes on without it", extra=NOTED)


class _LogFile:
    """run.log, made with its first line.

    Args:
        path: of the file, to which lines are appended.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    def write(self, line: str) -> None:
        """Append a line."""
        if self._file is None:
            self._file = open(self._path, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
            if self._path.read_bytes()[-1:] not in (b"", b"\n"):  # the run was killed half way through a line
                self._file.write("\n")
        self._file.write(line + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()


@contextmanager
def logging_to(folder: Path, console: Console, *, quiet: bool) -> Iterator[None]:
    """Send log lines to run.log in `folder` and to the console."""
    file = _LogFile(folder / LOG)
    to_file = _Expendable(str(folder / LOG), file.write)
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    to_screen = _Expendable("the screen", partial(print_line, console))
    to_screen.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    for handler in (to_file, to_screen):
        logger.addHandler(handler)
    try:
        yield
    finally:
        for handler in (to_file, to_screen):
            logger.removeHandler(handler)
        file.close()


class _Gatherer(logging.Handler):
    """A handler that keeps log lines in a list."""

    def __init__(self, lines: list[logging.LogRecord]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record)


@contextmanager
def gathering() -> Iterator[list[logging.LogRecord]]:
    """Gather the log lines of the block, which come before there is a run folder and a screen to show them on."""
    lines: list[logging.LogRecord] = []
    handler = _Gatherer(lines)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def log_found(record: Record) -> None:
    """Log a line on each task whose kind was found in the data, with the words that change it."""
    found = record.config.get("found", {})
    if found:
        logger.info("found in the data; to choose another kind of task: +task@tasks.<name>=<kind>")
    for task, line in found.items():
        logger.info("  %s: %s", task, line)


def log_protocol(parts: Parts) -> None:
    """Log that results will be test-selected, under the legacy protocol."""
    if parts.dataset.protocol == "legacy":
        logger.info(
            "%s: the test split is evaluated during training, and the result is the mean over the last %d evaluations",
            TEST_SELECTED,
            parts.dataset.averaged_evaluations,
        )


def log_plan(parts: Parts, record: Record) -> None:
    """Log what is unusual about the run: its width, its images or sampling, or a length too short for its weighting."""
    if parts.match is not None:
        logger.info(
            "backbone.width=%g: %s parameters, model=%s has %s",
            parts.match.width,
            f"{parts.match.parameters:,}",
            record.config["names"]["match_parameters"],
            f"{parts.match.reference_parameters:,}",
        )
    for task, sizes in record.task_sizes.items():
        for key, size in sizes.items():
            logger.info("tasks.%s.%s=%d, from the data", task, key, size)
    if parts.chosen:
        numbers = ", ".join(f"trainer.{key}={number}" for key, number in parts.chosen.items())
        logger.info("%s, for %s training samples", numbers, f"{len(parts.loaders['train'].split):,}")
    cores, threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1, parts.runtime.num_threads
    per_step = parts.macs * parts.loaders["train"].batch_size
    if parts.device.type == "cpu" and threads is None and cores > 1 and per_step >= _LARGE_STEP:
        logger.info(
            "training on one thread of %d; runtime.num_threads=%d may be faster for a network of this size, and is "
            "another run",
            cores,
            min(cores, _MOST_THREADS),
        )
    weights, normalization = record.config["backbone"].get("weights"), parts.dataset.normalization
    if weights is not None and normalization not in (None, "imagenet"):
        logger.warning(
            "backbone.weights=%s: pretrained weights expect images normalized as in their training, and these are not "
            "(dataset.normalize=%s); use dataset.normalize=imagenet",
            weights,
            normalization,
        )
    found = record.config.get("found", {})
    for note in record.notes:
        if not _was_shown(note, found):
            logger.warning("%s", note)
    log_sampling(parts.loaders["train"], parts.tasks, parts.total_steps)
    epochs = parts.total_steps / parts.steps_per_epoch
    for method in parts.weighting.methods():
        if epochs <= method.first_epoch - 1:
            logger.warning(
                "%s warms up until epoch %d; this run has %s, so it never leaves warm-up",
                type(method).__name__,
                method.first_epoch,
                f"{epochs:g} epoch{'' if epochs == 1 else 's'}",
            )


def _was_shown(note: str, found: Mapping[str, str]) -> bool:
    """Return True if the line on the kind that was found for a task has what a note on its labels says."""
    advice = note.rpartition(": ")[2]
    return any(
        note.startswith(f"task {task}: ") and (advice in line or " by value" in note) for task, line in found.items()
    )


def log_waiting(trainer: Trainer) -> None:
    """Log which part of the training was spent on waiting for batches, if it is large, and what would make it less."""
    progress, parts = trainer.progress, trainer.parts
    if progress.waiting < _WORTH_A_LINE or progress.waiting < _LONG_WAIT * progress.seconds:
        return
    logger.info(
        "batches were waited for in %.0f of %.0f s of training (%.0f %%); %s",
        progress.waiting,
        progress.seconds,
        100 * progress.waiting / progress.seconds,
        _advice_on_waiting(parts),
    )


def _advice_on_waiting(parts: Parts) -> str:
    """Return in words what would make batches available sooner."""
    split, workers = parts.loaders["train"].split, parts.runtime.num_workers
    if not isinstance(split, BatchSplit) or (split.is_random and parts.device.type == "cpu"):
        read_once = "dataset.cache=memory reads each file once, and " if parts.dataset.cache == "none" else ""
        return f"{read_once}runtime.num_workers={max(2 * workers, 4)} loads samples in as many processes"
    if split.device != parts.device:
        return "dataset.cache=device makes them on the GPU, if it has room for the samples"
    return "a larger trainer.batch_size makes fewer of them"


def log_undefined(trainer: Trainer) -> None:
    """Warn of tasks without a finite value in any evaluation, by which nothing can be selected."""
    for task, best in trainer.task_bests.summary().items():
        if isnan(best["skill"]):
            logger.warning(
                "task %s: %s is not finite in any evaluation of the validation split, so this task had no say in which "
                "checkpoint is selected",
                task,
                trainer.parts.skills.compared(task, trainer.parts.tasks[task].main_metric),
            )


def log_few_evaluations(num_evaluations: int, parts: Parts) -> None:
    """Warn if the mean of the legacy protocol is over fewer evaluations than it should be."""
    if num_evaluations < parts.dataset.averaged_evaluations:
        logger.warning(
            "the result is the mean over %d evaluations, and the protocol's is over the last %d; train for longer",
            num_evaluations,
            parts.dataset.averaged_evaluations,
        )
