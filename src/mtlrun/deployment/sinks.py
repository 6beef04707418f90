"""Where predictions go: a table with a line for each sample, files of maps, and a table of boxes."""

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import BinaryIO

import numpy
import torch
from PIL import Image
from torch import Tensor

from mtlrun.deployment.inputs import Samples
from mtlrun.deployment.predictor import Predictor
from mtlrun.errors import DataError
from mtlrun.records.folder import storing
from mtlrun.runs.prediction_columns import Column, join_decoded, prediction_columns
from mtlrun.runs.prediction_files import WRITERS, PredictionWriter
from mtlrun.tasks import Decoded, DecodesBoxes, DecodesMaps

# Classes that fit into the pixels of an image of 8 bits.
_BYTE = 256


class Sink(ABC):
    """A place for predictions, which gets them batch by batch."""

    @abstractmethod
    def batch(self, samples: Samples, positions: numpy.ndarray, outputs: Mapping[str, Tensor]) -> None:
        """Take what the heads put out for some samples.

        Args:
            samples: among which they are.
            positions: which they are.
            outputs: {task: of these samples}.
        """

    @abstractmethod
    def end(self, samples: Samples) -> None:
        """Take note that all batches of some samples were given."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left to be written."""


class TableSink(Sink):
    """A table with a line for each sample: its id, and predictions and probabilities of all tasks that have them.

    Args:
        predictor: whose predictions they are.
        file: to write to.
        form: `csv` or `parquet`.
        ids_are_numbers: True if all ids are whole numbers.
    """

    def __init__(self, predictor: Predictor, file: BinaryIO, form: str, *, ids_are_numbers: bool) -> None:
        self._predictor, self._file, self._form, self._whole = predictor, file, form, ids_are_numbers
        self._writer: PredictionWriter | None = None
        self._lines: list[Tensor] = []
        self._parts: dict[str, list[Decoded]] = {}
        self._before: list[Samples] = []  # those whose lines are empty, until a line that is not shows the columns

    def batch(self, samples: Samples, positions: numpy.ndarray, outputs: Mapping[str, Tensor]) -> None:
        self._lines.append(torch.from_numpy(positions))
        for task, decoded in self._predictor.decode(outputs).items():
            chances = None if decoded.probabilities is None else decoded.probabilities.cpu()
            self._parts.setdefault(task, []).append(Decoded(decoded.prediction.cpu(), chances))

    def end(self, samples: Samples) -> None:
        columns: dict[str, Column] = {}
        for task, parts in self._parts.items():
            lines, names = torch.cat(self._lines), self._predictor.names(task)
            found = prediction_columns(join_decoded(parts), names, lines, len(samples))
            columns |= {f"{task}.{what}": column for what, column in found}
        self._lines, self._parts = [], {}
        if self._writer is None and columns:
            self._writer = WRITERS[self._form](self._file, {"sample": self._whole}, columns)
            for earlier in self._before:
                self._writer.write([earlier.ids], {}, 0, len(earlier))
        if self._writer is None:
            self._before.append(samples)
        else:
            self._writer.write([samples.ids], columns, 0, len(samples))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class MapSink(Sink):
    """A file for each sample and each task that predicts maps, in a folder of the task's name.

    Classes are images in PNG, whose pixels are the indices of the classes; numbers are .npy, channels last.

    Args:
        predictor: whose predictions they are.
        folder: in which the folders of the tasks are made.
    """

    def __init__(self, predictor: Predictor, folder: Path) -> None:
        self._tasks = {name: task for name, task in predictor.tasks.items() if isinstance(task, DecodesMaps)}
        self._folder = folder
        self._taken: dict[str, str | int] = {}

    def batch(self, samples: Samples, positions: numpy.ndarray, outputs: Mapping[str, Tensor]) -> None:
        names = [self._name(samples.ids[position]) for position in positions.tolist()]
        for task, kind in self._tasks.items():
            with torch.inference_mode():
                maps = kind.decode_map(outputs[task]).cpu().numpy()
            for name, values in zip(names, maps, strict=True):
                path = self._folder / task / name
                with storing(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    _write_map(path, values)

    def end(self, samples: Samples) -> None:
        return

    def close(self) -> None:
        return

    def _name(self, sample: str | int) -> str:
        """Return the path of a sample's maps below the folder of a task, without an ending."""
        path = PurePath(str(sample))
        outside = path.is_absolute() or ".." in path.parts
        name = str(PurePath(path.name) if outside else path).removesuffix(path.suffix)
        if self._taken.setdefault(name, sample) != sample:
            raise DataError(f"{sample} and {self._taken[name]}: their maps would have one name, {name}; rename one")
        return name


class BoxSink(Sink):
    """A table of the boxes of each task that detects objects, with a line for each: `<task>.csv`.

    Args:
        predictor: whose predictions they are.
        folder: in which they are written.
    """

    def __init__(self, predictor: Predictor, folder: Path) -> None:
        self._tasks = {name: task for name, task in predictor.tasks.items() if isinstance(task, DecodesBoxes)}
        self._paths = {name: folder / f"{name}.csv" for name in self._tasks}
        self._names = {name: predictor.names(name) for name in self._tasks}
        for path in self._paths.values():
            _append(path, [["sample", "class", "score", "x1", "y1", "x2", "y2"]])

    def batch(self, samples: Samples, positions: numpy.ndarray, outputs: Mapping[str, Tensor]) -> None:
        for task, kind in self._tasks.items():
            with torch.inference_mode():
                objects, scores = (found.cpu() for found in kind.decode_boxes(outputs[task]))
            rows = []
            for position, boxes, chances in zip(positions.tolist(), objects.tolist(), scores.tolist(), strict=True):
                for (*corners, label, _), score in zip(boxes, chances, strict=True):
                    if label >= 0:
                        names = self._names[task]
                        name = names[int(label)] if names else int(label)
                        rows.append([samples.ids[position], name, f"{score:.6g}", *(f"{at:.6g}" for at in corners)])
            _append(self._paths[task], rows)

    def end(self, samples: Samples) -> None:
        return

    def close(self) -> None:
        return


def _append(path: Path, rows: Sequence[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    with storing(path), open(path, "a", encoding="utf-8", newline="") as file:
        file.write(text.getvalue())


def _write_map(path: Path, values: numpy.ndarray) -> None:
    """Write one map: classes [height, width] as an image, numbers [height, width] or [channels, ...] as an array."""
    if values.dtype.kind in "iu" and values.max(initial=0) < _BYTE:
        Image.fromarray(values.astype(numpy.uint8)).save(f"{path}.png")
    else:
        numpy.save(f"{path}.npy", values.transpose(1, 2, 0) if values.ndim == 3 else values)
