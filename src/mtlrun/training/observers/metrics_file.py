"""The file metrics.jsonl: every number of the run's curves, one JSON object per line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtlrun.records.folder import METRICS
from mtlrun.records.record import Record
from mtlrun.training.observers.base import FileObserver, Metrics


class MetricsFile(FileObserver):
    """Writes `{"split": "train", "step": ..., "epoch": ..., <tag>: <value>, ...}` lines.

    The splits are `train`, `val` and `test`; under the legacy protocol `train`, `test_selected` for the evaluations
    during training, and `test_selected_mean` for the result.

    These are the data, of which the event file and the screen are views: a run that cannot write them ends, to be
    continued once it can.

    Args:
        folder: the run's folder.
    """

    required = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / METRICS)
        self._selects = True

    def started(self, record: Record, step: int) -> None:
        super().started(record, step)
        self._selects = record.protocol == "standard"

    def trained(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        self._line(split="train", step=step, epoch=epoch, **values)

    def validated(self, step: int, epoch: int, metrics: Metrics, selected: bool) -> None:
        mark = {"selected": selected} if self._selects else {}
        tag = self.evaluation_tag
        self._line(split=tag, step=step, epoch=epoch, **mark, **tag_metrics(tag, metrics))

    def tested(self, step: int, metrics: Metrics) -> None:
        self._line(split=self.result_tag, step=step, **tag_metrics(self.result_tag, metrics))

    def find_whole(self, content: bytes) -> tuple[int, int]:
        size = step = 0
        for line in content.split(b"\n")[:-1]:
            try:
                step = int(json.loads(line)["step"])
            except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
                break
            size += len(line) + 1
        return size, step

    def _line(self, **values: Any) -> None:
        self.file.write(json.dumps(values).encode() + b"\n")


def tag_metrics(tag: str, metrics: Metrics) -> dict[str, float]:
    """Return {"<tag>/<task>/<metric>": value}."""
    return {f"{tag}/{task}/{name}": value for task, values in metrics.items() for name, value in values.items()}
