"""Baselines of a run, computed once its result is known."""

import logging
from pathlib import Path

from mtlrun.errors import MtlrunError
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
    try:
        with stopping_at_once():
            found = compute_baselines(parts, record.config["tasks"], parts.settings.baselines, folder)
    except MtlrunError:
        raise
    except Exception as error:  # a run does not fail by its baselines
        logger.warning("no baselines: %s: %s", type(error).__name__, error)
        logger.debug("%s", error, exc_info=True)
        return
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
