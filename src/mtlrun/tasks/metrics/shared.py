"""Metrics that are computed from one state, which one of them updates for all."""

from typing import ClassVar

from torch import Tensor
from torchmetrics import Metric


class SharedState(Metric):
    """Base of a family of metrics with the same state and update, of which a meter updates one.

    A family is a direct subclass of this, with constructor arguments that are the same in all metrics of a task. On
    small splits the updates are most of an evaluation. (torchmetrics finds out which metrics have the same state after
    it has updated all of them with the first batch, which is often the only one.)
    """

    higher_is_better = True
    full_state_update = False
    family: ClassVar[type[Metric]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if SharedState in cls.__bases__:
            cls.family = cls

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch."""
        raise NotImplementedError


def group_by_state(metrics: dict[str, Metric]) -> list[list[str]] | bool:
    """Return the names of metrics in groups with one state each, or True to let torchmetrics find out.

    Args:
        metrics: of one task, by name.
    """
    families: dict[object, list[str]] = {}
    for name, metric in metrics.items():
        families.setdefault(metric.family if isinstance(metric, SharedState) else name, []).append(name)
    return list(families.values()) if len(families) < len(metrics) else True
