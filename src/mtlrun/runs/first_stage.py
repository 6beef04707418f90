"""The first stage of a run with `model.init_from=auto`: networks trained apart, by a run of model=single."""

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mtlrun.comparison.commands import SHARING
from mtlrun.errors import ConfigError, RunInUseError
from mtlrun.records.identity import run_folder
from mtlrun.records.record import Record, finished_record
from mtlrun.setup.prepare import prepare
from mtlrun.setup.warm_start import first_stage

logger = logging.getLogger("mtlrun")

_WAIT_SECONDS = 2.0


def train_first_stage(
    config: Mapping[str, Any], overrides: Sequence[str], console: Console | None, run: Callable[..., Record]
) -> None:
    """Train the run that a run starts from, or continue it, unless there is none or it is finished.

    If another process trains it, as one of the same sweep may, this waits for its end.

    Args:
        config, overrides, console: of the run that starts from it; see `runs.run.run`.
        run: that function.

    Raises:
        ConfigError: the run itself is refused; or the first stage diverged, so that there is nothing to start from.
        Whatever `run` raises, but RunInUseError.
    """
    stage = first_stage(config)
    if stage is None:
        return
    stage["runtime"]["rerun"] = False  # the run is to be made anew, and not what it starts from
    sharing = re.compile(SHARING)
    words = [
        "model=single",
        "weighting=equal",
        *(word for word in overrides if not sharing.fullmatch(word.lstrip("+~"))),
    ]
    if finished_record(stage) is None:
        prepare(config)  # what is wrong with the second stage is said before the first
    waiting = False
    while (record := finished_record(stage)) is None:
        try:
            record = run(stage, overrides=words, console=console)
            break
        except RunInUseError:
            if not waiting:
                logger.info("model.init_from=auto: waits for %s, which another process trains", run_folder(stage))
                waiting = True
            time.sleep(_WAIT_SECONDS)
    if record.status != "completed":
        raise ConfigError(
            f"model.init_from=auto: {run_folder(stage)} is {record.status}, so there is nothing to start from"
        )


def started_from(folder: str | None) -> dict[str, Any] | None:
    """Return {run_id, folder} of the run that networks started from, None if they started from random weights."""
    record = None if folder is None else Record.read(Path(folder))
    return None if record is None else {"run_id": record.run_id, "folder": folder}
