"""Predictions of a run for new inputs, written to a file as they are made."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mtlrun.deployment.inputs import InputReader, Samples
from mtlrun.deployment.predictor import Predictor
from mtlrun.errors import DataError
from mtlrun.records.folder import open_atomically
from mtlrun.runs.prediction_columns import Column, prediction_columns
from mtlrun.runs.prediction_files import WRITERS, PredictionWriter
from mtlrun.tasks import Decoded

# Problems that are named one by one.
_LISTED = 10


@dataclass
class Summary:
    """What became of the samples.

    Args:
        samples: how many there were.
        wrong: how many could not be predicted.
        problems: what was wrong with the first of them.
    """

    samples: int = 0
    wrong: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, samples: Samples) -> None:
        """Add samples that were predicted."""
        self.samples += len(samples)
        self.wrong += len(samples.wrong)
        rest = _LISTED - len(self.problems)
        self.problems += [samples.wrong[position] for position in sorted(samples.wrong)[:rest]]


def write_predictions(
    predictor: Predictor, reader: InputReader, path: Path, form: str, batch_size: int = 4096
) -> Summary:
    """Write a line for each sample of an input: its id, and predictions and probabilities of all tasks.

    The columns are those of a run's `predictions.csv`. A sample that cannot be predicted has empty cells.

    Args:
        predictor: of the run.
        reader: of the samples.
        path: of the file to write.
        form: `csv` or `parquet`.
        batch_size: samples that go through the model together.

    Raises:
        DataError: the input cannot be read to its end, or no sample of it can be predicted; no file is written then.
        StorageError: the file cannot be written.
    """
    summary, before = Summary(), list[Samples]()
    with open_atomically(path) as file:
        writer: PredictionWriter | None = None
        for samples in reader.read(batch_size):
            columns = predict_samples(predictor, samples)
            summary.add(samples)
            if writer is None and columns:
                writer = WRITERS[form](file, {"sample": reader.ids_are_numbers}, columns)
                for earlier in before:
                    writer.write([earlier.ids], {}, 0, len(earlier))
            if writer is None:
                before.append(samples)
            else:
                writer.write([samples.ids], columns, 0, len(samples))
        if writer is None:
            raise DataError(_nothing_predicted(summary))
        writer.close()
    return summary


def predict_samples(predictor: Predictor, samples: Samples) -> dict[str, Column]:
    """Return the columns of predictions for some samples, {<task>.<what>: column}; none if none can be predicted."""
    lines: list[torch.Tensor] = []
    parts: dict[str, list[Decoded]] = {}
    for positions, inputs in samples.batches:
        lines.append(torch.from_numpy(positions))
        for task, decoded in predictor.predict(inputs).items():
            parts.setdefault(task, []).append(decoded)
    return {
        f"{task}.{what}": column
        for task, decoded in parts.items()
        for what, column in prediction_columns(_join(decoded), predictor.names(task), torch.cat(lines), len(samples))
    }


def _join(parts: Sequence[Decoded]) -> Decoded:
    """Return the predictions of several batches as those of one, on the CPU."""
    chances = [part.probabilities.cpu() for part in parts if part.probabilities is not None]
    return Decoded(torch.cat([part.prediction.cpu() for part in parts]), torch.cat(chances) if chances else None)


def _nothing_predicted(summary: Summary) -> str:
    if not summary.samples:
        return "there is nothing to predict: the input has no samples"
    return f"none of {summary.samples:,} samples can be predicted: {summary.problems[0]}"
