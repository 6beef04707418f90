"""Soft parameter sharing by the trace norm."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mtlrun.models.backbones import BackboneFactory
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads

#: Singular values up to this share of the largest one count as zero: more than rounding makes of zeros.
ZERO = 1e-6

Flattening = Literal["laf", "tucker", "tt"]


class SoftTrace(MultiTaskModel):
    """K networks whose weights are drawn towards low rank, layer by layer, by the trace norm of all tasks' weights.

    Source: Yang & Hospedales, "Trace Norm Regularized Deep Multi-Task Learning" (ICLR workshop 2017).
    The penalty is strength * sum over layers of ‖W‖_*, where W holds the layer's weights in all backbones, with the
    tasks as its last axis; it joins the objective outside the weighting. Stacked are all weights of the backbones
    that have two axes or more; not biases and the scales of normalizations (as in the authors' code), nor heads.
    The paper weighs the unfoldings of `tucker` and `tt` by numbers of choice; here all weigh the same and sum to 1,
    as in the authors' code. Unlike `SoftSharing`, which makes weights equal, this makes them depend on each other
    linearly, and so each backbone starts from random weights of its own: equal ones would be of rank 1 and stay so.
    Where the norm has no derivative, for want of rank, the subgradient of least length is taken.
    Shared: no parameter, since each task's loss reaches its own network alone (so gradient methods have nothing to
    combine). Task's own: its whole network. Size: one backbone and one head per task.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the networks; filled in from the group `backbone`.
        strength: factor of the penalty, >= 0; 0 leaves the networks alone. The paper leaves it open; .01 is ours.
        flattening: what matrices are made of W: `laf`, one of a column per task; `tucker`, one of each axis against
            the others; `tt`, one of the first axes against the last ones for each place between two axes, with the
            axes of a layer's weights in the paper's order: height, width, inputs, outputs.
        init_from: folder of a run of model=single whose networks these are to start from; None for random weights.
    """

    def __init__(
        self,
        tasks: Mapping[str, TaskLike],
        backbone: BackboneFactory,
        strength: float = 0.01,
        flattening: Flattening = "laf",
        init_from: str | None = None,
    ) -> None:
        if not strength >= 0:
            raise ValueError(f"strength must be >= 0, found {strength}")
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
        return [
            ParameterGroup(task, [*self.backbones[task].parameters(), *self.heads[task].parameters()], task=task)
            for task in self.task_names
        ]


def tensor_trace_norm(tensor: Tensor, flattening: Flattening) -> Tensor:
    """Return the mean of the trace norms of the matrices that a flattening makes of a tensor. Shape [].

    Args:
        tensor: [K, outputs, inputs, *places], the paper's axes from the last to the first, which changes no norm.
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

    The gradient of torch.linalg.svd is not finite where singular values are zero or equal; this one is everywhere.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
    with torch.no_grad():
        # From the Gram matrix, which is small, mostly [K, K]. In double precision, since it squares the values.
        rows = wide.double()
        squares, left = torch.linalg.eigh(rows @ rows.mT)
        values = squares.clamp(min=0).sqrt()
        inverse = values.reciprocal().where(values > ZERO * values[-1], 0)
        subgradient = ((left * inverse) @ left.mT).to(wide.dtype) @ wide
    norm: Tensor = (subgradient * wide).sum()
    return norm
