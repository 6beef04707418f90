"""Task gradients: each loss's gradient with respect to shared and task-specific parameters."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import cast

import torch
from torch import Tensor, nn

from mtlrun.gradients.gram import Gradient, Joined, inner_products, within_range
from mtlrun.gradients.matrix_rows import MatrixRows
from mtlrun.weightings.base import GradWrt
from mtlrun.weightings.inner_products import lengths, refuse_non_finite
from mtlrun.weightings.precision import promoted

#: The gradient of one loss, None for parameters that it does not reach.
PartialGradient = list[Tensor | None]

_ENGINE = torch.autograd.Variable._execution_engine

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sharing:
    """The parameters that the K losses of a step reach.

    Args:
        shared: parameters that several losses reach.
        task_params: for each loss, the parameters that it alone reaches.
        last_layer: those of the last shared layer before the representation, weight and bias, for
            `grad_wrt: last_layer`.
        links: the shared parameters of each link, where they are a chain; see `streaming.Chain`.
    """

    shared: Sequence[nn.Parameter]
    task_params: Sequence[Sequence[nn.Parameter]]
    last_layer: Sequence[nn.Parameter] = field(default_factory=list)
    links: Sequence[Sequence[nn.Parameter]] = ()

    def without_task_params(self) -> "Sharing":
        """Return the same as if the tasks had no parameters of their own."""
        return Sharing(self.shared, [[] for _ in self.task_params], self.last_layer)


@dataclass(frozen=True)
class LossGraph:
    """Losses with their graph: those of a batch, or of a micro-batch.

    Args:
        losses: scalars, of all K tasks or of some.
        sharing: the parameters that these losses reach.
        representation: the tensor that separates shared from task-specific parameters, if there is one.
        vmap: make the backward passes over the shared part in one call, batched by vmap, where that is possible.
    """

    losses: Sequence[Tensor]
    sharing: Sharing
    representation: Tensor | None = None
    vmap: bool = False


@dataclass
class TaskGradients:
    """The gradients of K losses.

    Args:
        compared: those that the method compares, with respect to what `grad_wrt` names; zeros where a loss does not
            reach.
        representation: those with respect to the representation, a tensor per micro-batch; empty where there is none.
        task_params: those with respect to each task's own parameters.
        reached: whether any of the losses reaches each of the shared parameters or, if `grad_wrt` is not `shared`, the
            representation. Parameters that none reaches keep a `.grad` of None, so that no weight decay moves them.
        rows: the matrix whose rows the compared gradients are, if there is one.
    """

    compared: list[Gradient]
    representation: list[Gradient]
    task_params: list[PartialGradient]
    reached: list[bool]
    rows: MatrixRows | None = None
    #: The small tensors of `compared`, once their inner products are known.
    joined: Joined | None = field(default=None, init=False)

    @classmethod
    def zeros(cls, sharing: Sharing, grad_wrt: GradWrt = "shared", *, as_matrix: bool = False) -> "TaskGradients":
        """Return the gradients of losses that reach nothing; of no samples, at the representation."""
        inputs = {"shared": sharing.shared, "representation": [], "last_layer": sharing.last_layer}[grad_wrt]
        rows = MatrixRows(len(sharing.task_params), inputs) if as_matrix else None
        if rows is not None:
            rows.matrix.zero_()
            compared = rows.gradients
        else:
            compared = [[torch.zeros_like(tensor) for tensor in inputs] for _ in sharing.task_params]
        at_representation = compared if grad_wrt == "representation" else []
        reached = [False] * (len(sharing.shared) if grad_wrt == "shared" else 1)
        return cls(compared, at_representation, [[None] * len(group) for group in sharing.task_params], reached, rows)

    @classmethod
    def take(
        cls,
        graph: LossGraph,
        grad_wrt: GradWrt = "shared",
        *,
        retain: bool = False,
        retain_shared: bool = False,
        as_matrix: bool = False,
    ) -> "TaskGradients":
        """Make the backward passes that `grad_wrt` asks for.

        With a representation, each loss's gradient is taken with respect to that first, which gives those of the task's
        own parameters on the way. The graph is freed on the way unless `retain`, except the shared part where a
        direction is still to be sent through it: where `grad_wrt` is not `shared`, or with `retain_shared`.
        `as_matrix` puts the compared gradients into one matrix as they are taken, for `jacobian`.

        Raises:
            ValueError: the model has no such representation or layer.
        """
        representation, sharing = graph.representation, graph.sharing
        if representation is None:
            if grad_wrt != "shared":
                raise ValueError(f"grad_wrt={grad_wrt} needs a model with a shared representation")
            rows = MatrixRows(len(graph.losses), sharing.shared) if as_matrix else None
            partial, task_params = _backward_passes(graph, sharing.shared, rows, retain=retain or retain_shared)
            compared, reached = fill(partial, sharing.shared, rows)
            return cls(compared, [], task_params, reached, rows)
        rows = MatrixRows(len(graph.losses), [representation]) if as_matrix and grad_wrt == "representation" else None
        partial, task_params = _backward_passes(graph, [representation], rows, retain=retain)
        at_representation, reached = fill(partial, [representation], rows)
        if grad_wrt == "representation":
            return cls(at_representation, at_representation, task_params, reached, rows)
        if grad_wrt == "last_layer" and not sharing.last_layer:
            raise ValueError("grad_wrt=last_layer needs the parameters of the last shared layer")
        parameters = sharing.shared if grad_wrt == "shared" else sharing.last_layer
        keep = retain or retain_shared or grad_wrt == "last_layer"
        rows = MatrixRows(len(graph.losses), parameters) if as_matrix else None
        partial = _pull_back(graph, parameters, at_representation, rows, retain=keep)
        compared, on_the_way = fill(partial, parameters, rows)
        if grad_wrt == "shared":
            reached = [reached[0] and each for each in on_the_way]
        return cls(compared, at_representation, task_params, reached, rows)

    def add(self, other: "TaskGradients", positions: Sequence[int]) -> None:
        """Add the gradients of further losses of the tasks at `positions`.

        Those at the representation are dropped. Sums are new tensors, since autograd may hand out one tensor as the
        gradient of two parameters.
        """
        self.representation = []
        self.add_reached(other)
        for position, compared, task_params in zip(positions, other.compared, other.task_params, strict=True):
            if self.rows is None:
                self.compared[position] = list(torch._foreach_add(self.compared[position], compared))
            else:
                torch._foreach_add_(self.compared[position], compared)
            self.task_params[position] = [
                new if old is None else old if new is None else old + new
                for old, new in zip(self.task_params[position], task_params, strict=True)
            ]

    def append(self, other: "TaskGradients", positions: Sequence[int]) -> None:
        """Append the gradients of further samples at the representation, which are what is compared.

        Args:
            other: those of a micro-batch.
            positions: of the tasks that have a label there; the others' gradients are zeros.
        """
        self.add_reached(other)
        found = dict(zip(positions, other.compared, strict=True))
        zeros = [torch.zeros_like(part) for part in other.compared[0]]
        self.compared = [each + found.get(position, zeros) for position, each in enumerate(self.compared)]
        self.representation = self.compared

    def add_reached(self, other: "TaskGradients") -> None:
        """Count what other losses of the same batch reach as reached."""
        self.reached = [here or there for here, there in zip(self.reached, other.reached, strict=True)]

    def inner_products(self) -> Tensor:
        """Return the inner products [K, K] of the compared gradients, on their device."""
        self.joined = Joined.of(self.compared)
        return inner_products(self.compared, self.joined)

    def within_range(self, products: Tensor) -> Tensor:
        """Return inner products, copied to the CPU, with those computed anew that float32 could not hold."""
        return within_range(products, self.compared)

    def jacobian(self, *, checked: bool = True) -> Tensor:
        """Return the compared gradients as one matrix [K, P], in float32 at least.

        Raises:
            NonFiniteGradientError: an entry is NaN or infinite, and it is to be `checked`.
        """
        if self.rows is None:
            raise ValueError("these gradients are no matrix; take them as one")
        if checked:
            refuse_non_finite(torch.isfinite(torch.stack(self.rows.matrix.aminmax(dim=1))).all(dim=0).tolist())
        return self.rows.matrix

    def sample_norms(self) -> Tensor:
        """Return the lengths [K, batch] of the samples' parts of the gradients at the representation, in float64."""
        by_micro_batch = []
        for gradients in zip(*self.representation, strict=True):
            samples = promoted(torch.stack(gradients)).flatten(2)
            by_micro_batch.append(lengths(samples.flatten(0, 1)).view(samples.shape[:2]))
        return torch.cat(by_micro_batch, dim=1)


