"""Predictions of a run for new inputs, written as they are made."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mtlrun.deployment.inputs import InputReader, Samples
from mtlrun.deployment.predictor import Predictor
from mtlrun.deployment.sinks import BoxSink, MapSink, Sink, TableSink
from mtlrun.errors import ConfigError, DataError
from mtlrun.records.folder import open_atomically, storing
from mtlrun.tasks import DecodesBoxes, DecodesMaps, DecodesPredictions

# Problems that are named one by one.
_LISTED = 10
#: The table in a folder of predictions.
TABLE = "predictions.csv"


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
        self.add_rows(len(samples), samples.wrong)

    def add_rows(self, count: int, wrong: Mapping[int, str]) -> None:
        """Add so many samples, with {position: what is wrong} of those that could not be used."""
        self.samples += count
        self.wrong += len(wrong)
        self.problems += [wrong[position] for position in sorted(wrong)[: _LISTED - len(self.problems)]]

    def check(self) -> None:
        """Raise DataError if there was nothing that could be used."""
        if not self.samples:
            raise DataError("there is nothing to predict: the input has no samples")
        if self.wrong == self.samples:
            raise DataError(f"none of {self.samples:,} samples can be predicted: {self.problems[0]}")

    def describe(self, consequence: str) -> list[str]:
        """Return lines on the samples that could not be used, none if there are none.

        Args:
            consequence: what became of them.
        """
        if not self.wrong:
            return []
        more = self.wrong - len(self.problems)
        lines = [f"{self.wrong:,} of {self.samples:,} samples cannot be predicted, and {consequence}:"]
        lines += [f"  - {problem}" for problem in self.problems]
        return ["\n".join([*lines, *([f"  - and {more:,} more"] if more else [])])]


def check_output(predictor: Predictor, *, folder: bool) -> None:
    """Raise ConfigError if the tasks' predictions do not fit the kind of output.

    Args:
        predictor: of the tasks.
        folder: True for a folder, which holds files of maps; False for a table.
    """
    tasks = predictor.tasks
    kinds = (DecodesPredictions, DecodesMaps, DecodesBoxes)
    if unknown := [name for name, task in tasks.items() if not isinstance(task, kinds)]:
        known = [name for name in tasks if name not in unknown]
        way = f"; --tasks {','.join(known)} leaves it out" if known else ""
        kind = type(tasks[unknown[0]]).__name__
        raise ConfigError(f"task {unknown[0]}: {kind} has no decode(), so what it puts out means nothing here{way}")
    maps = [name for name, task in tasks.items() if isinstance(task, DecodesMaps | DecodesBoxes)]
    if maps and not folder:
        others = [name for name in tasks if name not in maps]
        way = f", or leave them out, with --tasks {','.join(others)}" if others else ""
        raise ConfigError(f"--out: maps and boxes are predicted ({', '.join(maps)}); name a folder, not a file{way}")
    if folder and not maps:
        raise ConfigError("--out: no maps are predicted, but a line for each sample; name a file, .csv or .parquet")


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
    with open_atomically(path) as file:
        sink = TableSink(predictor, file, form, ids_are_numbers=reader.ids_are_numbers)
        return _predict(predictor, reader, [sink], batch_size)


def write_folder(predictor: Predictor, reader: InputReader, folder: Path, batch_size: int = 32) -> Summary:
    """Write the maps and boxes of each sample of an input, and a table of what else is predicted.

    Args:
        predictor: of the run.
        reader: of the samples.
        folder: to be made; it exists only once all is written.
        batch_size: samples that go through the model together.

    Raises:
        ConfigError: the folder exists, and is not empty.
        DataError: as for `write_predictions`; or two samples would have the same file.
        StorageError: a file cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"--out {folder}: there is something already; name a folder that is empty or does not exist")
    fresh = folder.with_name(f".{folder.name}.tmp")
    with storing(folder):
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
    try:
        sinks: list[Sink] = [MapSink(predictor, fresh), BoxSink(predictor, fresh)]
        if any(isinstance(task, DecodesPredictions) for task in predictor.tasks.values()):
            with open_atomically(fresh / TABLE) as file:
                table = TableSink(predictor, file, "csv", ids_are_numbers=reader.ids_are_numbers)
                summary = _predict(predictor, reader, [*sinks, table], batch_size)
        else:
            summary = _predict(predictor, reader, sinks, batch_size)
        with storing(folder):
            os.replace(fresh, folder)
        return summary
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _predict(predictor: Predictor, reader: InputReader, sinks: Sequence[Sink], batch_size: int) -> Summary:
    """Predict all samples, and give the outputs to each of the sinks."""
    summary = Summary()
    for samples in reader.read(batch_size):
        for positions, inputs in samples.batches:
            outputs = predictor.outputs(inputs)
            for sink in sinks:
                sink.batch(samples, positions, outputs)
        for sink in sinks:
            sink.end(samples)
        summary.add(samples)
    summary.check()
    for sink in sinks:
        sink.close()
    return summary
