"""TensorBoard: one event file per run; a continued run appends to it, without a repeated or missing step."""

import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor
from torch.utils.tensorboard import summary

from mtlrun.records.folder import EVENTS
from mtlrun.records.identity import flatten
from mtlrun.records.record import Record
from mtlrun.training.observers.base import FileObserver, Metrics
from mtlrun.training.observers.metrics_file import tag_metrics


class TensorBoard(FileObserver):
    """Writes scalars, the config as text, and the hyperparameters, all into one event file.

    PyTorch's SummaryWriter opens a new file whenever it is constructed, and puts hyperparameters into a second run; so
    the event file is written here, in TensorBoard's record format.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        existing = sorted(folder.glob(EVENTS))
        path = existing[0] if existing else folder / EVENTS.replace("*", f"{int(time.time())}.mtlrun")
        super().__init__(path)

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        super().load_state_dict(state)
        self._records = RecordWriter(self.file)

    def started(self, record: Record, step: int) -> None:
        super().started(record, step)
        if self.file.size() > 0:
            return
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._summary(
            summary.text("config", "```yaml\n" + yaml.safe_dump(dict(record.config), sort_keys=False) + "```"), 0
        )
        tag = record.evaluation_tag if record.protocol == "standard" else record.result_tag
        metrics = {f"{tag}/{task}/{metric}": 0.0 for task, names in record.directions.items() for metric in names}
        experiment, session_start, _ = summary.hparams(hyperparameters(record.config), metrics)
        self._summary(experiment, 0)
        self._summary(session_start, 0)
        self.file.sync()

    def trained(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        self._scalars(values, step)

    def validated(self, step: int, epoch: int, metrics: Metrics, selected: bool) -> None:
        self._scalars(tag_metrics(self.evaluation_tag, metrics), step)

    def pictured(self, step: int, pictures: Mapping[str, Tensor]) -> None:
        for task, image in pictures.items():
            self._summary(summary.image(f"pictures/{task}", image.numpy(), dataformats="CHW"), step)

    def tested(self, step: int, metrics: Metrics) -> None:
        self._scalars(tag_metrics(self.result_tag, metrics), step)
        self._summary(summary.hparams({}, {})[2], step)  # the session's end

    def find_whole(self, content: bytes) -> tuple[int, int]:
        # An entry is the size of its data, 8 bytes, a checksum of these, 4, the data, and a checksum, 4.
        size = step = 0
        while size + 16 <= len(content):
            header = content[size : size + 8]
            start, end = size + 12, size + 12 + int.from_bytes(header, "little")
            data, found = content[start:end], content[size + 8 : start] + content[end : end + 4]
            if found != struct.pack("<II", masked_crc32c(header), masked_crc32c(data)):
                break
            size, step = end + 4, Event.FromString(data).step
        return (size, step) if step else (0, 0)  # before the first step there is what `started` writes as a whole

    def _scalars(self, values: Mapping[str, float], step: int) -> None:
        content = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._summary(Summary(value=content), step)
        self.file.flush()  # so that a running TensorBoard shows it at once

    def _summary(self, content: Summary, step: int) -> None:
        self._write(Event(wall_time=time.time(), step=step, summary=content))

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())


def hyperparameters(config: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Return the flat config, with the same keys as `mtlrun compare`, and values of types that hparams accepts."""
    return {key: _plain(value) for key, value in flatten(config).items()}


def _plain(value: Any) -> bool | int | float | str:
    if value is None:
        return "null"
    return value if isinstance(value, bool | int | float | str) else str(value)
