"""Baselines of a run, computed once its result is known, and those that a finished run lacks."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtlrun.records.folder import BASELINES
from mtlrun.records.record import Record
from mtlrun.runs.signals import stopping_at_once
from mtlrun.training.baselines.compute import compute_baselines
from mtlrun.training.parts import Parts

logger = logging.getLogger("mtlrun")


def add_baselines(parts: Parts, record: Record) -> None:
    """Write into the record what simple predictors get on test, and log how long that took.

    Raises:
        RunInterruptedError: SIGINT or SIGTERM arrived.
    """
    folder = Path(parts.runtime.root, BASELINES)
    with stopping_at_once():
        found = compute_baselines(parts, record.config["tasks"], parts.settings.baselines, folder)
    record.baselines, record.baseline_settings = found.metrics, found.settings
    record.seconds["baselines"] = found.seconds
    for note in found.notes:
        if note not in record.notes:
            record.notes.append(note)
        logger.info("%s", note)
    if found.fitted:
        also = f", and {found.cached} read from {folder}" if found.cached else ""
        logger.info("baselines: fitted in %.1f s%s", found.seconds, also)
    elif found.cached:
        logger.info("baselines: read from %s, where a run on the same data left them", folder)


def lacks_baselines(record: Record, config: Mapping[str, Any]) -> bool:
    """Return True if all baselines are asked for now, and were not when the run was trained."""
    return (
        record.status == "completed"
        and config["trainer"].get("baselines") is True
        and record.config["trainer"].get("baselines") is not True
    )
