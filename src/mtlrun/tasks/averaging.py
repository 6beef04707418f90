"""Averages of predictions: what of a prediction has a mean over several models, and how that mean is evaluated."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

_TINY = torch.finfo(torch.float64).tiny


class AveragesPredictions(ABC):
    """Mixin of tasks whose predictions by several models can be averaged: probabilities, or numbers in their unit.

    The mean over models is taken of `to_average`; `from_average` turns it back into what a head puts out, so that loss
    and metrics are computed from it as from any prediction. `from_average(to_average(z))` predicts what z predicts.
    """

    #: The dimension of averages along which probabilities add up to 1; None where averages are numbers.
    distribution_dim: ClassVar[int | None] = None

    @abstractmethod
    def to_average(self, prediction: Tensor) -> Tensor:
        """Return what is averaged of the head's output, [n, ...], in float64."""

    @abstractmethod
    def from_average(self, average: Tensor) -> Tensor:
        """Return the head's output, float32, whose `to_average` is `average`."""

    def observed(self, target: Tensor) -> Tensor:
        """Return the targets of labeled samples in the form of averages.

        These are numbers, float64 of the shape of averages, or indices along `distribution_dim`, int64 of this shape
        without that dimension, -1 where one of several labels is missing.

        Raises:
            NotImplementedError: the task predicts at each pixel.
        """
        raise NotImplementedError(f"{type(self).__name__} predicts at each pixel")


def no_and_yes(logit: Tensor) -> Tensor:
    """Return the probabilities of no and yes, each as exact as the other, float64 [..., 2]."""
    return torch.stack([(-logit.double()).sigmoid(), logit.double().sigmoid()], dim=-1)


def log_odds(pairs: Tensor) -> Tensor:
    """Return the inverse of `no_and_yes`, float32 [...]; it is finite, even if a probability is 0."""
    no, yes = log(pairs).unbind(dim=-1)
    return (yes - no).float()


def log(values: Tensor) -> Tensor:
    """Return logarithms, of 0 that of the smallest float64 number."""
    return values.clamp(min=_TINY).log()
