"""Task gradients that are added up over several micro-batches, before an update is made of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mtlrun.weightings.precision import promoted


class Accumulation:
    """Losses and task gradients of one optimizer step, summed over its micro-batches.

    Since a weighting may look at the losses of the whole batch before it weighs any gradient, each task's gradient is
    kept apart: K times the memory of the parameters, and K backward passes, whatever the weighting is.
    """

    def __init__(self) -> None:
        #: {task: sum of its losses}, without graph.
        self.losses: dict[str, Tensor] = {}
        #: {task: {leaf: sum of the gradients}}.
        self.gradients: dict[str, dict[Tensor, Tensor]] = {}

    def add(self, losses: Mapping[str, Tensor], reached: Mapping[str, Sequence[Tensor]]) -> None:
        """Make the backward passes of a micro-batch.

        Args:
            losses: {task: scalar with its graph}.
            reached: {task: the leaves that its loss reaches}.
        """
        for number, (name, loss) in enumerate(losses.items()):
            retain = number < len(losses) - 1
            gradients = torch.autograd.grad(loss, list(reached[name]), retain_graph=retain, allow_unused=True)
            value = promoted(loss.detach())
            self.losses[name] = value + self.losses[name] if name in self.losses else value
            sums = self.gradients.setdefault(name, {})
            for leaf, gradient in zip(reached[name], gradients, strict=True):
                if gradient is not None:
                    sums[leaf] = sums[leaf] + gradient if leaf in sums else gradient

    def with_graph(self) -> dict[str, Tensor]:
        """Return the summed losses, with a graph that gives the summed gradients in place of the networks'."""
        return {
            name: _Known.apply(loss, list(self.gradients[name].values()), *self.gradients[name])
            for name, loss in self.losses.items()
        }


class _Known(torch.autograd.Function):
    """A scalar whose gradients are known."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor], *leaves: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        return None, None, *(grad_outputs[0].to(gradient) * gradient for gradient in ctx.gradients)
