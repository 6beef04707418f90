"""mtlrun predict <run> --input <file> --out <file>: predictions of a finished run for new rows or images."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtlrun.cli.comparing import check_place, complain, format_of, make_parser, names_of, number_above_0
from mtlrun.config.suggest import suggest
from mtlrun.errors import ConfigError
from mtlrun.records.printable import printable

if TYPE_CHECKING:
    from mtlrun.deployment.predictor import Predictor

_OVERRIDE = re.compile(r"[+~]*[a-z_]+(\.\w+)+=")
_SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}
_EPILOG = """\
examples:
  mtlrun predict outputs/runs/<run> --input new.csv --out predictions.csv
  mtlrun predict outputs/runs/<run> --input photos/ --out predictions.parquet
  mtlrun predict outputs/runs/<run> --input new.csv --out predictions.csv dataset.separator=tab
  mtlrun predict outputs/runs/<run> --input images/ --out maps/ --tasks segmentation,depth

docs/predicting.md says what is read and written."""


def main(arguments: Sequence[str]) -> int:
    """Predict new inputs; return the exit code."""
    parser = _make_parser()
    if not arguments:
        parser.print_usage()
        return 0
    words, overrides = take_overrides(arguments)
    parsed = parser.parse_args(words)
    out = Path(parsed.out).expanduser()
    inputs = [Path(path).expanduser() for path in parsed.input]
    form = format_of(out, _SUFFIXES) if out.suffix else None
    if form is not None:
        check_place(out)
    _check_out(out, parsed.run, inputs)
    from mtlrun.cli.main import collect_garbage
    from mtlrun.config.changes import change
    from mtlrun.deployment.code import add_code

    add_code(parsed.code)
    from mtlrun.deployment.choosing import INPUT_KEYS, open_input  # imports torch, as the next two
    from mtlrun.deployment.opening import open_predictor
    from mtlrun.deployment.predict import check_output, write_folder, write_predictions

    collect_garbage()  # the frames of pandas would not be freed else
    predictor = open_predictor(parsed.run, parsed.device)
    predictor = choose_tasks(predictor, parsed.tasks)
    check_output(predictor, folder=form is None)
    config = change(predictor.record.config, overrides, "dataset", INPUT_KEYS)
    reader = open_input(predictor, inputs, config["dataset"])
    if form is None:
        summary = write_folder(predictor, reader, out, parsed.batch_size or 32)
    else:
        summary = write_predictions(predictor, reader, out, form, parsed.batch_size or 4096)
    consequence = "their cells are empty" if form is not None else "they have no maps"
    for line in [*reader.notes(), *summary.describe(consequence)]:
        complain(line)
    print(printable(f"written to {out}: {summary.samples:,} samples"))
    return 0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the commands that compute with a trained model."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1 (default: auto)")
    add_code_option(parser)


def add_code_option(parser: argparse.ArgumentParser) -> None:
    """Add the option of all commands that make a trained model again."""
    parser.add_argument(
        "--code", action="append", default=[], metavar="FOLDER",
        help="holds modules with classes of the run's author, which are then imported",
    )  # fmt: skip


def choose_tasks(predictor: "Predictor", tasks: Sequence[str] | None) -> "Predictor":
    """Return the predictor of the tasks that are asked for, and say which ones are left out.

    Args:
        predictor: of a run.
        tasks: of --tasks; None for all whose inputs are of one shape.

    Raises:
        ConfigError: the run has no such task.
    """
    for task in tasks or ():
        if task not in predictor.tasks:
            raise ConfigError(f"--tasks {task}: the run has no such task; {suggest(task, predictor.tasks, 'it has')}")
    if tasks is not None:
        predictor = predictor.only(tasks)
    if predictor.left_out:
        others = ", ".join(f"{task} {shape}" for task, shape in predictor.left_out.items())
        complain(f"tasks whose inputs are of another shape are left out; --tasks chooses them: {others}")
        predictor = predictor.only([task for task in predictor.tasks if task not in predictor.left_out])
    return predictor


def take_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words of a command line that are no overrides of the config, and those that are."""
    overrides = [word for word in arguments if _OVERRIDE.match(word)]
    return [word for word in arguments if not _OVERRIDE.match(word)], overrides


def _make_parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "predict",
        "Predictions of a finished run for new rows or images, from the run's folder alone.",
        _EPILOG,
        run="the folder of a completed run, or a file of mtlrun export, .onnx",
    )
    parser.add_argument(
        "--input", required=True, nargs="+", action="extend", metavar="FILE",
        help="a CSV or Parquet file; or a folder of images, image files, or a table that names some",
    )  # fmt: skip
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="the file to write, .csv or .parquet; a folder for maps and boxes"
    )
    parser.add_argument("--tasks", type=names_of, metavar="TASK,...", help="predict these only (default: all)")
    parser.add_argument(
        "--batch-size",
        type=number_above_0,
        metavar="N",
        help="samples at a time (default: 4096, or 32 with maps or boxes)",
    )
    add_options(parser)
    return parser


def _check_out(out: Path, run: Path, inputs: Sequence[Path]) -> None:
    """Raise ConfigError if the file to write is an input, or one of the run."""
    if any(out.exists() and path.exists() and out.samefile(path) for path in inputs):
        raise ConfigError(f"--out {out}: this is the input, which would be lost; choose another file")
    if out.resolve().is_relative_to(run.resolve()):
        raise ConfigError(f"--out {out}: this is in the folder of the run, which stays as it is; choose another place")
