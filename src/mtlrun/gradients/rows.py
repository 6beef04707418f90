"""The rows of the Jacobian, one task's gradient each, and where the direction that is made of them goes."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor, nn

from mtlrun.gradients.gram import Row, refuse_non_finite
from mtlrun.weightings.base import GradWrt

logger = logging.getLogger(__name__)


@dataclass
class Problem:
    """One step, or one piece of it: losses with their graph, and what they reach.

    Args:
        losses: K scalars.
        shared: parameters that several losses reach.
        own: for each loss, the parameters that it alone reaches.
        representation: the tensor that separates the two, if there is one.
        last_layer: the last shared parameters before the representation.
        batched: make the K passes over the shared part in one call, batched by vmap, where that can be done.
    """

    losses: list[Tensor]
    shared: list[nn.Parameter]
    own: list[list[nn.Parameter]]
    representation: Tensor | None = None
    last_layer: list[nn.Parameter] = field(default_factory=list)
    batched: bool = False

    def values(self) -> Tensor:
        """Return the values of the losses [K], without graph."""
        return torch.stack([loss.detach() for loss in self.losses])

    def scale(self, factors: Tensor | None) -> None:
        """Multiply the losses by factors [K]; None for ones."""
        if factors is not None:
            self.losses = [factor * loss for factor, loss in zip(factors.unbind(), self.losses, strict=True)]


@dataclass
class TaskGradients:
    """The gradients of K losses.

    Args:
        rows: those that the method looks at.
        representation: those at the representation; empty where there is none.
        own: those of each task's own parameters.
    """

    rows: list[Row]
    representation: list[Row]
    own: list[Row]

    @classmethod
    def zeros(cls, problem: Problem) -> "TaskGradients":
        """Return gradients of zero by the shared parameters and each task's own."""
        rows = [[torch.zeros_like(parameter) for parameter in problem.shared] for _ in problem.own]
        return cls(rows, [], [[torch.zeros_like(parameter) for parameter in group] for group in problem.own])

    @classmethod
    def take(cls, problem: Problem, source: GradWrt = "shared", *, retain: bool = False) -> "TaskGradients":
        """Make the backward passes that `source` asks for.

        The graph is freed on the way unless `retain`, or where the direction is still to be sent through it.

        Raises:
            ValueError: the model has no such source.
        """
        representation = problem.representation
        if representation is None:
            if source != "shared":
                raise ValueError(f"grad_wrt={source} needs a model with a shared representation")
            rows, own = passes(problem, problem.shared, retain=retain)
            return cls(rows, [], own)
        z_rows, own = passes(problem, [representation], retain=retain)  # frees the heads' graphs only
        if source == "representation":
            return cls(z_rows, z_rows, own)
        if source == "last_layer" and not problem.last_layer:
            raise ValueError("grad_wrt=last_layer needs the parameters of the last shared layer")
        if source == "last_layer":
            return cls(
                _pull_back(representation, problem.last_layer, z_rows, retain=True, batched=problem.batched),
                z_rows,
                own,
            )
        return cls(
            _pull_back(representation, problem.shared, z_rows, retain=retain, batched=problem.batched), z_rows, own
        )

    def add(self, other: "TaskGradients", places: Sequence[int]) -> None:
        """Add the gradients of further losses of the tasks at `places`; those at the representation are not kept."""
        for place, row, own in zip(places, other.rows, other.own, strict=True):
            torch._foreach_add_(self.rows[place], row)
            if own:
                torch._foreach_add_(self.own[place], own)

    def scale(self, factors: Tensor | None) -> None:
        """Multiply each loss's gradients by its factor [K]; None for ones."""
        if factors is not None:
            for factor, row, own in zip(factors.unbind(), self.rows, self.own, strict=True):
                for group in (row, own):
                    if group:
                        torch._foreach_mul_(group, factor)

    def jacobian(self) -> Tensor:
        """Return the rows as one matrix [K, P].

        Raises:
            NonFiniteGradientError: an entry is NaN or infinite.
        """
        jacobian = torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in self.rows])
        refuse_non_finite(torch.isfinite(jacobian).all(dim=1).cpu())
        return jacobian


