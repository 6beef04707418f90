"""What the keys have in common that compute the passes of a step in an unusual way: what such a pass can be."""

from collections.abc import Iterator

from torch import Tensor

from mtlrun.models import MultiTaskModel
from mtlrun.training.parts import Parts
from mtlrun.weightings import GradientWeighting, LossWeighting, PartsWeighting
from mtlrun.weightings.base import TaskGradientWeighting
from mtlrun.weightings.capabilities import (
    LooksAhead,
    ObservesLossesAfterStep,
    ObservesPerformance,
    RotatesRepresentation,
)

#: Keys that change a pass, with the values that leave it plain.
_PLAIN = {
    "micro_batches": (1,),
    "checkpoint_activations": (False,),
    "two_pass": (False,),
    "stream_rows": (False,),
    "compile": (False,),
}


def limits_of_plain_passes(
    parts: Parts, what: str, *, combine_gradients: bool = False, **plain: tuple[object, ...]
) -> Iterator[str]:
    """Yield why the passes of a run are not plain; see `mtlrun.training.plain_pass`.

    Args:
        parts: of the run.
        what: that needs plain passes, for the messages, such as "CUDA graphs".
        combine_gradients: whether methods are allowed that compare gradients with respect to the shared parameters.
        plain: further keys of the group `trainer`, with the values that are allowed.
    """
    weighting, model, train = parts.weighting, parts.model, parts.loaders["train"]
    if not combine_gradients and not isinstance(weighting, LossWeighting):
        yield f"{type(weighting).__name__} combines gradients, and {what} are for weightings of losses"
    if isinstance(weighting, TaskGradientWeighting) and weighting.grad_wrt != "shared":
        yield f"weighting.grad_wrt={weighting.grad_wrt} is not for {what}, only shared"
    if isinstance(weighting, GradientWeighting) and weighting.update_weights_every != 1:
        yield f"weighting.update_weights_every={weighting.update_weights_every} is not for {what}, only 1"
    if isinstance(weighting, PartsWeighting | RotatesRepresentation):
        yield f"{type(weighting).__name__} needs more of a step than the losses"
    for method in weighting.methods():
        if isinstance(method, LooksAhead | ObservesLossesAfterStep | ObservesPerformance):
            yield f"{type(method).__name__} needs more of a step than the losses"
    for key, allowed in (_PLAIN | plain).items():
        found = getattr(parts.settings, key)
        if found not in allowed:
            yield f"trainer.{key}={_shown(found)} is not for {what}, only {_shown(allowed[0])}"
    if type(model).on_train_step is not MultiTaskModel.on_train_step:
        yield f"{type(model).__name__} changes in the course of the training"
    if train.per_source or model.source_statistics is not None:
        yield "sources go through the model separately"
    if isinstance(train.split.sample_weights, Tensor) or train.split.sample_weights:
        yield "samples have weights"
    summary = parts.splits["train"]
    for task, labeled in summary.labeled.items():
        if labeled < summary.samples:
            yield f"task {task} has a label for {labeled} of {summary.samples} training samples, and must have all"


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
