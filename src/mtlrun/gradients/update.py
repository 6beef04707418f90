"""From task losses to `.grad`: one batch at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtlrun.gradients.gram import gram_matrix, refuse_non_finite
from mtlrun.gradients.rows import Problem, TaskGradients, fill_own, passes, send, send_flat, weighted_sum
from mtlrun.weightings.base import (
    GradientWeighting,
    JacobianWeighting,
    LossWeighting,
    PartsWeighting,
    RowWeighting,
    Weighting,
)


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
    regularizer: Tensor | None = None,
    want_gram: bool = False,
    parts: Sequence[Sequence[Tensor]] = (),
    batched: bool = False,
) -> Update:
    """Fill `.grad` of all parameters with the update that `weighting` makes of `losses`.

    As before `loss.backward()`, the caller has called `optimizer.zero_grad()`.

    Args:
        weighting: after `setup`; where not all of its tasks have a loss, `weighting.active` says which do.
        losses: K scalars with their graph.
        shared: parameters that several losses reach.
        own: for each loss, the parameters that it alone reaches.
        representation: the tensor that separates the two, if there is one: all shared parameters lie before it.
        last_layer: the last shared parameters before the representation, for `grad_wrt: last_layer`.
        regularizer: a scalar that joins the objective outside the weighting.
        want_gram: take the Gram matrix for the log even where the method does not need it; for a
            weighting of losses this costs as many passes as there are tasks.
        parts: for a PartsWeighting, the K losses of each part of the batch, in the place of `losses`.
        batched: make the K backward passes over the shared part in one call, where vmap can; it takes more memory, and
            is faster for small networks only.

    Raises:
        NonFiniteGradientError: before anything is combined.
    """
    groups = [list(group) for group in own]
    problem = Problem(list(losses), list(shared), groups, representation, list(last_layer), batched)
    match weighting:
        case LossWeighting():
            return _backward_losses(weighting, problem, regularizer, want_gram)
        case GradientWeighting() | JacobianWeighting():
            check_shared(weighting, problem.shared)
            if regularizer is not None:
                torch.autograd.backward(regularizer, retain_graph=True)  # it may be made of features, used again below
            if isinstance(weighting, PartsWeighting) and parts:
                return _combine_parts(weighting, problem, parts)
            values, slopes = as_seen(weighting, problem.values())
            problem.scale(slopes)
            kept = weighting.kept_weights() if isinstance(weighting, GradientWeighting) else None
            if isinstance(weighting, GradientWeighting) and kept is not None:
                weigh_losses(weighting, problem, kept)
                return Update(weights=effective(kept, slopes))
            gradients = TaskGradients.take(problem, weighting.grad_wrt)
            return combine_rows(weighting, problem, gradients, values, slopes, want_gram=want_gram)
        case _:
            raise TypeError(f"{type(weighting).__name__} is none of the three kinds of weighting")


def check_shared(weighting: Weighting, shared: Sequence[nn.Parameter]) -> None:
    """Raise ValueError if there are no shared parameters to compare gradients by."""
    if not shared:
        raise ValueError(f"{type(weighting).__name__} needs shared parameters, found none")


def _backward_losses(weighting: LossWeighting, problem: Problem, regularizer: Tensor | None, want_gram: bool) -> Update:
    update = Update()
    if want_gram and problem.shared:
        update.gram = gram_matrix(passes(problem, problem.shared, retain=True)[0]).cpu()
    stacked = torch.stack(problem.losses)
    stacked.retain_grad()
    objective = weighting.objective(weighting.transform(stacked))
    if regularizer is not None:
        objective = objective + regularizer
    objective.backward()
    update.weights = stacked.grad
    return update


def as_seen(weighting: RowWeighting, values: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the losses as the method is to see them: transformed, and scaled by the weighting beneath it.

    Args:
        weighting: whose `losses`, if there are any, learn from it here.
        values: the losses [K], without graph.

    Returns:
        The values [K], and their slopes [K] by the given ones, by which gradients are to be multiplied; None for ones.
    """
    if not weighting.transforms:
        return values, None
    values = values.clone().requires_grad_()
    with torch.enable_grad():
        scales = torch.ones_like(values)
        if weighting.losses is not None:
            weighting.losses.active = weighting.active
            inner = weighting.losses.objective(weighting.losses.transform(values))
            inner.backward()  # also the gradient of what the inner weighting learns
            assert values.grad is not None
            scales = values.grad
            values = values.detach().requires_grad_()
        seen = scales * weighting.transform(values)
        slopes = torch.autograd.grad(seen.sum(), values)[0]
    return seen.detach(), slopes


