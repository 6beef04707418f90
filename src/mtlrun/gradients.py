"""From task losses to `.grad`: per-task gradients of the shared parameters, their Gram matrix, the combined update.

`backward` is what the trainer calls, and what a training loop of one's own may call instead of `loss.backward()`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtlrun.weightings.base import (
    GradientWeighting,
    JacobianWeighting,
    LossWeighting,
    PartsWeighting,
    RowWeighting,
    Weighting,
)

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
    parts: Sequence[Sequence[Tensor]] = (),
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
        want_gram: take the Gram matrix for the log even where the method does not need it; for a
            weighting of losses this costs as many passes as there are tasks.
        parts: for a PartsWeighting, the K losses of each part of the batch, in the place of `losses`.

    Raises:
        NonFiniteGradientError: before anything is combined.
    """
    problem = _Problem(list(losses), list(shared), [list(group) for group in own], representation, list(last_layer))
    match weighting:
        case LossWeighting():
            return _backward_losses(weighting, problem, regulariser, want_gram)
        case GradientWeighting() | JacobianWeighting():
            if not problem.shared:
                raise ValueError(f"{type(weighting).__name__} needs shared parameters, found none")
            if regulariser is not None:
                torch.autograd.backward(regulariser, retain_graph=True)  # it may be made of features, used again below
            if isinstance(weighting, PartsWeighting) and parts:
                return _combine_parts(weighting, problem, parts)
            slopes = _transform(weighting, problem)
            with torch.no_grad():
                if isinstance(weighting, GradientWeighting):
                    update = _combine_by_weights(weighting, problem)
                else:
                    update = _combine_by_entries(weighting, problem, want_gram)
            if update.weights is not None and slopes is not None:
                update.weights = update.weights.to(slopes) * slopes
            return update
        case _:
            raise TypeError(f"{type(weighting).__name__} is none of the three kinds of weighting")


@dataclass
class _Problem:
    """One step: what `backward` was given."""

    losses: list[Tensor]
    shared: list[nn.Parameter]
    own: list[list[nn.Parameter]]
    representation: Tensor | None
    last_layer: list[nn.Parameter]

    def stacked(self) -> Tensor:
        """Return the values of the losses [K], without graph."""
        return torch.stack([loss.detach() for loss in self.losses])


def _backward_losses(
    weighting: LossWeighting, problem: _Problem, regulariser: Tensor | None, want_gram: bool
) -> Update:
    update = Update()
    if want_gram and problem.shared:
        rows, _ = _full_rows(problem, retain=True)
        update.gram = gram_matrix(rows).cpu()
    stacked = torch.stack(problem.losses)
    stacked.retain_grad()
    objective = weighting.objective(weighting.transform(stacked))
    if regulariser is not None:
        objective = objective + regulariser
    objective.backward()
    update.weights = stacked.grad
    return update


def _transform(weighting: RowWeighting, problem: _Problem) -> Tensor | None:
    """Put the losses that the method is to see in the place of the given ones.

    Returns:
        The slopes [K] of the new losses by the old ones, None if these are the same.
    """
    if weighting.loss_transform == "identity" and weighting.losses is None:
        return None
    values = problem.stacked().requires_grad_()
    scales = torch.ones_like(values)
    if weighting.losses is not None:
        weighting.losses.active = weighting.active
        inner = weighting.losses.objective(weighting.losses.transform(values))
        inner.backward()  # also the gradient of what the inner weighting learns
        assert values.grad is not None
        scales = values.grad
        values = values.detach().requires_grad_()
    slopes = torch.autograd.grad((scales * weighting.transform(values)).sum(), values)[0]
    problem.losses = [
        scale * weighting.transform(loss) for scale, loss in zip(scales.unbind(), problem.losses, strict=True)
    ]
    return slopes


