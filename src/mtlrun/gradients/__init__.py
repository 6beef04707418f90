"""From task losses to `.grad`: per-task gradients of the shared parameters, their Gram matrix, the combined update.

`backward` is what the trainer calls, and what a training loop of one's own may call instead of `loss.backward()`;
`Accumulation` does the same where a batch is computed in pieces.
"""

from mtlrun.gradients.accumulation import Accumulation, needs_losses
from mtlrun.gradients.gram import NonFiniteGradientError, gram_matrix
from mtlrun.gradients.update import Update, backward

__all__ = ["Accumulation", "NonFiniteGradientError", "Update", "backward", "gram_matrix", "needs_losses"]
