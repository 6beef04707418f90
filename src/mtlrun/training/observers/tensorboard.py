"""TensorBoard: one event file per run; a continued run appends to it, without a repeated or missing step."""

import io
import time
from collections.abc import Mapping
from pathlib import Path

from mtlrun.records import event_file
from mtlrun.records.config_text import as_yaml
from mtlrun.records.event_contents import charts, hyperparameters, result_curves, tag_of_curve, tag_of_picture
from mtlrun.records.folder import EVENTS
from mtlrun.records.record import Record
from mtlrun.training.captions import Picture
from mtlrun.training.observers.base import FileObserver, Metrics
from mtlrun.training.observers.metrics_file import tag_metrics


class TensorBoard(FileObserver):
    """Writes scalars, pictures, hyperparameters, charts of several scalars, and the config as text, into one file.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        existing = sorted(folder.glob(EVENTS))
        path = existing[0] if existing else folder / EVENTS.replace("*", f"{int(time.time())}.mtlrun")
        super().__init__(path)

    def started(self, record: Record, step: int) -> None:
        super().started(record, step)
        self._record = record
        if self.file.size() > 0:
            return
        self.file.write(event_file.header())
        config = as_yaml(record.config)
        self.file.write(event_file.text("config/text_summary", f"```yaml\n{config}```"))
        self.file.write(event_file.session_start(hyperparameters(record)))
        self.file.write(event_file.layout(charts(record)))
        self.file.sync()

    def trained(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        self._scalars({tag_of_curve(tag): value for tag, value in values.items()}, step)

    def validated(self, step: int, epoch: int, metrics: Metrics, selected: bool) -> None:
        self._scalars(tag_metrics(self.evaluation_tag, metrics), step)

    def pictured(self, step: int, pictures: Mapping[str, Picture]) -> None:
        for task, picture in pictures.items():
            png = io.BytesIO()
            size = picture.write_png(png)
            self.file.write(event_file.picture(tag_of_picture(task), png.getvalue(), size, step))

    def tested(self, step: int, metrics: Metrics) -> None:
        self._scalars(result_curves(self._record, metrics), step)
        self.file.write(event_file.session_end(step))

    def find_whole(self, content: bytes) -> tuple[int, int]:
        return event_file.find_whole(content)

    def _scalars(self, values: Mapping[str, float], step: int) -> None:
        self.file.write(event_file.scalars(values, step))
        self.file.flush()  # so that a running TensorBoard shows it at once
