"""Fixed weights."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from mtlrun.config.bounds import Positive, checked
from mtlrun.weightings.base import LossWeighting
from mtlrun.weightings.capabilities import UsesLabelFractions


class Static(UsesLabelFractions, LossWeighting):
    """sum_k c_k L_k with fixed weights c, from `tasks.<t>.weight`.

    With tuned weights, this is the baseline that every weighting method has to beat: Xin et al., "Do Current Multi-Task
    Optimization Methods in Deep Learning Even Help?" (NeurIPS 2022).

    Args:
        weights: c, one number > 0 per task, in the order of the tasks; `size` for the fraction of the training samples
            that carry the task's label.
        common: see `Weighting`.
    """

    ignores_losses = True
    weights: Tensor

    @checked
    def __init__(self, weights: Sequence[Positive | Literal["size"]], **common: Any) -> None:
        super().__init__(**common)
        self.needs_label_fractions = "size" in weights
        numbers = [math.nan if weight == "size" else weight for weight in weights]
        self.register_buffer("weights", torch.tensor(numbers, dtype=torch.float32))

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        if len(self.weights) != num_tasks:
            raise ValueError(
                f"weights must hold one number for each of the {num_tasks} tasks, found {len(self.weights)}"
            )

    def set_label_fractions(self, fractions: Sequence[float]) -> None:
        self.weights = torch.where(self.weights.isnan(), self.weights.new_tensor(fractions), self.weights)

    def objective(self, losses: Tensor) -> Tensor:
        return (self.weights[self.active].to(losses.dtype) * losses).sum()
