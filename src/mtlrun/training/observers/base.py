"""What an observer is told, and the append-only file that two of them write."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

Metrics = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class RunInfo:
    """What is known of a run when it starts.

    Args:
        run_id: its name.
        folder: where it writes.
        config: the resolved config.
        directions: {task: {metric: "max" or "min"}}.
        main_metrics: {task: metric}.
        parameter_groups: (name, number of parameters, learning rate) of each group of the optimizer.
        labeled: {split: (samples, {task: samples that carry its label})}; no tasks where that is not known.
        macs: of one sample's predictions for all tasks.
        total_steps, steps_per_epoch: the length of the training, if it is not stopped early.
        averaged_evaluations: over how many of the last evaluations on the test split the result is a mean; None where a
            checkpoint is selected on validation.
    """

    run_id: str
    folder: Path
    config: Mapping[str, Any]
    directions: Mapping[str, Mapping[str, str]]
    main_metrics: Mapping[str, str]
    parameter_groups: Sequence[tuple[str, int, float]]
    labeled: Mapping[str, tuple[int, Mapping[str, int]]]
    macs: int
    total_steps: int
    steps_per_epoch: int
    averaged_evaluations: int | None = None

    @property
    def evaluated(self) -> str:
        """What stands before the metrics of the evaluations on the way."""
        return "val" if self.averaged_evaluations is None else "test_selected"

    @property
    def result(self) -> str:
        """What stands before the metrics that are the run's result."""
        return "test" if self.averaged_evaluations is None else "test_selected_mean"


class Observer:
    """Told of what happens in a run; every method may be left out.

    An observer that writes files gives their sizes as its state, and cuts them back to these when a run is continued,
    so that nothing stands in them twice.
    """

    def started(self, info: RunInfo, step: int) -> None:
        """The run starts, or goes on, at `step`. Called after the state has been restored."""

    def trained(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """`trainer.log_every` more steps were made; `values` are means over them, by TensorBoard's tags."""

    def validated(self, step: int, epoch: int, metrics: Metrics, selected: bool) -> None:
        """The validation split was evaluated; `selected`: this is now the best checkpoint.

        With `RunInfo.averaged_evaluations` it was the test split, and nothing is selected, whatever `selected` says.
        """

    def pictured(self, step: int, pictures: Mapping[str, Tensor]) -> None:
        """{task: image [3, height, width] of bytes} of some validation samples, right after `validated`."""

    def tested(self, step: int, metrics: Metrics) -> None:
        """The selected checkpoint was evaluated on the test split, or the last evaluations' means were taken."""

    def closed(self) -> None:
        """The run ended, in whatever way."""

    def state_dict(self) -> dict[str, int]:
        """Bring everything to the disk and return what a continued run needs to know."""
        return {}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restore; an empty state means that the run starts anew. Called before `started`."""


class AppendFile:
    """A file that only grows, and can be cut back to an earlier size.

    Args:
        path: made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.file: BinaryIO = open(path, "ab")  # noqa: SIM115 (open as long as the run)

    def write(self, content: bytes) -> None:
        """Append."""
        self.file.write(content)

    def sync(self) -> int:
        """Bring the content to the disk and return the size."""
        self.file.flush()
        os.fsync(self.file.fileno())
        return self.file.tell()

    def cut(self, size: int) -> None:
        """Forget what was written after the file had this size."""
        self.file.truncate(size)
        self.file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the file."""
        self.file.close()
