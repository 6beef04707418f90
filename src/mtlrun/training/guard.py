"""Guard: refuses steps whose losses or gradients no update can be made of, and clips gradients if configured."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtlrun.config.settings import Settings
from mtlrun.errors import DivergedError, FallbackError
from mtlrun.gradients.assignment import norm_of_grads
from mtlrun.models import MultiTaskModel
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.forward import BatchPass, ModelSharing
from mtlrun.weightings.state.active_tasks import index_on

# Allowed in every run, so that a short one does not end at its first fallback.
_ALLOWED_FALLBACKS = 10
# How far rounding may take a loss below its bound.
_ROUNDING = 1e-5
_NO_SINGLE_TASK = "the weighted sum of the task gradients"


class Guard:
    """Checks losses and gradients before each optimizer step, and clips the gradients.

    Args:
        model: the one that is trained.
        sharing: which of its parameters the losses reach.
        settings: for `clip_norm`, `micro_batches` and `max_fallbacks`.
        lowest_losses: [K], what the weighting says that the losses must not fall below, on the model's device.
    """

    def __init__(self, model: MultiTaskModel, sharing: ModelSharing, settings: Settings, lowest_losses: Tensor) -> None:
        self._model, self._sharing, self._settings = model, sharing, settings
        self._lowest_losses = lowest_losses
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        # Clipped together: all parameters, or those of each network if the tasks are trained independently.
        self._clipped = list(sharing.task_params.values()) if model.independent_tasks else [trainable]

    def check_and_clip(
        self, losses: Tensor, batch: LabeledBatch, step: int, active: slice | Tensor = slice(None)
    ) -> None:
        """Clip the gradients to `clip_norm`, if that is set; one number is read from the device.

        Args:
            losses: of the active tasks.
            batch: that they are of.
            step: counted from 1.
            active: the positions of the active tasks among the K.

        Raises:
            DivergedError: a loss or gradient is not finite, or a loss is below what the weighting works with; it names
                the task and the step.
        """
        lowest = self._lowest_losses[index_on(active, losses.device)]
        too_low = losses < lowest - _ROUNDING
        norms = [nn.utils.get_total_norm(_gradients(parameters)) for parameters in self._clipped]
        total = torch.where(too_low.any(), torch.nan, losses.sum())
        if not torch.isfinite(torch.stack([*norms, total])).all():
            if too_low.any():
                place = int(too_low.nonzero()[0])
                task = list(self._sharing.task_params)[int(torch.arange(len(self._lowest_losses))[active][place])]
                raise DivergedError(
                    f"step {step}: the loss of task {task} is {float(losses[place]):.4g}, and the weighting works with "
                    f"losses of {float(lowest[place]):g} or more; this step was not applied. Use another weighting, or "
                    "a lower weighting.min_losses if it has that key",
                    step,
                    task,
                )
            norms = [norm_of_grads(parameters) for parameters in self._clipped]
            if not torch.isfinite(torch.stack([*norms, total.to(norms[0])])).all():
                raise diverged(*self._find_non_finite(batch), step)
            if self._settings.clip_norm is None:
                raise DivergedError(
                    f"step {step}: the gradient has a length of {float(max(norms)):.1g}, too long for the optimizer, "
                    "since float32 does not hold its square; this step was not applied. Try trainer.clip_norm=1",
                    step,
                    None,
                )
        if self._settings.clip_norm is not None:
            for parameters, norm in zip(self._clipped, norms, strict=True):
                nn.utils.clip_grads_with_norm_(parameters, self._settings.clip_norm, norm)

    def check_fallbacks(self, fallbacks: int, step: int) -> None:
        """Raise FallbackError if the weighting has fallen back in too many of the steps so far."""
        if fallbacks > max(self._settings.max_fallbacks * step, _ALLOWED_FALLBACKS):
            raise FallbackError(
                f"step {step}: the weighting has fallen back in {fallbacks} steps, more than "
                f"trainer.max_fallbacks={self._settings.max_fallbacks} allows; the result would not represent the "
                "method"
            )

    def _find_non_finite(self, batch: LabeledBatch) -> tuple[str, str | None]:
        """Return what is not finite, and its task; slow, since all is computed again, one task after the other."""
        self._model.zero_grad(set_to_none=True)
        what, task = _NO_SINGLE_TASK, None
        for micro_batch in batch.split(self._settings.micro_batches):
            losses = BatchPass(self._model, micro_batch).losses
            what, task = find_non_finite(losses, self._sharing.shared, self._sharing.task_params)
            if task is not None:
                break
        return what, task


def find_non_finite(
    losses: Mapping[str, Tensor], shared: Sequence[nn.Parameter], task_params: Mapping[str, Sequence[nn.Parameter]]
) -> tuple[str, str | None]:
    """Return what is not finite, in words, and the task that it belongs to, None if no single one's is.

    Args:
        losses: {task: scalar with its graph}.
        shared: parameters that several losses reach.
        task_params: {task: parameters that its loss alone reaches}.
    """
    for name, loss in losses.items():
        if not torch.isfinite(loss):
            return f"the loss of task {name}", name
    for name, loss in losses.items():
        for grad in torch.autograd.grad(loss, [*shared, *task_params[name]], retain_graph=True, allow_unused=True):
            if grad is not None and not torch.isfinite(grad).all():
                return f"the gradient of task {name}", name
    return _NO_SINGLE_TASK, None


def diverged(what: str, task: str | None, step: int) -> DivergedError:
    """Return the error of a run in which `what` is not finite.

    Args:
        what: such as "the loss of task depth".
        task: the task that it belongs to; None if it is no single one's.
        step: counted from 1.
    """
    return DivergedError(
        f"step {step}: {what} is not finite (NaN or infinite); this step was not applied. "
        "Try a lower learning rate or trainer.clip_norm=1",
        step,
        task,
    )


def _gradients(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]