def effective(factors: list[float], slopes: Tensor | None) -> Tensor:
    """Return the weights of the losses as they are, from those of the losses as the method saw them."""
    weights = torch.tensor(factors, dtype=torch.float64)
    return weights if slopes is None else weights.to(slopes) * slopes


def weigh_losses(weighting: GradientWeighting, problem: Problem, factors: list[float]) -> None:
    """Make a step with weights that are known: one pass over the shared part."""
    own = [parameter for group in problem.own for parameter in group]
    weighted = torch.stack([factor * loss for factor, loss in zip(factors, problem.losses, strict=True)]).sum()
    if weighting.head_loss == "weighted":
        torch.autograd.backward(weighted, inputs=[*problem.shared, *own])
        return
    if own:
        torch.autograd.backward(torch.stack(problem.losses).sum(), inputs=own, retain_graph=True)
    torch.autograd.backward(weighted, inputs=problem.shared)  # last, since it walks and frees the whole graph


@torch.no_grad()
def combine_rows(
    weighting: RowWeighting,
    problem: Problem,
    gradients: TaskGradients,
    values: Tensor,
    slopes: Tensor | None,
    *,
    want_gram: bool,
) -> Update:
    """Make the update of gradients that are there, and fill `.grad`.

    Args:
        weighting: of gradients.
        problem: whose losses are not needed any more.
        gradients: of the losses as the method sees them.
        values, slopes: what `as_seen` returned.
        want_gram: take the Gram matrix even where the method does not need it.
    """
    if not isinstance(weighting, GradientWeighting):
        assert isinstance(weighting, JacobianWeighting)
        jacobian = gradients.jacobian()
        update = Update(gram=gram_matrix(gradients.rows).cpu() if want_gram else None)
        direction = weighting.combine(jacobian, values)
        fill_own(problem.own, gradients.own, [1.0] * len(gradients.own))
        send_flat(problem, weighting.grad_wrt, direction, gradients.rows[0])
        return update
    weights, gram = _weigh(weighting, gradients, values)
    factors = weights.tolist()
    weighting.keep(factors)
    fill_own(problem.own, gradients.own, factors if weighting.head_loss == "weighted" else [1.0] * len(factors))
    rows = gradients.rows if weighting.grad_wrt == "shared" else gradients.representation
    send(problem, weighting.grad_wrt, weighted_sum(rows, factors))
    return Update(weights=effective(factors, slopes), gram=gram)


def _weigh(weighting: GradientWeighting, gradients: TaskGradients, values: Tensor) -> tuple[Tensor, Tensor]:
    """Ask the method for weights. The one copy from the device holds all that its solver may want."""
    num_tasks = len(gradients.rows)
    sent = torch.cat([gram_matrix(gradients.rows).flatten(), values.double()]).cpu()
    gram, values = sent[: num_tasks**2].view(num_tasks, num_tasks), sent[num_tasks**2 :]
    refuse_non_finite(torch.isfinite(gram.diagonal()))
    return weighting.weights(gram, values), gram


def _combine_parts(weighting: PartsWeighting, problem: Problem, parts: Sequence[Sequence[Tensor]]) -> Update:
    jacobians, losses = [], []
    for number, part in enumerate(parts):
        problem.losses = list(part)
        losses.append(problem.values())
        _, slopes = as_seen(weighting, problem.values())
        problem.scale(slopes)
        gradients = TaskGradients.take(problem, weighting.grad_wrt, retain=number < len(parts) - 1)
        jacobians.append(gradients.jacobian())
        fill_own(problem.own, gradients.own, [1 / len(parts)] * len(gradients.own))  # adds up to the mean
    with torch.no_grad():
        direction = weighting.combine_parts(jacobians, torch.stack(losses))
    send_flat(problem, weighting.grad_wrt, direction, gradients.rows[0])
    return Update()