def _backward_passes(
    graph: LossGraph, inputs: Sequence[Tensor], rows: MatrixRows | None, *, retain: bool
) -> tuple[list[PartialGradient], list[PartialGradient]]:
    """Return each loss's gradient with respect to `inputs` and to its task's own parameters, in one pass per task.

    Those with respect to `inputs` are put into `rows`, if there are any, and not returned.
    """
    losses, task_params = graph.losses, graph.sharing.task_params
    if graph.vmap and graph.representation is None:
        one_hot = list(torch.eye(len(losses)).to(losses[0]).unbind())
        gradients = _vmapped_grads(torch.stack(list(losses)), inputs, one_hot)
        if gradients is not None:
            flat = [parameter for group in task_params for parameter in group]
            # No other loss reaches a task's own parameters, so the gradient of the sum is that of its loss.
            parts = iter(gradients_of([torch.stack(list(losses)).sum()], flat, None, retain=retain))
            return _put_all(gradients, rows), [[next(parts) for _ in group] for group in task_params]
    gradients, task_gradients = [], []
    for position, (loss, group) in enumerate(zip(losses, task_params, strict=True)):
        # Heads can share graph nodes (a regularizer's, for example), so only the last pass may free the graph.
        keep = retain or position < len(losses) - 1
        grads = gradients_of([loss], [*inputs, *group], None, retain=keep)
        _put(gradients, grads[: len(inputs)], rows)
        task_gradients.append(grads[len(inputs) :])
    return gradients, task_gradients


