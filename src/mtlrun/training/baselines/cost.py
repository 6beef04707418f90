"""How long baselines take, estimated before any is fitted: what `trainer.baselines=auto` decides by.

Measured on one thread of a server of 2023, with scikit-learn 1.9; docs/your_data.md has the rule in words.
"""

from mtlrun.tasks.base import Family
from mtlrun.training.baselines.predictors import MOST_ITERATIONS, PENALTIES

#: `auto` fits what is estimated to take no longer than this for all tasks together.
MOST_SECONDS = 20.0

_LINEAR_PASSES = 25  # through the inputs, until a linear model has converged
_MOST_LEAVES, _LEAF_SIZE = 31, 20


def estimate_seconds(method: str, family: Family, num_samples: int, num_features: int, num_outputs: int) -> float:
    """Return how long it takes to fit `linear` or `boosting` to one task.

    Args:
        method: `linear` or `boosting`.
        family: of the task.
        num_samples: of the training split, with a label of the task.
        num_features: length of an input.
        num_outputs: size of the task's head.
    """
    cells = num_samples * num_features
    if method == "boosting":
        trees = 1 if family == "categorical" and num_outputs == 2 else num_outputs
        leaves = min(_MOST_LEAVES, num_samples / _LEAF_SIZE)
        iterations = min(MOST_ITERATIONS, 50 + num_samples / 100)  # until validation stops them: of more data, later
        return iterations * trees * (1e-3 + 8e-9 * cells + 4e-6 * leaves * num_features)
    if family == "gaussian":
        of_one = 1e-3 + 1e-8 * cells + 2e-10 * cells * min(num_samples, num_features)
        return len(PENALTIES) * num_outputs * of_one
    per_cell = 3e-9 + 1.2e-9 * num_outputs if family == "categorical" else 4.5e-9 * num_outputs
    return len(PENALTIES) * (5e-3 + _LINEAR_PASSES * per_cell * cells)
