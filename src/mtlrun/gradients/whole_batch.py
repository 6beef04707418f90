"""`backward`: the update of a whole batch in one call, for a training loop without the runner."""

from collections.abc import Sequence

from torch import Tensor, nn

from mtlrun.gradients.step import GradientStep
from mtlrun.gradients.task_gradients import Sharing
from mtlrun.gradients.update import Update
from mtlrun.weightings.base import Weighting


def backward(
    weighting: Weighting,
    losses: Sequence[Tensor],
    shared: Sequence[nn.Parameter],
    task_params: Sequence[Sequence[nn.Parameter]],
    *,
    representation: Tensor | None = None,
    last_layer: Sequence[nn.Parameter] = (),
    regularizer: Tensor | None = None,
    want_gram: bool = False,
    parts: Sequence[Sequence[Tensor]] = (),
    vmap: bool = False,
) -> Update:
    """Set `.grad` of all parameters to the update that `weighting` makes of a batch's losses.

    What a training loop without the runner calls instead of `loss.backward()`, after `optimizer.zero_grad()`.

    Args:
        weighting, want_gram, vmap: see `GradientStep`.
        losses: K scalars with their graph.
        shared, task_params, last_layer: see `Sharing`.
        representation, regularizer, parts: see `GradientStep.add`.

    Raises:
        NonFiniteGradientError: before anything is combined.
    """
    step = GradientStep(weighting, Sharing(shared, task_params, last_layer), want_gram=want_gram, vmap=vmap)
    step.add(losses, representation=representation, regularizer=regularizer, parts=parts)
    return step.finish()
