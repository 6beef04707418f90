"""The model of a finished run, in Python."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from mtlrun.datasets import SplitName
from mtlrun.deployment.images import PixelEncoder, find_images
from mtlrun.deployment.opening import open_predictor
from mtlrun.deployment.predictor import Predictor
from mtlrun.deployment.tables import TableEncoder
from mtlrun.errors import DataError, list_problems
from mtlrun.models import MultiTaskModel
from mtlrun.records.record import Record
from mtlrun.runs.prediction_columns import Column, join_decoded, prediction_columns
from mtlrun.tasks import Decoded, DecodesPredictions

if TYPE_CHECKING:
    import pandas

logger = logging.getLogger("mtlrun")

_NO_COLUMNS = "tasks whose predictions are no columns of a table"
_WAYS_TO_MAPS = "`mtlrun predict` writes maps and boxes, and `predictor.outputs` has what the heads put out"


def load(folder: str | Path, *, device: str = "auto") -> "TrainedModel":
    """Return the model of the run in a folder, wherever it was copied; its data need not be there.

        model = mtlrun.load("outputs/runs/hard-gradnorm-...")
        model.predict(pandas.read_csv("new.csv"))

    Args:
        folder: of a completed run.
        device: as `runtime.device`.

    Raises:
        DataError: there is no completed run, or it is of a version that did not keep what this needs, or it needs code
            of its author's that cannot be imported.
        ConfigError: the model cannot be built anymore.
        CheckpointError: best.pt is damaged, or does not fit the model.
    """
    return TrainedModel(open_predictor(Path(folder).expanduser(), device), device)


class TrainedModel:
    """The model of a finished run, with what makes predictions of new data.

    Args:
        predictor: of the run.
        device: as `runtime.device`.
    """

    def __init__(self, predictor: Predictor, device: str = "auto") -> None:
        self.predictor, self._device = predictor, device

    @property
    def record(self) -> Record:
        """The record of the run: config, metrics, what was selected."""
        return self.predictor.record

    @property
    def module(self) -> MultiTaskModel:
        """The network, an `nn.Module` in evaluation mode.

        Raises:
            ConfigError: there are several, one for each task (`trainer.monitor=per_task`).
        """
        return self.predictor.model

    def predict(self, data: Any, *, batch_size: int = 4096) -> "pandas.DataFrame":
        """Return predictions in original units, class names and probabilities: the columns of `predictions.csv`.

        A row that cannot be read, or an image, has empty cells. Why stands in `attrs["problems"]` of the result,
        {position: reason}, and in the log.

        Args:
            data: for tables a DataFrame, {column: values}, or a NumPy array with a column for each of those of
                training, in their order; for images paths, or the path of a folder; for either, and for whatever else,
                a tensor [n, *input_shape] encoded as the samples of the run.
            batch_size: the most samples that go through the model together.

        Returns:
            A row for each of those of `data`, with its index; for images, with the paths as index.

        Raises:
            DataError: a column is missing, no row can be read, or the run takes other data.
        """
        import pandas

        tasks = self.predictor.tasks
        maps = [name for name, task in tasks.items() if not isinstance(task, DecodesPredictions)]
        if len(maps) == len(tasks):
            raise DataError(f"{_NO_COLUMNS}: {', '.join(maps)}; {_WAYS_TO_MAPS}")
        index, inputs, wrong = self._encode(data)
        problems = [wrong[position] for position in sorted(wrong)]
        if not len(inputs):
            raise DataError(list_problems(problems, "samples cannot be predicted") if wrong else "there is no sample")
        if problems:
            logger.warning("%s", list_problems(problems, f"of {len(index):,} samples cannot be predicted"))
        if maps:
            logger.warning("%s: %s; %s", _NO_COLUMNS, ", ".join(maps), _WAYS_TO_MAPS)
        lines = torch.tensor([position for position in range(len(index)) if position not in wrong])
        columns = {
            name: column.cells(0, len(index)) for name, column in self._columns(inputs, lines, len(index), batch_size)
        }
        frame = pandas.DataFrame(columns, index=index)
        frame.attrs["problems"] = dict(wrong)
        return frame

    def evaluate(self, split: SplitName = "test", *, overrides: Sequence[str] = ()) -> dict[str, dict[str, float]]:
        """Return the metrics {task: {metric: value}} on a split of the run's own data, which have to be there.

        Args:
            split: `train`, `val` or `test`.
            overrides: of keys of the dataset, such as `dataset.root=/data/photos` where the data have moved.

        Raises:
            DataError: the data are gone, or are not what they were.
        """
        from mtlrun.deployment.evaluate import evaluate_run

        evaluation = evaluate_run(self.predictor.folder, split, overrides, device=self._device)
        for note in evaluation.notes:
            logger.warning("%s", note)
        return evaluation.metrics

    def _columns(self, inputs: Tensor, lines: Tensor, num_lines: int, batch_size: int) -> Iterator[tuple[str, Column]]:
        """Yield the columns of a file of predictions, for inputs that are some of its lines."""
        parts: dict[str, list[Decoded]] = {}
        for batch in inputs.split(batch_size):
            for task, decoded in self.predictor.predict(batch).items():
                parts.setdefault(task, []).append(decoded)
        for task, decoded_parts in parts.items():
            joined = join_decoded(decoded_parts)
            for what, column in prediction_columns(joined, self.predictor.names(task), lines, num_lines):
                yield f"{task}.{what}", column

    def _encode(self, data: Any) -> tuple[Any, Tensor, dict[int, str]]:
        """Return the index of some data, the inputs that can be predicted, and what is wrong with the others."""
        if isinstance(data, Tensor):
            if tuple(data.shape[1:]) != self.predictor.input_shape:
                expected = ", ".join(map(str, ("n", *self.predictor.input_shape)))
                raise DataError(f"the inputs of this run are of shape [{expected}], found {list(data.shape)}")
            return range(len(data)), data.float(), {}
        encoder = self.predictor.encoder_for(self.record.config["dataset"])
        if isinstance(encoder, TableEncoder):
            frame = _as_frame(data, list(encoder.rows.columns))
            inputs, wrong = encoder.encode(frame)
            for note in encoder.notes():
                logger.warning("%s", note)
            return frame.index, inputs, wrong
        paths = _as_paths(data, encoder)
        return paths, *encoder.encode(paths)


def _as_frame(data: Any, columns: Sequence[str]) -> "pandas.DataFrame":
    """Return rows of a table as a frame.

    Raises:
        DataError: they are none.
    """
    import pandas

    if isinstance(data, pandas.DataFrame):
        return data
    if isinstance(data, Mapping):
        return pandas.DataFrame(data)
    if isinstance(data, numpy.ndarray) and data.ndim == 2 and data.shape[1] == len(columns):
        return pandas.DataFrame(data, columns=list(columns))
    shape = f" of shape {data.shape}" if isinstance(data, numpy.ndarray) else ""
    raise DataError(
        f"this run takes rows of a table: a DataFrame, {{column: values}}, or an array with the columns "
        f"{', '.join(columns)}; found {type(data).__name__}{shape}"
    )


def _as_paths(data: Any, encoder: PixelEncoder) -> list[str]:
    """Return the paths of images.

    Raises:
        DataError: they are none.
    """
    if isinstance(data, str | Path):
        return [str(path) for path in find_images(Path(data), encoder)] if Path(data).is_dir() else [str(data)]
    if isinstance(data, Sequence) and all(isinstance(path, str | Path) for path in data):
        return list(map(str, data))
    raise DataError(
        f"this run takes images: paths, a folder, or a tensor [n, {', '.join(map(str, encoder.shape))}] encoded as its "
        f"samples; found {type(data).__name__}"
    )
