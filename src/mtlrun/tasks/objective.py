"""Functions to be minimized directly, as tasks, and two classic two-task problems made of them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Unpack

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torchmetrics import Metric

from mtlrun.config.bounds import Positive, Width, checked
from mtlrun.config.targets import component
from mtlrun.tasks.base import Task, TaskOptions


class Objective(Task):
    """Task whose loss is a function of the prediction only: there are no labels, and targets are ignored.

    With `dataset=toy2d` or `dataset=concave_front` the prediction is the point x at which the functions are minimized.

    Args:
        function: maps points [batch, size] to values [batch]; in YAML a `_target_` with `_partial_: true`.
        size: number of coordinates of a point.
        common: see `Task`.
    """

    main_metric = "loss"

    @checked
    def __init__(self, function: Callable[[Tensor], Tensor], size: Width = 2, **common: Unpack[TaskOptions]) -> None:
        super().__init__(**common)
        self.function = function
        self.size = size

    @property
    def output_size(self) -> int:
        return self.size

    def labeled(self, target: Tensor) -> Tensor:
        return torch.ones(len(target), dtype=torch.bool, device=target.device)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return self.function(prediction).mean()

    def metrics(self) -> "dict[str, Metric]":
        return {}


@component
def toy2d(points: Tensor, objective: Literal["first", "second"], scale: Positive = 1.0) -> Tensor:
    """Return one of two conflicting functions of the plane, with steep walls, flat valleys and a curved ridge.

        L_1 = scale (c_1 f_1 + c_2 g_1),    L_2 = c_1 f_2 + c_2 g_2,
        c_1 = max(tanh(x_2 / 2), 0),        c_2 = max(tanh(-x_2 / 2), 0)

    Neither maximum is differentiable on the line x_2 = 0, where one of the published starts lies. There each has the
    derivative of its first argument, as in the published code, whose `clamp` had it in the PyTorch of that time.

    Source: Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning" (NeurIPS 2021), section 5 and
    appendix, with scale 1; Navon et al., "Multi-Task Learning as a Bargaining Game" (ICML 2022), with scale 0.1. Both
    papers print the tanh in f_2 with the other sign than all published code; the sign here is that of the code.

    Args:
        points: [batch, 2].
        objective: which of the two functions.
        scale: factor of the first one.
    """
    x1, x2 = points.unbind(dim=1)
    upper, lower = _positive_part(torch.tanh(x2 / 2)), _positive_part(torch.tanh(-x2 / 2))
    if objective == "first":
        f = ((-x1 - 7) / 2 - torch.tanh(-x2)).abs().clamp(min=5e-6).log() + 6
        g = ((-x1 + 7).square() + 0.1 * (-x2 - 8).square()) / 10 - 20
        return scale * (upper * f + lower * g)
    f = ((-x1 + 3) / 2 + torch.tanh(-x2) + 2).abs().clamp(min=5e-6).log() + 6
    g = ((-x1 - 7).square() + 0.1 * (-x2 - 8).square()) / 10 - 20
    return upper * f + lower * g


def _positive_part(x: Tensor) -> Tensor:
    """Return max(x, 0), with the derivative 1 at 0; that of `clamp` and `relu` there depends on the PyTorch version."""
    return torch.where(x >= 0, x, 0.0)


@component
def concave_front(points: Tensor, objective: Literal["first", "second"]) -> Tensor:
    """Return 1 - exp(-|x - e|^2), with e = (1, ..., 1) / sqrt(n) for the first of the two functions, -e for the other.

    Their Pareto set is the line from e to -e, and their front is concave: the minimum of any weighted sum lies at one
    of its two ends. Source: Lin et al., "Pareto Multi-Task Learning" (NeurIPS 2019), section 5.1.

    Args:
        points: [batch, n].
        objective: which of the two functions.
    """
    end = points.shape[1] ** -0.5 * (1 if objective == "first" else -1)
    return 1 - torch.exp(-(points - end).square().sum(dim=1))
