"""mtlrun evaluate <run>: the metrics of a finished run on one of its splits, or on new labeled samples."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from mtlrun.cli.comparing import check_place, complain, make_parser
from mtlrun.cli.predict import add_options, take_overrides
from mtlrun.errors import ConfigError
from mtlrun.records.display import UNDEFINED, has_undefined, make_console, print_line, print_results
from mtlrun.records.folder import open_atomically
from mtlrun.records.printable import printable

_EPILOG = """\
examples:
  mtlrun evaluate outputs/runs/<run>
  mtlrun evaluate outputs/runs/<run> --split val --out metrics.json
  mtlrun evaluate outputs/runs/<run> dataset.root=/data/photos
  mtlrun evaluate outputs/runs/<run> --input labeled.csv

docs/predicting.md says when the metrics are those of the record."""


def main(arguments: Sequence[str]) -> int:
    """Evaluate a finished run; return the exit code."""
    parser = _make_parser()
    if not arguments:
        parser.print_usage()
        return 0
    words, overrides = take_overrides(arguments)
    parsed = parser.parse_args(words)
    if parsed.input is not None and parsed.split is not None:
        raise ConfigError("--input names other data than the splits of the run; use it without --split")
    out = None if parsed.out is None else Path(parsed.out).expanduser()
    if out is not None:
        if out.suffix.lower() != ".json":
            raise ConfigError(f"--out {out}: metrics are written as JSON; let the name end in .json")
        check_place(out)
    from mtlrun.cli.main import collect_garbage
    from mtlrun.deployment.code import add_code

    add_code(parsed.code)
    collect_garbage()
    if parsed.input is None:
        from mtlrun.deployment.evaluate import evaluate_run  # imports torch, as what is below

        result = evaluate_run(parsed.run, parsed.split or "test", overrides, device=parsed.device)
        where = f"the {result.on} split"
    else:
        from mtlrun.config.changes import change
        from mtlrun.deployment.choosing import INPUT_KEYS
        from mtlrun.deployment.labeled_tables import evaluate_table
        from mtlrun.deployment.predictor import Predictor

        predictor = Predictor.load(parsed.run, parsed.device)
        dataset = change(predictor.record.config, overrides, "dataset", INPUT_KEYS)["dataset"]
        result, summary = evaluate_table(predictor, Path(parsed.input).expanduser(), dataset)
        for line in summary.describe("they are left out"):
            complain(line)
        where = result.on
    console = make_console()
    results = {"value": result.metrics}
    print_results(console, f"result on {where}", results, result.directions, {"value": result.intervals})
    if has_undefined(results):
        print_line(console, UNDEFINED)
    if result.intervals:
        print_line(console, f"95 %: bootstrap interval over {result.drawn_from} of {where}")
    for line in result.notes:
        complain(line)
    if out is not None:
        with open_atomically(out) as file:
            file.write(json.dumps(result.as_plain(), indent=2).encode())
        print(printable(f"written to {out}"))
    return 0


def _make_parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "evaluate",
        "The metrics of a finished run on one of its splits, by its selected weights.",
        _EPILOG,
        run="the folder of a completed run",
    )
    parser.add_argument("--split", choices=("train", "val", "test"), help="of the run's data (default: test)")
    parser.add_argument("--input", metavar="FILE", help="a table with labels that was no part of the run's data")
    parser.add_argument("--out", metavar="FILE", help="write the metrics into this file as well, .json")
    add_options(parser)
    return parser
