"""The thread that writes a run's heartbeat: it beats while the training waits for data, too."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mtlrun.records.heartbeat import Heartbeat, remove_heartbeat, repeating
from mtlrun.training.trainer import Trainer


@contextmanager
def beating(folder: Path, trainer: Trainer) -> Iterator[None]:
    """Let others see how far the training is, until the block ends."""
    beat, began = Heartbeat(total_steps=trainer.total_steps), time.monotonic()

    def write() -> None:
        nonlocal began
        if trainer.first_step_at is None:
            beat.first_step, began = trainer.progress.step, time.monotonic()
        beat.seconds = time.monotonic() - began
        beat.at, beat.step, beat.epoch = time.time(), trainer.progress.step, trainer.progress.epoch
        beat.metrics = trainer.newest_metrics
        beat.write(folder)

    try:
        with repeating(write, "heartbeat"):
            yield
    finally:
        remove_heartbeat(folder)
