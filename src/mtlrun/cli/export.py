"""mtlrun export <run>: the model of a finished run as a file that needs nothing of mtlrun."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mtlrun.cli.comparing import check_place, format_of, make_parser, names_of
from mtlrun.cli.predict import add_code_option, choose_tasks
from mtlrun.errors import ConfigError
from mtlrun.records.display import make_console, print_line

_FORMATS = {".onnx": "onnx", ".pt2": "torch"}
_EPILOG = """\
formats:
  onnx   for onnxruntime and others: pip install 'mtlrun[export]'
  torch  a program of torch.export, for torch.export.load

examples:
  mtlrun export outputs/mystudy/hard-equal-lr0.001-s0-houses-1a2b3c4d
  mtlrun export outputs/mystudy/hard-* --tasks price --out price.onnx
  mtlrun predict price.onnx --input new.csv --out predictions.csv

docs/exporting.md says what is in the file, and how other programs use it."""


def main(arguments: Sequence[str]) -> int:
    """Export a run; return the exit code."""
    parser = _make_parser()
    if not arguments:
        parser.print_usage()
        return 0
    parsed = parser.parse_args(arguments)
    form = parsed.format
    if parsed.out is not None:
        found = format_of(Path(parsed.out), _FORMATS)
        if form not in (None, found):
            raise ConfigError(f"--format {form}: {parsed.out} is a file of the format {found}; leave one of them out")
        form = found
    form = form or "onnx"
    suffix = next(suffix for suffix, name in _FORMATS.items() if name == form)
    out = Path(parsed.out or f"{parsed.run.resolve().name}{suffix}").expanduser()
    check_place(out)
    from mtlrun.cli.main import collect_garbage
    from mtlrun.deployment.code import add_code

    add_code(parsed.code)
    from mtlrun.deployment.exporting.export import CHECKED, export  # imports torch, as the next
    from mtlrun.deployment.predictor import Predictor

    collect_garbage()
    exported = export(choose_tasks(Predictor.load(parsed.run, "cpu"), parsed.tasks), out, form)
    console = make_console()
    sizes = " and ".join(map(str, CHECKED))
    print_line(
        console, f"written to {out}: {exported.num_bytes / 2**20:.1f} MiB, outputs {', '.join(exported.outputs)}"
    )
    print_line(
        console,
        f"checked with {sizes} samples: outputs differ from PyTorch's by at most {exported.difference:.1g} of the "
        "largest, or of 1",
    )
    return 0


def _make_parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "export",
        "The model of a finished run as a file: inputs of any batch size to predictions of all tasks.",
        _EPILOG,
        run="the folder of a completed run",
    )
    parser.add_argument("--format", choices=("onnx", "torch"), help="of the file (default: by --out, or onnx)")
    parser.add_argument(
        "--tasks", type=names_of, metavar="TASK,...", help="export these only, without what only others need"
    )
    parser.add_argument("--out", metavar="FILE", help="the file to write, .onnx or .pt2 (default: the run's name)")
    add_code_option(parser)
    return parser
