"""From task losses to `.grad`: task gradients, their Gram matrix, and the update made of them. Usable as a library.

Here: `GradientStep`, which is given the losses of a batch, at once or in micro-batches, and sets `.grad`; `backward`,
the same in one call, for a training loop without the runner; `lookahead_affinity`, which tasks help which. Not here:
what the update is (`weightings`), where the losses come from, and the optimizer (`training`).

Contract: task gradients are exact unless `grad_wrt` says otherwise; they are kept a tensor per parameter and are
concatenated for Jacobian methods only. Micro-batches give the update of the whole batch. Parameters that no loss
reaches keep a `.grad` of None. A task gradient that is not finite raises NonFiniteGradientError before anything is
combined.
"""

from mtlrun.gradients.affinity import lookahead_affinity
from mtlrun.gradients.gram import gram_matrix
from mtlrun.gradients.step import GradientStep
from mtlrun.gradients.task_gradients import Sharing
from mtlrun.gradients.update import Update
from mtlrun.gradients.whole_batch import backward
from mtlrun.weightings.inner_products import NonFiniteGradientError

__all__ = [
    "GradientStep",
    "NonFiniteGradientError",
    "Sharing",
    "Update",
    "backward",
    "gram_matrix",
    "lookahead_affinity",
]