def passes(problem: Problem, inputs: Sequence[Tensor], *, retain: bool) -> tuple[list[Row], list[Row]]:
    """Return each loss's gradient by `inputs` and by its task's own parameters, in one pass per task."""
    if problem.batched and problem.representation is None:
        one_each = list(torch.eye(len(problem.losses)).to(problem.losses[0]).unbind())
        rows = _batched(torch.stack(problem.losses), inputs, one_each)
        if rows is not None:
            own = [parameter for group in problem.own for parameter in group]
            # No other loss reaches what is a task's own, so that of the sum is its gradient.
            parts = iter(_grads([torch.stack(problem.losses).sum()], own, None, retain=retain))
            return rows, [[next(parts) for _ in group] for group in problem.own]
    rows, own_rows = [], []
    for position, (loss, own) in enumerate(zip(problem.losses, problem.own, strict=True)):
        # Heads may have common nodes, a regularizer's say, so only the last pass may free the graph.
        keep = retain or position < len(problem.losses) - 1
        grads = _grads([loss], [*inputs, *own], None, retain=keep)
        rows.append(grads[: len(inputs)])
        own_rows.append(grads[len(inputs) :])
    return rows, own_rows


def _pull_back(
    representation: Tensor, parameters: Sequence[nn.Parameter], z_rows: list[Row], *, retain: bool, batched: bool
) -> list[Row]:
    """Pull each row at the representation back to `parameters`; the last pass frees the graph unless `retain`."""
    if batched:
        rows = _batched(representation, parameters, [row[0] for row in z_rows])
        if rows is not None:
            return rows
    return [
        _grads([representation], parameters, row, retain=retain or position < len(z_rows) - 1)
        for position, row in enumerate(z_rows)
    ]


def _batched(output: Tensor, inputs: Sequence[Tensor], grad_outputs: list[Tensor]) -> list[Row] | None:
    """Make K passes in one call; None where vmap has no rule for what is on the way."""
    try:
        found = torch.autograd.grad(
            output,
            inputs,
            torch.stack(grad_outputs),
            retain_graph=True,
            is_grads_batched=True,
            allow_unused=True,
            materialize_grads=True,
        )
    except RuntimeError as error:
        _tell_refusal(str(error).splitlines()[0])
        return None
    return [list(row) for row in zip(*(part.unbind() for part in found), strict=True)]


@cache
def _tell_refusal(why: str) -> None:
    """Say so, once."""
    logger.warning("the tasks' backward passes cannot be batched and are made one after the other: %s", why)


def _grads(outputs: list[Tensor], inputs: Sequence[Tensor], grad_outputs: Row | None, *, retain: bool) -> Row:
    """Return the gradients, zeros for what the outputs do not reach."""
    if not inputs:
        return []
    return list(
        torch.autograd.grad(
            outputs, inputs, grad_outputs, retain_graph=retain, allow_unused=True, materialize_grads=True
        )
    )


def weighted_sum(rows: list[Row], weights: list[float]) -> Row:
    """Return sum_k weights_k rows_k; freshly allocated once, since autograd may give one tensor for two inputs."""
    total = list(torch._foreach_mul(rows[0], weights[0]))
    for row, weight in zip(rows[1:], weights[1:], strict=True):
        torch._foreach_add_(total, row, alpha=weight)
    return total


def send(problem: Problem, source: str, direction: Row) -> None:
    """Give the shared parameters the direction that was made of rows taken at `source`.

    One that was made at the representation goes back through the shared part in one pass.
    """
    if source == "shared":
        fill(problem.shared, direction)
    else:
        assert problem.representation is not None
        torch.autograd.backward([problem.representation], direction, inputs=problem.shared)


def send_flat(problem: Problem, source: str, direction: Tensor, like: Row) -> None:
    """Do the same with a direction [P], cut into pieces like those of a row."""
    sizes = [part.numel() for part in like]
    pieces = direction.split(sizes)
    send(problem, source, [piece.view_as(part).to(part.dtype) for piece, part in zip(pieces, like, strict=True)])


def fill(parameters: Sequence[nn.Parameter], grads: Row) -> None:
    """Give each parameter its gradient, on top of what it has already, a regularizer's say."""
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad if parameter.grad is None else parameter.grad + grad


def fill_own(own: list[list[nn.Parameter]], grads: list[Row], factors: list[float]) -> None:
    """Give each task's own parameters its gradient times its factor."""
    for parameters, row, factor in zip(own, grads, factors, strict=True):
        if row:
            fill(parameters, list(torch._foreach_mul(row, factor)))
