"""A probe: a few steps and one evaluation of a run, timed, from which the time and the disk of the whole follow."""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mtlrun.records.folder import LAST
from mtlrun.setup.prepare import prepare
from mtlrun.training.trainer import Trainer

#: Seconds that the steps of a probe may take, and their number at most.
_SECONDS, _STEPS = 3.0, 50


@dataclass
class Probe:
    """What one run takes.

    Args:
        seconds_to_start: preparing it, with what is read of the data.
        seconds_per_step: the mean over a few steps after the first one.
        seconds_per_evaluation: of the validation split; of the second one, unless they are long.
        steps, evaluations: planned; patience may end a run earlier.
        checkpoint_bytes: of one file of the training's state.
    """

    seconds_to_start: float
    seconds_per_step: float
    seconds_per_evaluation: float
    steps: int
    evaluations: int
    checkpoint_bytes: int


def probe(config: Mapping[str, Any]) -> dict[str, Any]:
    """Measure what a run takes, and return the fields of a `Probe`. Leaves nothing on disk.

    Raises:
        ConfigError, DataError: the run cannot be trained.
    """
    started = time.monotonic()
    parts = prepare(config)
    seconds_to_start = time.monotonic() - started
    with tempfile.TemporaryDirectory(prefix="mtlrun-probe-") as folder:
        trainer = Trainer(parts, folder=Path(folder))
        parts.model.train()
        times = []
        begun = time.monotonic()
        for batch, meta_batch in trainer.batches():
            trainer.train_step(batch, meta_batch)
            _wait_for(parts.device)
            trainer.progress.step += 1
            times.append(time.monotonic())
            if len(times) > _STEPS or times[-1] - begun > _SECONDS:
                break
        per_step = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else times[0] - begun
        for _ in range(2):
            begun = time.monotonic()
            trainer.evaluate("val")
            seconds_per_evaluation = time.monotonic() - begun
            if seconds_per_evaluation > _SECONDS:
                break  # beside this, what the first one takes longer, such as the import of torchmetrics, is little
        trainer.save()
        checkpoint_bytes = (Path(folder) / LAST).stat().st_size
        parts.close()
    every = parts.settings.evaluate_every_steps or (parts.settings.evaluate_every or 1) * parts.steps_per_epoch
    evaluations = -(-parts.total_steps // every)
    return asdict(Probe(seconds_to_start, per_step, seconds_per_evaluation, parts.total_steps, evaluations,
                        checkpoint_bytes))  # fmt: skip


def _wait_for(device: Any) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
