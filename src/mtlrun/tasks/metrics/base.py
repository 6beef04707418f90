"""The interface of a metric: torchmetrics' where that is used, or a sum of counts."""

from abc import ABC, abstractmethod
from typing import Any, Protocol, Self

import torch
from torch import Tensor


class Metric(Protocol):
    """A value pooled over the batches of a split, as of `torchmetrics.Metric`."""

    higher_is_better: bool | None

    def update(self, prediction: Tensor, target: Tensor, /) -> None:
        """Add a batch, as `Task.metric_inputs` returns it."""

    def compute(self) -> Any:
        """Return the value over all batches so far, a tensor of shape []."""

    def to(self, device: torch.device, /) -> Any:
        """Move the state to a device."""


class CountMetric(ABC):
    """Base class of metrics made of counts that are added up over the batches.

    For the metrics of the commonest tasks. torchmetrics is the choice for all others; importing it takes as long as
    importing PyTorch, since it imports SciPy and torchvision.

    Args:
        shape: of the counts.
    """

    higher_is_better: bool | None = True

    def __init__(self, *shape: int) -> None:
        self.counts = torch.zeros(shape, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add the counts of a batch."""
        self.counts += self.count(prediction, target)

    def to(self, device: torch.device) -> Self:
        """Move the counts to a device."""
        self.counts = self.counts.to(device)
        return self

    @abstractmethod
    def count(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the counts of a batch."""

    @abstractmethod
    def compute(self) -> Tensor:
        """Return the value of the counts, of shape []."""
