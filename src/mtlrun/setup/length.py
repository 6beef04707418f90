"""Batch size, length and evaluations of a training, where the config leaves them to the number of training samples."""

from dataclasses import replace

from mtlrun.config.settings import Settings
from mtlrun.datasets import Loader

_BATCHES_PER_EPOCH = 32
_SMALLEST_BATCH, _LARGEST_BATCH = 16, 256
_FEWEST_STEPS, _MANY_STEPS = 1000, 10_000
_FEWEST_EPOCHS, _ENOUGH_EPOCHS = 20, 40
_EVALUATIONS = 40


def choose_length(settings: Settings, train: Loader) -> tuple[Settings, dict[str, int]]:
    """Return the group `trainer` with the keys that the config leaves out, and these alone, {key: number}.

    `trainer.limit_batches` makes epochs shorter, not more.

    Args:
        settings: as in the config.
        train: the loader of the training split, with the batch size of the config or the one that is chosen here.
    """
    epochs, evaluate_every = settings.epochs, settings.evaluate_every
    if epochs is None and settings.steps is None:
        epochs = choose_epochs(train.unlimited_batches)
    if evaluate_every is None:
        evaluate_every = choose_evaluate_every(epochs or (settings.steps or 1) / train.num_batches)
    complete = replace(settings, batch_size=train.batch_size, epochs=epochs, evaluate_every=evaluate_every)
    keys = [key for key in ("batch_size", "epochs", "evaluate_every") if getattr(settings, key) is None]
    return complete, {key: getattr(complete, key) for key in keys if getattr(complete, key) is not None}


def choose_batch_size(num_samples: int) -> int:
    """Return a power of two from 16 to 256 that makes about 32 batches of so many training samples."""
    size = _SMALLEST_BATCH
    while size < _LARGEST_BATCH and size * _BATCHES_PER_EPOCH * 2**0.5 < num_samples:
        size *= 2
    return size


def choose_epochs(steps_per_epoch: int) -> int:
    """Return the number of epochs: 40, or as many as make 1,000 steps; fewer, down to 20, above 10,000 steps."""
    most = max(_FEWEST_EPOCHS, min(_ENOUGH_EPOCHS, _MANY_STEPS // steps_per_epoch))
    return max(most, -(-_FEWEST_STEPS // steps_per_epoch))


def choose_evaluate_every(epochs: float) -> int:
    """Return after how many epochs to evaluate, for about 40 evaluations in all; 1 or more."""
    return max(1, round(epochs / _EVALUATIONS))
