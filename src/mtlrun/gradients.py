"""From task losses to `.grad`: per-task gradients of the shared parameters, their Gram matrix, the combined update.

`backward` is what the trainer calls, and what a training loop of one's own may call instead of `loss.backward()`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtlrun.weightings.base import GradientWeighting, JacobianWeighting, LossWeighting, Weighting

# Length of the sums of products that are made in the rows' own precision.
_CHUNK = 2**12

# One row: the gradient of one task's loss, a tensor per parameter.
Row = list[Tensor]


class NonFiniteGradientError(ArithmeticError):
    """A task's gradient holds NaN or infinity, so that no update can be made of it.

    Args:
        position: which of the losses that were given it belongs to.
    """

    def __init__(self, position: int) -> None:
        super().__init__(f"the gradient of loss {position} is not finite")
        self.position = position


@dataclass
class Update:
    """What a step did, for the log. The tensors carry no graph.

    Args:
        weights: the effective weights [K] of the losses, None for a method that has none.
        gram: the inner products [K, K] of the task gradients, None where they were not taken.
    """

    weights: Tensor | None = None
    gram: Tensor | None = None


def backward(
    weighting: Weighting,
    losses: Sequence[Tensor],
    shared: Sequence[nn.Parameter],
    own: Sequence[Sequence[nn.Parameter]],
    *,
    representation: Tensor | None = None,
    last_layer: Sequence[nn.Parameter] = (),
    regulariser: Tensor | None = None,
    want_gram: bool = False,
) -> Update:
    """Fill `.grad` of all parameters with the update that `weighting` makes of `losses`.

    As before `loss.backward()`, the caller has called `optimizer.zero_grad()`.

    Args:
        weighting: after `setup`; where not all of its tasks have a loss, `weighting.active` says which do.
        losses: K scalars with their graph.
        shared: parameters that several losses reach.
        own: for each loss, the parameters that it alone reaches.
        representation: the tensor that separates the two, if there is one: all shared parameters lie before it.
        last_layer: the last shared parameters before the representation, for `grad_source: last_layer`.
        regulariser: a scalar that joins the objective outside the weighting.
        want_gram: take the Gram matrix for the log even where the method does not need it (not for loss weightings).

    Raises:
        NonFiniteGradientError: before anything is combined.
    """
    if isinstance(weighting, LossWeighting):
        return _backward_losses(weighting, losses, regulariser)
    if not isinstance(weighting, GradientWeighting | JacobianWeighting):
        raise TypeError(f"{type(weighting).__name__} is none of the three kinds of weighting")
    problem = _Problem(losses, list(shared), [list(group) for group in own], representation, list(last_layer))
    if regulariser is not None:
        torch.autograd.backward(regulariser, retain_graph=True)  # it may be made of features, whose graph is used again
    with torch.no_grad():
        return _combine_rows(weighting, problem, want_gram)


def _backward_losses(weighting: LossWeighting, losses: Sequence[Tensor], regulariser: Tensor | None) -> Update:
    stacked = torch.stack(list(losses))
    stacked.retain_grad()
    objective = weighting.objective(stacked)
    if regulariser is not None:
        objective = objective + regulariser
    objective.backward()
    return Update(weights=stacked.grad)


@dataclass
class _Problem:
    """One step of a method that looks at task gradients."""

    losses: Sequence[Tensor]
    shared: list[nn.Parameter]
    own: list[list[nn.Parameter]]
    representation: Tensor | None
    last_layer: list[nn.Parameter]


def _combine_rows(weighting: GradientWeighting | JacobianWeighting, problem: _Problem, want_gram: bool) -> Update:
    at_representation = weighting.grad_source != "shared"
    if at_representation and problem.representation is None:
        raise ValueError(f"grad_source={weighting.grad_source} needs a model with a shared representation")
    if weighting.grad_source == "last_layer" and not problem.last_layer:
        raise ValueError("grad_source=last_layer needs the parameters of the last shared layer")
    if at_representation or problem.representation is not None:
        z_rows, own_grads = _representation_rows(problem)
        if weighting.grad_source == "shared":
            rows = _trunk_rows(problem.representation, problem.shared, z_rows)
        elif weighting.grad_source == "last_layer":
            rows = _trunk_rows(problem.representation, problem.last_layer, z_rows, retain=True)
        else:
            rows = z_rows
    else:
        z_rows = []
        rows, own_grads = _full_rows(problem)

    if isinstance(weighting, GradientWeighting):
        update = _weigh(weighting, rows, problem.losses)
        assert update.weights is not None
        factors: list[float] = update.weights.tolist()
        _fill_own(problem.own, own_grads, factors if weighting.heads == "weighted" else [1.0] * len(factors))
        if at_representation:
            _push(problem, _weighted_sum(z_rows, factors))
        else:
            _fill(problem.shared, _weighted_sum(rows, factors))
        return update

    jacobian = _flatten(z_rows if at_representation else rows)
    finite = torch.isfinite(jacobian).all(dim=1).cpu()
    if not finite.all():
        raise NonFiniteGradientError(int((~finite).nonzero()[0]))
    update = Update()
    if want_gram:
        update.gram = gram_matrix([[row] for row in jacobian]).cpu()
    losses = torch.stack([loss.detach() for loss in problem.losses])
    direction = weighting.combine(jacobian, losses)
    _fill_own(problem.own, own_grads, [1.0] * len(own_grads))
    if at_representation:
        _push(problem, [direction.view_as(z_rows[0][0])])
    else:
        pieces = direction.split([parameter.numel() for parameter in problem.shared])
        _fill(problem.shared, [piece.view_as(p) for piece, p in zip(pieces, problem.shared, strict=True)])
    return update


def gram_matrix(rows: Sequence[Row]) -> Tensor:
    """Return the inner products [K, K] of K rows in float64, on the rows' device.

    Summed tensor by tensor, so that rows are never concatenated; the sum over tensors is in float64.
    """
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows[0][0].device)
    for parts in zip(*rows, strict=True):
        block = torch.stack([part.reshape(-1) for part in parts])
        # Long sums lose digits in float32: short ones are made of them, and these are summed in float64.
        whole = block.shape[1] // _CHUNK * _CHUNK
        if whole:
            chunks = block[:, :whole].view(len(rows), -1, _CHUNK).transpose(0, 1)
            gram += torch.bmm(chunks, chunks.transpose(1, 2)).sum(dim=0, dtype=torch.float64)
        rest = block[:, whole:]
        gram += rest @ rest.T
    return gram


def _weigh(weighting: GradientWeighting, rows: list[Row], losses: Sequence[Tensor]) -> Update:
    """Ask the method for weights. The one copy from the device holds all that its solver may want."""
    num_tasks = len(rows)
    gram = gram_matrix(rows)
    sent = torch.cat([gram.flatten(), torch.stack([loss.detach() for loss in losses]).double()]).cpu()
    gram, values = sent[: num_tasks**2].view(num_tasks, num_tasks), sent[num_tasks**2 :]
    _check_finite(gram)
    return Update(weights=weighting.weights(gram, values), gram=gram)


def _check_finite(gram: Tensor) -> None:
    finite = torch.isfinite(gram.diagonal())
    if not finite.all():
        raise NonFiniteGradientError(int((~finite).nonzero()[0]))


def _full_rows(problem: _Problem) -> tuple[list[Row], list[Row]]:
    """Return the rows by the shared parameters and the gradients of the tasks' own, in one pass per task."""
    rows, own_grads = [], []
    for position, (loss, own) in enumerate(zip(problem.losses, problem.own, strict=True)):
        last = position == len(problem.losses) - 1
        grads = _grads([loss], [*problem.shared, *own], None, retain=not last)
        rows.append(grads[: len(problem.shared)])
        own_grads.append(grads[len(problem.shared) :])
    return rows, own_grads