def _combine_by_weights(weighting: GradientWeighting, problem: _Problem) -> Update:
    factors = weighting.kept_weights()
    if factors is not None:
        _reuse(weighting, problem, factors)
        return Update(weights=torch.tensor(factors, dtype=torch.float64))
    rows, z_rows, own_grads = _rows(weighting, problem)
    update = _weigh(weighting, rows, problem)
    assert update.weights is not None
    factors = update.weights.tolist()
    weighting.keep(factors)
    _fill_own(problem.own, own_grads, factors if weighting.heads == "weighted" else [1.0] * len(factors))
    if weighting.grad_source == "shared":
        _fill(problem.shared, _weighted_sum(rows, factors))
    else:
        _push(problem, _weighted_sum(z_rows, factors))
    return update


def _reuse(weighting: GradientWeighting, problem: _Problem, factors: list[float]) -> None:
    """Make a step with weights that are known: one pass over the shared part."""
    own = [parameter for group in problem.own for parameter in group]
    with torch.enable_grad():
        weighted = torch.stack([factor * loss for factor, loss in zip(factors, problem.losses, strict=True)]).sum()
        if weighting.heads == "weighted":
            torch.autograd.backward(weighted, inputs=[*problem.shared, *own])
            return
        if own:
            torch.autograd.backward(torch.stack(problem.losses).sum(), inputs=own, retain_graph=True)
        torch.autograd.backward(weighted, inputs=problem.shared)  # last, since it walks and frees the whole graph


def _combine_by_entries(weighting: JacobianWeighting, problem: _Problem, want_gram: bool) -> Update:
    rows, _, own_grads = _rows(weighting, problem)
    jacobian = _flatten(rows)
    update = Update(gram=gram_matrix(rows).cpu() if want_gram else None)
    direction = weighting.combine(jacobian, problem.stacked())
    _fill_own(problem.own, own_grads, [1.0] * len(own_grads))
    _fill_flat(weighting, problem, direction, rows[0])
    return update


def _combine_parts(weighting: PartsWeighting, problem: _Problem, parts: Sequence[Sequence[Tensor]]) -> Update:
    jacobians, losses = [], []
    for number, part in enumerate(parts):
        problem.losses = list(part)
        losses.append(problem.stacked())
        _transform(weighting, problem)
        rows, _, own_grads = _rows(weighting, problem, retain=number < len(parts) - 1)
        jacobians.append(_flatten(rows))
        _fill_own(problem.own, own_grads, [1 / len(parts)] * len(own_grads))  # adds up to the mean over the parts
    with torch.no_grad():
        direction = weighting.combine_parts(jacobians, torch.stack(losses))
    _fill_flat(weighting, problem, direction, rows[0])
    return Update()


def _flatten(rows: list[Row]) -> Tensor:
    """Return the rows as one matrix [K, P], of finite numbers."""
    jacobian = torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows])
    _refuse_non_finite(torch.isfinite(jacobian).all(dim=1).cpu())
    return jacobian


def _fill_flat(weighting: JacobianWeighting, problem: _Problem, direction: Tensor, like: Row) -> None:
    """Give the shared parameters a direction [P], cut into pieces like those of a row."""
    sizes = [part.numel() for part in like]
    pieces = [piece.view_as(part).to(part.dtype) for piece, part in zip(direction.split(sizes), like, strict=True)]
    if weighting.grad_source == "shared":
        _fill(problem.shared, pieces)
    else:
        _push(problem, pieces)


def _rows(
    weighting: RowWeighting, problem: _Problem, *, retain: bool = False
) -> tuple[list[Row], list[Row], list[Row]]:
    """Return the rows that the method looks at, those at the representation, and the gradients of the tasks' own.

    The graph is freed on the way unless `retain`, or where the direction is still to be sent through it.
    """
    source = weighting.grad_source
    if problem.representation is None:
        if source != "shared":
            raise ValueError(f"grad_source={source} needs a model with a shared representation")
        rows, own_grads = _full_rows(problem, retain=retain)
        return rows, [], own_grads
    z_rows, own_grads = _representation_rows(problem, retain=retain)
    if source == "representation":
        return z_rows, z_rows, own_grads
    if source == "last_layer" and not problem.last_layer:
        raise ValueError("grad_source=last_layer needs the parameters of the last shared layer")
    if source == "last_layer":
        return _trunk_rows(problem.representation, problem.last_layer, z_rows, retain=True), z_rows, own_grads
    return _trunk_rows(problem.representation, problem.shared, z_rows, retain=retain), z_rows, own_grads


