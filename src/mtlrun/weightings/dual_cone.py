"""Base of the methods that project on the dual cone of the task gradients."""

from typing import Any

from mtlrun.config.bounds import NonNegative, checked
from mtlrun.config.checks import check_one_of
from mtlrun.weightings.base import GradientWeighting, Reduction
from mtlrun.weightings.preferences import UsesPreferences


class DualConeWeighting(UsesPreferences, GradientWeighting):
    """A weighting by projections on the dual cone, the set of directions that conflict with no task.

    Args:
        regularization: added to the squared lengths of the gradients, >= 0, as a fraction of the sum of all. It keeps
            weights bounded if gradients are nearly dependent, and leaves conflicts of its size, which may be large with
            a task whose gradient is shorter than the root of that fraction times the longest; 0 solves exactly.
        reduction: `mean` or `sum`.
        preferences: see `UsesPreferences`.
        common: see `GradientWeighting`.
    """

    @checked
    def __init__(self, regularization: NonNegative = 1e-4, reduction: Reduction = "mean", **common: Any) -> None:
        super().__init__(**common)
        check_one_of("reduction", reduction, Reduction)
        self.regularization = regularization
        self.reduction = reduction