def _pull_back(
    graph: LossGraph,
    parameters: Sequence[nn.Parameter],
    at_representation: list[Gradient],
    rows: MatrixRows | None,
    *,
    retain: bool,
) -> list[PartialGradient]:
    """Pull each gradient at the representation back to `parameters`; the last pass frees the graph unless `retain`.

    They are put into `rows`, if there are any, and not returned.
    """
    representation = graph.representation
    assert representation is not None
    if graph.vmap:
        gradients = _vmapped_grads(representation, parameters, [gradient[0] for gradient in at_representation])
        if gradients is not None:
            return _put_all(gradients, rows)
    last = len(at_representation) - 1
    gradients = []
    for position, gradient in enumerate(at_representation):
        _put(gradients, gradients_of([representation], parameters, gradient, retain=retain or position < last), rows)
    return gradients


def _put(gradients: list[PartialGradient], gradient: PartialGradient, rows: MatrixRows | None) -> None:
    """Append a gradient, or an empty one if it is put into a matrix."""
    if rows is not None:
        rows.put(len(gradients), gradient)
        gradient = []
    gradients.append(gradient)


def _put_all(gradients: list[PartialGradient], rows: MatrixRows | None) -> list[PartialGradient]:
    """Return the gradients, or empty ones if they are put into a matrix."""
    kept: list[PartialGradient] = []
    for gradient in gradients:
        _put(kept, gradient, rows)
    return kept


def _vmapped_grads(
    output: Tensor, inputs: Sequence[Tensor], grad_outputs: list[Tensor]
) -> list[PartialGradient] | None:
    """Make K passes in one call; return None where vmap has no rule for an operation on the way."""
    try:
        grads = torch.autograd.grad(
            output, inputs, torch.stack(grad_outputs), retain_graph=True, is_grads_batched=True, allow_unused=True
        )
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except RuntimeError as error:
        _warn_of_refusal(str(error).splitlines()[0])
        return None
    unreached = [None] * len(grad_outputs)
    parts = [unreached if part is None else part.unbind() for part in grads]
    return [list(gradient) for gradient in zip(*parts, strict=True)]


@cache
def _warn_of_refusal(why: str) -> None:
    """Log the reason, once."""
    logger.warning("the tasks' backward passes cannot be batched and are made one after the other: %s", why)


def gradients_of(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], grad_outputs: Gradient | None, *, retain: bool
) -> PartialGradient:
    """Return the gradients, None for what the outputs do not reach.

    On the CPU autograd's engine is called directly: what `torch.autograd.grad` does around that, mostly checks of its
    arguments, takes a third of the time of a small head's backward pass.
    """
    if not inputs:
        return []
    if any(output.device.type != "cpu" for output in outputs):
        return list(torch.autograd.grad(outputs, inputs, grad_outputs, retain_graph=retain, allow_unused=True))
    if grad_outputs is None:
        grad_outputs = [torch.ones_like(output) for output in outputs]
    found = _ENGINE.run_backward(
        tuple(outputs), tuple(grad_outputs), retain, False, tuple(inputs), True, accumulate_grad=False
    )
    return list(found)


def backward_from(output: Tensor, gradient: Tensor | None = None, inputs: Sequence[Tensor] = ()) -> None:
    """Add to `.grad` as `output.backward(gradient, inputs=inputs)` does, of all parameters if none are given.

    On the CPU autograd's engine is called directly; see `gradients_of`.
    """
    if output.device.type != "cpu":
        torch.autograd.backward([output], [gradient], inputs=list(inputs) or None)
        return
    gradient = torch.ones_like(output) if gradient is None else gradient
    _ENGINE.run_backward((output,), (gradient,), False, False, tuple(inputs), True, accumulate_grad=True)


def fill(
    gradients: Sequence[PartialGradient], inputs: Sequence[Tensor], rows: MatrixRows | None = None
) -> tuple[list[Gradient], list[bool]]:
    """Return the gradients with zeros for None, and for each of the inputs whether any of them has a gradient."""
    if rows is not None:
        return rows.gradients, rows.reached
    if not [part for gradient in gradients for part in gradient if part is None]:
        return cast(list[Gradient], list(gradients)), [True] * len(inputs)
    filled: list[Gradient] = [[] for _ in gradients]
    reached = []
    for index, tensor in enumerate(inputs):
        parts = [gradient[index] for gradient in gradients]
        reached.append(any(part is not None for part in parts))
        zeros = torch.zeros_like(tensor) if any(part is None for part in parts) else tensor
        for gradient, part in zip(filled, parts, strict=True):
            gradient.append(zeros if part is None else part)
    return filled, reached