def gram_matrix(rows: Sequence[Row]) -> Tensor:
    """Return the inner products [K, K] of K rows in float64, on the rows' device.

    Summed tensor by tensor, so that rows are never concatenated; the sum over tensors is in float64.
    """
    num_tasks = len(rows)
    gram = torch.zeros(num_tasks, num_tasks, dtype=torch.float64, device=rows[0][0].device)
    small = [position for position, part in enumerate(rows[0]) if part.numel() < _CHUNK]
    if small:
        # Many small products cost more than copying what they are made of into one.
        _add_products(gram, torch.stack([torch.cat([row[position].reshape(-1) for position in small]) for row in rows]))
    for position, part in enumerate(rows[0]):
        if part.numel() >= _CHUNK:
            _add_products(gram, torch.stack([row[position].reshape(-1) for row in rows]))
    return gram


def _add_products(gram: Tensor, block: Tensor) -> None:
    """Add the inner products of the rows of `block` [K, n] to `gram`.

    Long sums lose digits in float32: short ones are made of them, and these are summed in float64. Products in half
    precision would lose more, and overflow.
    """
    if block.dtype in (torch.float16, torch.bfloat16):
        block = block.float()
    whole = block.shape[1] // _CHUNK * _CHUNK
    if whole:
        chunks = block[:, :whole].view(len(block), -1, _CHUNK).transpose(0, 1)
        gram += torch.bmm(chunks, chunks.transpose(1, 2)).sum(dim=0, dtype=torch.float64)
    if whole < block.shape[1]:
        rest = block[:, whole:]
        gram += rest @ rest.T


def _weigh(weighting: GradientWeighting, rows: list[Row], problem: _Problem) -> Update:
    """Ask the method for weights. The one copy from the device holds all that its solver may want."""
    num_tasks = len(rows)
    sent = torch.cat([gram_matrix(rows).flatten(), problem.stacked().double()]).cpu()
    gram, values = sent[: num_tasks**2].view(num_tasks, num_tasks), sent[num_tasks**2 :]
    _refuse_non_finite(torch.isfinite(gram.diagonal()))
    return Update(weights=weighting.weights(gram, values), gram=gram)


def _refuse_non_finite(finite: Tensor) -> None:
    """Raise for the first task whose entry of `finite` [K], on the CPU, is False."""
    if not finite.all():
        raise NonFiniteGradientError(int((~finite).nonzero()[0]))


def _full_rows(problem: _Problem, *, retain: bool = False) -> tuple[list[Row], list[Row]]:
    """Return the rows by the shared parameters and the gradients of the tasks' own, in one pass per task."""
    rows, own_grads = [], []
    for position, (loss, own) in enumerate(zip(problem.losses, problem.own, strict=True)):
        keep = retain or position < len(problem.losses) - 1
        grads = _grads([loss], [*problem.shared, *own], None, retain=keep)
        rows.append(grads[: len(problem.shared)])
        own_grads.append(grads[len(problem.shared) :])
    return rows, own_grads


def _representation_rows(problem: _Problem, *, retain: bool = False) -> tuple[list[Row], list[Row]]:
    """Return the rows by the representation and the gradients of the tasks' own parameters; frees the heads' graphs."""
    assert problem.representation is not None
    rows, own_grads = [], []
    for position, (loss, own) in enumerate(zip(problem.losses, problem.own, strict=True)):
        keep = retain or position < len(problem.losses) - 1
        # Heads may have common nodes, a regulariser's say, so only the last pass may free the graph.
        grads = _grads([loss], [problem.representation, *own], None, retain=keep)
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


def _fill(parameters: Sequence[nn.Parameter], grads: Row) -> None:
    """Give each parameter its gradient, on top of what it has already, a regulariser's say."""
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad if parameter.grad is None else parameter.grad + grad


def _fill_own(own: list[list[nn.Parameter]], grads: list[Row], factors: list[float]) -> None:
    for parameters, row, factor in zip(own, grads, factors, strict=True):
        if row:
            _fill(parameters, list(torch._foreach_mul(row, factor)))