def _representation_rows(problem: _Problem) -> tuple[list[Row], list[Row]]:
    """Return the rows by the representation and the gradients of the tasks' own parameters; frees the heads' graphs."""
    assert problem.representation is not None
    rows, own_grads = [], []
    for position, (loss, own) in enumerate(zip(problem.losses, problem.own, strict=True)):
        last = position == len(problem.losses) - 1
        # Heads may have common nodes, a regulariser's say, so only the last pass may free the graph.
        grads = _grads([loss], [problem.representation, *own], None, retain=not last)
        rows.append(grads[:1])
        own_grads.append(grads[1:])
    return rows, own_grads


def _trunk_rows(
    representation: Tensor | None, parameters: list[nn.Parameter], z_rows: list[Row], *, retain: bool = False
) -> list[Row]:
    """Pull each row at the representation back to `parameters`; the last pass frees the graph unless `retain`."""
    assert representation is not None
    return [
        _grads([representation], parameters, row, retain=retain or position < len(z_rows) - 1)
        for position, row in enumerate(z_rows)
    ]


def _grads(outputs: list[Tensor], inputs: Sequence[Tensor], grad_outputs: Row | None, *, retain: bool) -> Row:
    """Return the gradients, zeros for what the outputs do not reach."""
    if not inputs:
        return []
    return list(
        torch.autograd.grad(
            outputs, inputs, grad_outputs, retain_graph=retain, allow_unused=True, materialize_grads=True
        )
    )


def _weighted_sum(rows: list[Row], weights: list[float]) -> Row:
    """Return sum_k weights_k rows_k; freshly allocated once, since autograd may give one tensor for two inputs."""
    total = list(torch._foreach_mul(rows[0], weights[0]))
    for row, weight in zip(rows[1:], weights[1:], strict=True):
        torch._foreach_add_(total, row, alpha=weight)
    return total


def _push(problem: _Problem, direction: Row) -> None:
    """Send a direction at the representation back through the shared part, in one pass."""
    assert problem.representation is not None
    torch.autograd.backward([problem.representation], direction, inputs=problem.shared)


def _flatten(rows: list[Row]) -> Tensor:
    """Return the rows as one matrix [K, P]."""
    return torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows])


def _fill(parameters: Sequence[nn.Parameter], grads: Row) -> None:
    """Give each parameter its gradient, on top of what it has already, a regulariser's say."""
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad if parameter.grad is None else parameter.grad + grad


def _fill_own(own: list[list[nn.Parameter]], grads: list[Row], factors: list[float]) -> None:
    for parameters, row, factor in zip(own, grads, factors, strict=True):
        if row:
            _fill(parameters, list(torch._foreach_mul(row, factor)))
