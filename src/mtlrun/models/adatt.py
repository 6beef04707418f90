"""Adaptive task-to-task fusion."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtlrun.models.backbones import BackboneFactory
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads
from mtlrun.models.blocks.experts import GateInput, SoftmaxGate, mixture, name_experts, stack_units
from mtlrun.models.blocks.layers import pool
from mtlrun.models.blocks.parallel_backbones import ParallelBackbones


class Fusion(nn.Module):
    """Mixes the experts of all units for one of them: sum_e (g(v)_e + [e is its own] w_e) f_e.

    The gate g reaches for all experts, the weights w keep the unit's own in as a residual. They are learned, the same
    for all samples, and start uniform in +-1/sqrt(number), as in the authors' code; a single own expert has weight 1.

    Args:
        size: of the vector v that the gate sees.
        unit_sizes: number of experts of each unit.
        own: which unit.
    """

    native: Tensor

    def __init__(self, size: int, unit_sizes: Sequence[int], own: int) -> None:
        super().__init__()
        num_own = unit_sizes[own]
        self.margins = (sum(unit_sizes[:own]), sum(unit_sizes[own + 1 :]))
        self.gate = SoftmaxGate(size, sum(unit_sizes)) if sum(unit_sizes) > 1 else None
        if num_own > 1:
            self.native = nn.Parameter(torch.empty(num_own).uniform_(-(num_own**-0.5), num_own**-0.5))
        else:
            self.register_buffer("native", torch.ones(1), persistent=False)

    def forward(self, seen: Tensor, units: Sequence[Tensor]) -> Tensor:
        """Map [batch, size] and the experts of all units to [batch, ...]."""
        weights = nn.functional.pad(self.native, self.margins)
        if self.gate is not None:
            weights = weights + self.gate(seen)
        return mixture(weights, units)


class AdaTT(MultiTaskModel):
    """Experts of each task at each level; every task mixes the experts of all, its own also past the gate.

    Source: Li et al., "AdaTT: Adaptive Task-to-Task Fusion Network for Multitask Learning in Recommendations" (KDD
    2023), section 3. A level is a stage of the backbone: the experts at level l are the l-th stages of networks side
    by side. After each level a task goes on with a gated sum over the experts of all tasks plus a sum of its own ones,
    see `Fusion`. Without shared experts this is AdaTT-sp, with them the general form: the shared unit is fused like a
    task, except at the last level, where nothing would use it. A gate is softmax(W v), v being what its unit was
    given at this level: of maps their mean over all places; at the first level the input, of images a small grid of
    means, see `GateInput`. Alone, a task with a single expert is the plain network.
    Shared: all experts, and the fusions of all levels but the last. Task's own: its last fusion and its head.
    Size: `task_experts` backbones, a gate per level and a head for each task, and `shared_experts` backbones.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the networks; filled in from the group `backbone`.
        task_experts: number of experts of each task at each level, at least 1. Default: that of the authors' code.
        shared_experts: number of shared experts at each level; 0 for AdaTT-sp, which the default is.
    """

    def __init__(
        self, tasks: Mapping[str, TaskLike], backbone: BackboneFactory, task_experts: int = 1, shared_experts: int = 0
    ) -> None:
        if task_experts < 1:
            raise ValueError(f"task_experts must be >= 1, found {task_experts}")
        if shared_experts < 0:
            raise ValueError(f"shared_experts must be >= 0, found {shared_experts}")
        super().__init__(tuple(tasks))
        self.unit_sizes = [task_experts] * len(tasks) + [shared_experts] * (shared_experts > 0)
        self.experts = ParallelBackbones(name_experts(tasks, task_experts, shared_experts), backbone)
        first, shapes = self.experts.first, self.experts.stage_shapes
        self.view = GateInput(first)
        self.fusions = nn.ModuleList()
        for level, size in enumerate([self.view.size, *(shape[0] for shape in shapes[:-1])]):
            units = len(self.unit_sizes) if level < len(shapes) - 1 else len(tasks)
            self.fusions.append(nn.ModuleList(Fusion(size, self.unit_sizes, unit) for unit in range(units)))
        self.heads = make_heads(tasks, shapes[-1], first.input_shape)

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested = self.requested(tasks)
        seen = [self.view(inputs)] * len(self.unit_sizes)

        def fuse(level: int, features: list[Tensor]) -> list[Tensor]:
            nonlocal seen
            units = stack_units(features, self.unit_sizes)
            fusions: nn.ModuleList = self.fusions[level]  # type: ignore[assignment]
            if level == len(self.fusions) - 1:
                last = zip(self.task_names, fusions, seen[: len(fusions)], strict=True)
                return [fusion(own, units) for task, fusion, own in last if task in requested]
            fused = [fusion(own, units) for fusion, own in zip(fusions, seen, strict=True)]
            seen = [pool(own) for own in fused]
            return [own for own, size in zip(fused, self.unit_sizes, strict=True) for _ in range(size)]

        features = self.experts(inputs, fuse)
        return Output({task: self.heads[task](own) for task, own in zip(requested, features, strict=True)})

    def parameter_groups(self) -> list[ParameterGroup]:
        shared = [*self.experts.parameters(), *self.fusions[:-1].parameters()]
        last: nn.ModuleList = self.fusions[-1]  # type: ignore[assignment]
        return [
            ParameterGroup("shared", shared),
            *(
                ParameterGroup(task, [*fusion.parameters(), *self.heads[task].parameters()], task=task)
                for task, fusion in zip(self.task_names, last, strict=True)
            ),
        ]
