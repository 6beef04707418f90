"""Batch size, length and evaluations of a training, where the config leaves them to the number of training samples."""

from mtlrun.config.settings import Settings
from mtlrun.datasets import Loader

_BATCHES_PER_EPOCH = 32
_SMALLEST_BATCH, _LARGEST_BATCH = 16, 512
_FEWEST_STEPS, _FEWEST_EPOCHS = 1000, 20
_EVALUATIONS = 40


def choose_length(settings: Settings, train: Loader) -> dict[str, int]:
    """Return the keys of `trainer` that the config leaves out, {key: number}, for a loader of the training split.

    `trainer.limit_batches` makes epochs shorter, not more.
    """
    chosen = {}
    epochs = settings.epochs
    if settings.batch_size is None:
        chosen["batch_size"] = train.batch_size
    if epochs is None and settings.steps is None:
        epochs = chosen["epochs"] = choose_epochs(train.unlimited_batches)
    if settings.evaluate_every is None:
        chosen["evaluate_every"] = choose_evaluate_every(epochs or (settings.steps or 1) / train.num_batches)
    return chosen


def choose_batch_size(num_samples: int) -> int:
    """Return a power of two from 16 to 512 that makes about 32 batches of so many training samples."""
    size = _SMALLEST_BATCH
    while size < _LARGEST_BATCH and size * _BATCHES_PER_EPOCH * 2**0.5 < num_samples:
        size *= 2
    return size


def choose_epochs(steps_per_epoch: int) -> int:
    """Return the number of epochs that make 1,000 steps or a little more, and 20 or more."""
    return max(_FEWEST_EPOCHS, -(-_FEWEST_STEPS // steps_per_epoch))


def choose_evaluate_every(epochs: float) -> int:
    """Return after how many epochs to evaluate, for about 40 evaluations in all; 1 or more."""
    return max(1, round(epochs / _EVALUATIONS))
