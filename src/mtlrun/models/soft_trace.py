"""Soft parameter sharing by the trace norm of the tasks' stacked weights."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import NonNegative, checked
from mtlrun.models.backbones import BackboneFactory
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads, task_groups
from mtlrun.models.blocks.autocast import without_autocast

#: Singular values up to this fraction of the largest one count as zero; rounding errors are smaller.
ZERO = 1e-6

Flattening = Literal["laf", "tucker", "tt"]


class SoftTrace(MultiTaskModel):
    """One network per task; a penalty on the trace norm of the tasks' stacked weights favors low rank in each layer.

    Source: Yang & Hospedales, "Trace Norm Regularized Deep Multi-Task Learning" (ICLR workshop 2017).
    The penalty is strength * sum over layers of ‖W‖_*, where W stacks the layer's weights in all backbones, with the
    tasks as its last axis; it is added to the objective outside the weighting. It covers all weights of the backbones
    with two axes or more: neither biases and scales of normalizations (as in the authors' code), nor heads.
    The paper weights the unfoldings of `tucker` and `tt` by hyperparameters; here the weights are equal and sum to 1,
    as in the authors' code. `SoftSharing` makes the tasks' weights equal; this model makes them linearly dependent.
    Therefore backbones start from different random weights: equal ones would have rank 1 and keep it.
    Where the norm has no derivative because W is rank-deficient, the subgradient of smallest norm is used.
    Shared: no parameter, since each task's loss reaches only that task's network (so gradient methods have nothing to
    combine). Per task: the whole network. Size: one backbone and one head per task.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the networks; filled in from the group `backbone`.
        strength: factor of the penalty, >= 0; 0 makes the networks independent. The paper names no value; .01 is our
            choice.
        flattening: the matrices that W is unfolded to. `laf`: one, with a column per task; `tucker`: one per axis,
            of this axis against all others; `tt`: one per position between two axes, of the axes before it against
            those after it, with a layer's axes in the paper's order: height, width, inputs, outputs.
        init_from: folder of a run of model=single whose networks these start from; None for random weights.
    """

    @checked
    def __init__(
        self,
        tasks: Mapping[str, TaskLike],
        backbone: BackboneFactory,
        strength: NonNegative = 0.01,
        flattening: Flattening = "laf",
        init_from: str | None = None,
    ) -> None:
        super().__init__(tuple(tasks))
        self.init_from = init_from
        self.backbones = nn.ModuleDict({task: backbone() for task in tasks})
        first = next(iter(self.backbones.values()))
        self.heads = make_heads(tasks, first.feature_shape, first.input_shape)  # type: ignore[arg-type]
        self.strength = strength
        self.flattening: Flattening = flattening

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        predictions = {task: self.heads[task](self.backbones[task](inputs)) for task in self.requested(tasks)}
        if not self.training or len(self.task_names) < 2 or self.strength == 0:
            return Output(predictions)
        return Output(predictions, regularizers={"trace_norm": self.strength * self.norm()})

    def norm(self) -> Tensor:
        """Return the sum over layers of the trace norm of the tasks' stacked weights. Shape []."""
        layers = zip(*(backbone.parameters() for backbone in self.backbones.values()), strict=True)
        norms = [tensor_trace_norm(torch.stack(layer), self.flattening) for layer in layers if layer[0].dim() > 1]
        return torch.stack(norms).sum()

    def parameter_groups(self) -> list[ParameterGroup]:
        return task_groups(self.backbones, self.heads)


def tensor_trace_norm(tensor: Tensor, flattening: Flattening) -> Tensor:
    """Return the mean of the trace norms of the matrices that a tensor is unfolded to. Shape [].

    Args:
        tensor: [K, outputs, inputs, *kernel], the paper's axes in reverse order, which changes no norm.
        flattening: see `SoftTrace`.
    """
    if flattening == "laf":
        matrices = [tensor.flatten(1)]
    elif flattening == "tucker":
        matrices = [tensor.movedim(axis, 0).flatten(1) for axis in range(tensor.dim())]
    else:
        tensor = tensor.permute(0, 1, 2, *reversed(range(3, tensor.dim())))
        matrices = [tensor.flatten(0, axis).flatten(1) for axis in range(tensor.dim() - 1)]
    return torch.stack([trace_norm(matrix) for matrix in matrices]).mean()


def trace_norm(matrix: Tensor) -> Tensor:
    """Return the sum of the singular values; its gradient is U V^T over those that are not zero. Shape [].

    The gradient of torch.linalg.svd is not finite if singular values are zero or equal; this one always is.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
    with torch.no_grad():
        # From the Gram matrix, which is small, mostly [K, K]; in double precision, since it has the squared values.
        rows = wide.double()
        squares, left = torch.linalg.eigh(rows @ rows.mT)
        values = squares.clamp(min=0).sqrt()
        inverse = values.reciprocal().where(values > ZERO * values[-1], 0)
        with without_autocast(wide):
            subgradient = ((left * inverse) @ left.mT).to(wide.dtype) @ wide
    norm: Tensor = (subgradient * wide).sum()
    return norm
