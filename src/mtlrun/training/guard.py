"""Guard: refuses steps whose losses or gradients no update can be made of, and clips gradients if configured."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from mtlrun.config.settings import Settings
from mtlrun.errors import DivergedError, FallbackError
from mtlrun.gradients.assignment import norm_of_grads, quick_norm_of_grads
from mtlrun.models import MultiTaskModel
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.forward import BatchPass, ModelSharing
from mtlrun.weightings.state.active_tasks import index_on

# Allowed in every run, so that a short one does not end at its first fallback.
_ALLOWED_FALLBACKS = 10
# How far rounding may take a loss below its bound.
_ROUNDING = 1e-5
_LARGEST = torch.finfo(torch.float64).max
_NO_SINGLE_TASK = "the weighted sum of the task gradients"


class Guard:
    """Checks losses and gradients before each optimizer step, and clips the gradients.

    On the CPU the verdict on a step is read at once. On a GPU that would mean to wait until the whole step is computed,
    so it stays there: the optimizer gets it as `found_inf`, as in mixed precision, and applies neither the first bad
    step nor any later one, until `raise_if_bad` reads which step it was.

    Args:
        model: the one that is trained.
        sharing: which of its parameters the losses reach.
        settings: for `clip_norm`, `micro_batches` and `max_fallbacks`.
        lowest_losses: [K], what the weighting says that the losses must not fall below, on the model's device.
        reads_at_once: whether each verdict is read before the step is applied.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        sharing: ModelSharing,
        settings: Settings,
        lowest_losses: Tensor,
        *,
        reads_at_once: bool = True,
    ) -> None:
        self._model, self._sharing, self._settings = model, sharing, settings
        self.reads_at_once = reads_at_once
        # With finite losses and a gradient that is not finite, a step is not bad: scaled ones may exceed float16.
        self._skips = model.computation.scale is not None
        #: Whether the last step is to be left out for that; a tensor where verdicts stay on the device.
        self.is_skipped: Tensor | bool = False
        device = lowest_losses.device
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        # Clipped together: all parameters, or those of each network if the tasks are trained independently.
        self._clipped = list(sharing.task_params.values()) if model.independent_tasks else [trainable]
        # A step is described by its K losses and the lengths of its gradients, and is good if all are within bounds.
        # The optimizer squares the gradients' entries; clipped ones are short.
        longest = min((torch.finfo(parameter.dtype).max for parameter in trainable), default=_LARGEST) ** 0.5
        lengths = [0.0] * len(self._clipped)
        self._lowest = [*(lowest_losses - _ROUNDING).tolist(), *lengths]
        self._highest = [_LARGEST] * len(self._lowest)
        if settings.clip_norm is None:
            self._highest[len(lowest_losses) :] = [longest] * len(self._clipped)
        # Stands for the losses of tasks that have none.
        self._harmless = lowest_losses.clamp(min=0).double()
        #: Number of the first bad step, 0 if there is none, followed by its description; float64, on the device.
        self._first_bad = torch.zeros(1 + len(self._lowest), dtype=torch.float64, device=device)
        self._bounds = torch.tensor([self._lowest, self._highest], dtype=torch.float64, device=device)

    def check_and_clip(self, losses: Tensor, step: int, active: slice | Tensor = slice(None)) -> None:
        """Reach the verdict on a step, and clip its gradients to `clip_norm`, if that is set.

        Args:
            losses: of the active tasks.
            step: counted from 1.
            active: the positions of the active tasks among the K.
        """
        is_read = self.reads_at_once and losses.device.type == "cpu"
        norms = (self._read_verdict if is_read else self._note_verdict)(losses, step, active)
        if self._settings.clip_norm is not None:
            for parameters, norm in zip(self._clipped, norms, strict=True):
                nn.utils.clip_grads_with_norm_(parameters, self._settings.clip_norm, norm)

    def _read_verdict(self, losses: Tensor, step: int, active: slice | Tensor) -> list[Tensor]:
        """Read the verdict on a step; return the lengths of the gradients."""
        norms = [quick_norm_of_grads(parameters) for parameters in self._clipped]
        lengths = [float(norm) for norm in norms]
        if not all(map(math.isfinite, lengths)):  # or too long for the precision of their entries
            norms = [norm_of_grads(parameters) for parameters in self._clipped]
            lengths = [float(norm) for norm in norms]
        found = [*self._of_all(losses, active).tolist(), *lengths]
        within = [low <= value <= high for low, value, high in zip(self._lowest, found, self._highest, strict=True)]
        self.is_skipped = self._skips and all(within[: -len(lengths)]) and not all(map(math.isfinite, lengths))
        if not all(within) and not self.is_skipped:
            self._first_bad = torch.tensor([step, *found], dtype=torch.float64)
        return norms

    def _note_verdict(self, losses: Tensor, step: int, active: slice | Tensor) -> list[Tensor]:
        """Note the step on the device, if it is the first bad one; return the lengths of the gradients."""
        norms = [norm_of_grads(parameters) for parameters in self._clipped]
        found = torch.cat([self._of_all(losses, active).double(), torch.stack(norms)])
        lowest, highest = self._bounds
        within = (found >= lowest) & (found <= highest)  # False for NaN
        is_good = within.all()
        if self._skips:
            num_losses = len(self._harmless)
            self.is_skipped = within[:num_losses].all() & ~torch.isfinite(found[num_losses:]).all()
            is_good = is_good | self.is_skipped
        noted = torch.cat([torch.full_like(found[:1], step), found])
        is_kept = is_good | (self._first_bad[0] > 0)
        self._first_bad = torch.where(is_kept, self._first_bad, noted)
        return norms

    def _of_all(self, losses: Tensor, active: slice | Tensor) -> Tensor:
        """Return the losses of all K tasks; harmless ones where they have none."""
        if isinstance(active, slice):
            return losses
        of_all = self._harmless.clone()
        of_all[index_on(active, losses.device)] = losses.double()
        return of_all

    @property
    def found_inf(self) -> Tensor | None:
        """1.0 on the device if a step so far was bad, or the last one is skipped; None where verdicts are read."""
        return None if self.reads_at_once else ((self._first_bad[0] > 0) | self.is_skipped).float()

    def forget(self) -> None:
        """Forget the first bad step, for steps that are taken back."""
        self._first_bad = torch.zeros_like(self._first_bad)
        self.is_skipped = False

    def raise_if_bad(self, batch_of_step: Callable[[int], LabeledBatch]) -> None:
        """Raise for the first bad step so far, if there was one. Waits for the device.

        Args:
            batch_of_step: returns the batch of a step, counted from 1.

        Raises:
            DivergedError: a loss or gradient is not finite, or a loss is below what the weighting works with; it names
                the task and the step.
        """
        number, *found = self._first_bad.tolist()
        if not number:
            return
        step, tasks = int(number), list(self._sharing.task_params)
        for task, loss, lowest in zip(tasks, found, self._lowest, strict=False):
            if loss < lowest:
                raise DivergedError(
                    f"step {step}: the loss of task {task} is {loss:.4g}, and the weighting works with losses of "
                    f"{lowest + _ROUNDING:g} or more; this step was not applied. Use another weighting, or a lower "
                    "weighting.min_losses if it has that key",
                    step,
                    task,
                )
        for task, loss in zip(tasks, found, strict=False):
            if not math.isfinite(loss):
                raise diverged(f"the loss of task {task}", task, step)
        if all(map(math.isfinite, found)):
            raise DivergedError(
                f"step {step}: the gradient has a length of {max(found[len(tasks) :]):.1g}, too long for the "
                "optimizer, since float32 does not hold its square; this step was not applied. Try trainer.clip_norm=1",
                step,
                None,
            )
        raise diverged(*self._find_non_finite(batch_of_step(step)), step)

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
            with self._model.computation.as_written():
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
