"""Soft optimal uncertainty weighting."""

from typing import Any

import torch
from torch import Tensor

from mtlrun.config.bounds import Positive, checked
from mtlrun.weightings.base import LOG_EPSILON, LossWeighting


class UncertaintySO(LossWeighting):
    """sum_k w_k L_k with w = softmax_k((1 / L_k) / T), the weights held constant (UW-SO).

    Up to a factor, 1 / L_k is the optimal weight of `uncertainty`, which is used here without learning it.

    Source: Kirchdorfer, Elich, Kutsche, Stuckenschmidt, Schott & Köhler, "Analytical Uncertainty-Based Loss Weighting
    in Multi-Task Learning" (arXiv:2408.07985, 2024). The paper tunes T for each dataset: it has the unit of 1 / L_k,
    so that no value suits all.

    Args:
        temperature: T > 0; the larger, the more equal the weights.
        common: see `Weighting`.
    """

    needs_positive_losses = True

    @checked
    def __init__(self, temperature: Positive = 1.0, **common: Any) -> None:
        super().__init__(**common)
        self.temperature = temperature

    def objective(self, losses: Tensor) -> Tensor:
        optimal = 1 / (losses.detach() + LOG_EPSILON)
        return (torch.softmax(optimal / self.temperature, dim=0) * losses).sum()
