"""TensorBoard: one event file per run, which a continued run goes on writing without a doubled or missing step."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor
from torch.utils.tensorboard import summary

from mtlrun.training.observers.base import AppendFile, Metrics, Observer, RunInfo
from mtlrun.training.observers.metrics_file import flatten


class TensorBoard(Observer):
    """Writes scalars, the config as text, and the hyper-parameters, all into one event file.

    PyTorch's SummaryWriter opens a new file whenever it is made and puts hyper-parameters into a second run; so the
    event file is written here, with TensorBoard's own record format.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        existing = sorted(folder.glob("events.out.tfevents.*"))
        path = existing[0] if existing else folder / f"events.out.tfevents.{int(time.time())}.mtlrun"
        self._file = AppendFile(path)
        self._records = RecordWriter(self._file)
        self._evaluated, self._result = "val", "test"

    def started(self, info: RunInfo, step: int) -> None:
        self._evaluated, self._result = info.evaluated, info.result
        if self._file.file.tell() > 0:
            return
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._summary(
            summary.text("config", "```yaml\n" + yaml.safe_dump(dict(info.config), sort_keys=False) + "```"), 0
        )
        shown = info.evaluated if info.averaged_evaluations is None else info.result
        metrics = {f"{shown}/{task}/{metric}": 0.0 for task, names in info.directions.items() for metric in names}
        experiment, session_start, _ = summary.hparams(_flat(info.config), metrics)
        self._summary(experiment, 0)
        self._summary(session_start, 0)
        self._file.sync()

    def trained(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        self._scalars(values, step)

    def validated(self, step: int, epoch: int, metrics: Metrics, selected: bool) -> None:
        self._scalars(flatten(self._evaluated, metrics), step)

    def pictured(self, step: int, pictures: Mapping[str, Tensor]) -> None:
        for task, image in pictures.items():
            self._summary(summary.image(f"pictures/{task}", image.numpy(), dataformats="CHW"), step)

    def tested(self, step: int, metrics: Metrics) -> None:
        self._scalars(flatten(self._result, metrics), step)
        self._summary(summary.hparams({}, {})[2], step)  # the session's end

    def closed(self) -> None:
        self._file.close()

    def state_dict(self) -> dict[str, int]:
        return {"size": self._file.sync()}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self._file.cut(state.get("size", 0))

    def _scalars(self, values: Mapping[str, float], step: int) -> None:
        content = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._summary(Summary(value=content), step)
        self._file.file.flush()  # a TensorBoard that is looking on sees it at once

    def _summary(self, content: Summary, step: int) -> None:
        self._write(Event(wall_time=time.time(), step=step, summary=content))

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {"optimizer.lr": 0.001, ...} with values that TensorBoard's hparams take."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if prefix == "" and key == "runtime":
            continue
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        elif key not in ("_target_", "_partial_") and value is not None:
            found[prefix + key] = value if isinstance(value, bool | int | float | str) else str(value)
    return found
