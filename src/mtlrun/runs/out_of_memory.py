"""What is said when a training does not fit into memory: what it was, what was tried, and the keys that would help."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mtlrun.errors import OutOfMemoryError
from mtlrun.setup.memory import is_out_of_memory
from mtlrun.setup.memory_advice import keys_that_help
from mtlrun.setup.model_size import count_parameters
from mtlrun.training.trainer import Trainer

_TRIED = re.compile(r"(?:[Tt]ried|Unable) to allocate ([\d.]+ (?:[KMGTPE]iB|bytes))")


@contextmanager
def explaining_out_of_memory(trainer: Trainer, config: Mapping[str, Any]) -> Iterator[None]:
    """Raise OutOfMemoryError in place of what PyTorch or NumPy raise in the block when there is no memory left.

    Args:
        trainer: that works in the block.
        config: of its run.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(explain(str(error), trainer, config)) from error


def explain(found: str, trainer: Trainer, config: Mapping[str, Any]) -> str:
    """Return the message.

    Args:
        found: that of the allocator.
        trainer: whose step or evaluation had no room.
        config: of its run.
    """
    names, parts, settings, evaluating = config["names"], trainer.parts, trainer.parts.settings, trainer.evaluating
    number = count_parameters(parts.model.parameters())
    size = f"eval_batch_size={settings.eval_batch_size}" if evaluating else f"batch_size={settings.batch_size}"
    tried = _TRIED.search(found)
    asked = f" when {_readable(tried)} more were asked for" if tried else ""
    keys = ["fewer trainer.vectorized_seeds"] if trainer.seeds_together and not trainer.evaluating else []
    keys = keys or keys_that_help(parts, config, evaluating=trainer.evaluating)
    advice = f"what would help, first things first: {', '.join(keys)}" if keys else "use a smaller backbone"
    what = "an evaluation" if evaluating else "a step"
    return (
        f"weighting={names['weighting']} with model={names['model']} ({number:,} parameters, {len(parts.tasks)} tasks) "
        f"and trainer.{size} does not fit into the memory of {parts.device}: {what} ran out of it{asked}; {advice}"
    )


def _readable(tried: re.Match[str]) -> str:
    """Return how much was asked for; PyTorch gives bytes on the CPU."""
    amount, unit = tried[1].split()
    return f"{float(amount) / 2**20:,.0f} MiB" if unit == "bytes" else f"{amount} {unit}"
