"""mtlrun extend <run> trainer.epochs=<n>: train a finished run for longer, as another run."""

import time
from collections.abc import Sequence
from pathlib import Path

from mtlrun.errors import DataError

_USAGE = "usage: mtlrun extend <folder of a completed run> trainer.epochs=<n> | trainer.steps=<n> [runtime.<key>=...]"


def main(arguments: Sequence[str]) -> int:
    """Continue a finished run as another, longer one; return the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    started = time.monotonic()
    folder = Path(arguments[0]).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {_USAGE}")
    from mtlrun.cli.main import train_one
    from mtlrun.runs.extension import extend

    config = extend(folder, arguments[1:])
    return train_one(config, list(arguments[1:]), started)
