"""Auto-lambda: weights learned by a lookahead step."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import LearningRate, Positive, checked
from mtlrun.weightings.base import LossWeighting
from mtlrun.weightings.capabilities import LearnsWeights, Lookahead, LooksAhead


class AutoLambda(LooksAhead, LearnsWeights, LossWeighting):
    """sum_k lambda_k L_k, with lambda learned so that a step with it lowers the losses of another batch.

    theta' = theta - a grad sum_k lambda_k L_k(theta) is a plain gradient step on this batch, and lambda is trained on
    sum_k L_k(theta') on a second batch, the meta batch. By the chain rule and a finite difference (as in DARTS), the
    gradient with respect to lambda_k is

        - a (L_k(theta + e h) - L_k(theta - e h)) / (2 e),   h = grad sum_j L_j(theta') on the meta batch, e = .01 / ‖h‖

    with the losses of this batch: two more backward and four more forward passes in each step.

    Source: Liu, James, Davison & Johns, "Auto-Lambda: Disentangling Dynamic Task Relationships" (TMLR 2022),
    equations 3 to 6, with all tasks as primary ones. The meta batch is another one of the training split, so that
    the validation split stays unseen. Both finite-difference passes have the same dropout masks. Weights are held at
    zero or above, so that no loss is ever maximized. Where tasks have no label, the sums are over those that have one:
    the gradient of lambda_k needs L_k on this batch and any losses on the meta batch, so that lambda_k is learned
    whenever task k has a label on this batch.

    Args:
        init: lambda at the start, > 0. Paper: .1.
        lr: learning rate of lambda. Paper: 1e-4, 3e-5 on Cityscapes, with Adam.
        common: see `Weighting` and `LearnsWeights`.
    """

    learns_from_losses_alone = True

    @checked
    def __init__(self, init: Positive = 0.1, *, lr: LearningRate | None = 1e-4, **common: Any) -> None:
        super().__init__(lr=lr, **common)
        self.init = init

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        self.task_weights = nn.Parameter(torch.full((num_tasks,), float(self.init), dtype=torch.float64))

    def passes(self, num_tasks: int) -> tuple[int, int]:
        return 5, 3

    def look_ahead(self, lookahead: Lookahead) -> None:
        parameters = lookahead.parameters
        start = [parameter.detach().clone() for parameter in parameters]

        step = torch.autograd.grad(
            self.scalarize(lookahead.losses()), parameters, allow_unused=True, materialize_grads=True
        )
        _move(parameters, start, step, -lookahead.lr)
        ahead = self.transform(lookahead.losses(meta=True)).sum()
        direction = torch.autograd.grad(ahead, parameters, allow_unused=True, materialize_grads=True)

        length = nn.utils.get_total_norm(list(direction))
        distance = 0.01 / length.clamp_min(1e-12)
        with torch.no_grad():
            _move(parameters, start, direction, distance)
            above = self.transform(lookahead.losses())
            _move(parameters, start, direction, -distance)
            below = self.transform(lookahead.losses())
            _move(parameters, start, direction, 0.0)
        gradient = torch.zeros_like(self.task_weights)
        gradient[self.active] = (-lookahead.lr * (above - below) / (2 * distance)).to(gradient)
        self.task_weights.grad = gradient

    @torch.no_grad()
    def learn(self) -> None:
        super().learn()
        self.task_weights.clamp_(min=0.0)

    def objective(self, losses: Tensor) -> Tensor:
        # The gradient of lambda is that of the lookahead, not that of the objective.
        return (self.task_weights.detach()[self.active] * losses).sum()


@torch.no_grad()
def _move(
    parameters: Sequence[nn.Parameter], start: list[Tensor], direction: tuple[Tensor, ...], distance: Tensor | float
) -> None:
    """Put the parameters at `start` plus `distance` times `direction`."""
    moved = tuple(parameters)
    torch._foreach_copy_(moved, start)
    torch._foreach_add_(moved, list(torch._foreach_mul(direction, distance)))
