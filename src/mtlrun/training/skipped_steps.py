"""Steps that are skipped since gradients, scaled for float16, exceed it."""

import torch
from torch import Tensor

from mtlrun.config.settings import Settings
from mtlrun.errors import DivergedError
from mtlrun.gradients import NonFiniteGradientError
from mtlrun.models.gradient_scale import GradientScale
from mtlrun.weightings import LossWeighting, Weighting
from mtlrun.weightings.capabilities import ObservesLossesAfterStep

# By then the scale is a thousand-millionth of what it was.
_MOST_IN_A_ROW = 30


class SkippedSteps:
    """The count of skipped steps, and the end of a run that makes no other.

    Args:
        scale: of the gradients inside the model; None where they are not scaled, and no step is skipped.
        weighting: of the run.
        settings: the group `trainer`.
    """

    def __init__(self, scale: GradientScale | None, weighting: Weighting, settings: Settings) -> None:
        self.scale = scale
        learns = any(True for _ in weighting.parameters()) or bool(weighting.capable_of(ObservesLossesAfterStep))
        seen = not isinstance(weighting, LossWeighting) or learns or settings.log_gradients_every is not None
        #: True if not only the optimizer has to know that a step is skipped, but also the method, or the log.
        self.must_be_seen = scale is not None and seen

    def explains(self, error: NonFiniteGradientError) -> bool:
        """Return True if task gradients are not finite in a step that is to be skipped: its losses are finite."""
        return self.scale is not None and (error.losses is None or bool(torch.isfinite(error.losses).all()))

    def count(self, step: int, is_skipped: Tensor | bool, *, read: bool) -> bool:
        """Count a step; return True if it is known to be skipped.

        Args:
            step: counted from 1.
            is_skipped: whether it is.
            read: look at that now, and not only when the log is due.

        Raises:
            DivergedError: too many steps in a row were skipped.
        """
        if self.scale is None:
            return False
        self.scale.update(is_skipped)
        is_known = read and bool(is_skipped)
        if is_known:
            self.check(step)
        return is_known

    def total(self) -> int:
        """Return the number of steps that were skipped. Waits for the device."""
        return 0 if self.scale is None else self.scale.skipped()[0]

    def check(self, step: int) -> dict[str, float]:
        """Return {tag: number of skipped steps}, empty where none can be. Waits for the device.

        Raises:
            DivergedError: too many steps in a row were skipped.
        """
        if self.scale is None:
            return {}
        total, in_a_row = self.scale.skipped()
        if in_a_row >= _MOST_IN_A_ROW:
            raise DivergedError(
                f"step {step}: {in_a_row} steps in a row were skipped, since gradients in the model exceed float16, "
                "however little they are scaled; use trainer.precision=bf16, or a lower learning rate",
                step,
                None,
            )
        return {"train/skipped_steps": float(total)}
