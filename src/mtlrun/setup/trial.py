"""A trial of a training step's memory on a GPU, before anything is on disk."""

from collections.abc import Mapping
from typing import Any

import torch

from mtlrun.errors import ConfigError, OutOfMemoryError
from mtlrun.setup.memory_advice import keys_that_help
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.forward import BatchPass, untouched
from mtlrun.training.parts import Parts


def try_memory(parts: Parts, config: Mapping[str, Any]) -> None:
    """Send the first batch, or the first micro-batch, of the training through the model and back, if that is on a GPU.

    Model and random numbers are left as they were. What gradients of several tasks take besides is not tried.

    Args:
        parts: of the run.
        config: of the run.

    Raises:
        OutOfMemoryError: the GPU has too little memory for it.
        ConfigError: something in it is not possible there, such as with deterministic algorithms alone.
    """
    if parts.device.type != "cuda":
        return
    try:
        _make_passes(parts)
    except torch.OutOfMemoryError as error:
        parts.model.zero_grad(set_to_none=True)
        free, size = (bytes_ / 2**30 for bytes_ in torch.cuda.mem_get_info(parts.device))
        what = "a batch" if parts.settings.micro_batches == 1 else "a micro-batch"
        raise OutOfMemoryError(
            f"trainer.batch_size={parts.loaders['train'].batch_size}: {what} has no room in the memory of "
            f"{parts.device}, of which {free:.1f} of {size:.1f} GiB are free; what would help, first things first: "
            f"{', '.join(keys_that_help(parts, config, evaluating=False)) or 'a smaller backbone'}"
        ) from error
    except torch.AcceleratorError:
        raise
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"the first batch cannot be sent through the model and back on {parts.device}: {reason}"
        ) from error


def _make_passes(parts: Parts) -> None:
    """Make a forward and a backward pass, and drop the gradients."""
    model = parts.model
    batch = LabeledBatch.load(parts.tasks, parts.loaders["train"].first_batch(), parts.device)
    batch = next(batch.split(parts.settings.micro_batches))
    model.train()
    with untouched(model):
        losses = list(BatchPass(model, batch).losses.values())
        if losses:
            torch.stack(losses).sum().backward()
    model.zero_grad(set_to_none=True)
