"""AdaTT: adaptive task-to-task fusion of experts."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import Parts, PartsOrZero, checked
from mtlrun.models.backbones import BackboneFactory
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads
from mtlrun.models.blocks.experts import GateInput, SoftmaxGate, mixture, name_experts, stack_units
from mtlrun.models.blocks.layers import pool
from mtlrun.models.blocks.parallel_backbones import ParallelBackbones, one_of


class Fusion(nn.Module):
    """A mixture of all units' experts for one of the units: sum_e (g(v)_e + [e is native] w_e) f_e.

    The gate g weights all experts; the weights w add the unit's native experts as a residual. The w are learned, the
    same for all samples, and initialized uniformly in +-1/sqrt(number), as in the authors' code; the weight of a single
    native expert is 1.

    Args:
        size: length of the vector v that the gate sees; there is no gate if there is only one expert.
        unit_sizes: number of experts of each unit.
        unit: index of the unit that is fused.
    """

    native: Tensor

    def __init__(self, size: int, unit_sizes: Sequence[int], unit: int) -> None:
        super().__init__()
        num_native = unit_sizes[unit]
        self.margins = (sum(unit_sizes[:unit]), sum(unit_sizes[unit + 1 :]))
        self.gate = SoftmaxGate(size, sum(unit_sizes)) if sum(unit_sizes) > 1 else None
        if num_native > 1:
            self.native = nn.Parameter(torch.empty(num_native).uniform_(-(num_native**-0.5), num_native**-0.5))
        else:
            self.register_buffer("native", torch.ones(1), persistent=False)

    def forward(self, gate_input: Tensor, units: Sequence[Tensor]) -> Tensor:
        """Map [batch, size] and the experts of all units to [batch, ...]."""
        weights = nn.functional.pad(self.native, self.margins)
        if self.gate is not None:
            weights = weights + self.gate(gate_input)
        return mixture(weights, units)


class AdaTT(MultiTaskModel):
    """Experts of each task at each level; every task mixes all experts by a gate and adds its native ones.

    Source: Li et al., "AdaTT: Adaptive Task-to-Task Fusion Network for Multitask Learning in Recommendations" (KDD
    2023), section 3. A level is a stage of the backbone: the experts at level l are the l-th stages of several
    backbones side by side. After each level, a task's features become a gated sum of all experts plus a weighted sum of
    the task's native experts, see `Fusion`. Without shared experts this is AdaTT-sp, with them the general form: the
    shared unit is fused like a task, except at the last level, where nothing would use it. A gate is softmax(W v),
    where v is the input of its unit at this level, averaged over all positions of maps; at the first level, the input
    itself or a small grid of means of images, see `GateInput`. A single task with a single expert is the plain network.
    Shared: all experts, and the fusions of all levels but the last. Per task: the last fusion and the head.
    Size: `num_task_experts` backbones, a gate per level and a head for each task, and `num_shared_experts` backbones.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the networks; filled in from the group `backbone`.
        num_task_experts: number of experts of each task at each level, at least 1. Default: that of the authors' code.
        num_shared_experts: number of shared experts at each level; 0 (the default) for AdaTT-sp.
    """

    @checked
    def __init__(
        self,
        tasks: Mapping[str, TaskLike],
        backbone: BackboneFactory,
        num_task_experts: Parts = 1,
        num_shared_experts: PartsOrZero = 0,
    ) -> None:
        super().__init__(tuple(tasks))
        self.unit_sizes = [num_task_experts] * len(tasks) + [num_shared_experts] * (num_shared_experts > 0)
        self.experts = ParallelBackbones(name_experts(tasks, num_task_experts, num_shared_experts), backbone)
        first, shapes = one_of(self.experts), one_of(self.experts).stage_shapes
        self.view = GateInput(first) if sum(self.unit_sizes) > 1 else None
        self.fusions = nn.ModuleList()
        for level, size in enumerate([self.view.size if self.view else 0, *(shape[0] for shape in shapes[:-1])]):
            units = len(self.unit_sizes) if level < len(shapes) - 1 else len(tasks)
            self.fusions.append(nn.ModuleList(Fusion(size, self.unit_sizes, unit) for unit in range(units)))
        self.heads = make_heads(tasks, shapes[-1], first.input_shape)

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested = self.requested(tasks)
        gate_inputs = [self.view(inputs) if self.view else inputs] * len(self.unit_sizes)

        def fuse(level: int, features: list[Tensor]) -> list[Tensor]:
            nonlocal gate_inputs
            units = stack_units(features, self.unit_sizes)
            fusions: nn.ModuleList = self.fusions[level]  # type: ignore[assignment]
            if level == len(self.fusions) - 1:
                last = zip(self.task_names, fusions, gate_inputs[: len(fusions)], strict=True)
                return [fusion(gate_input, units) for task, fusion, gate_input in last if task in requested]
            fused = [fusion(gate_input, units) for fusion, gate_input in zip(fusions, gate_inputs, strict=True)]
            gate_inputs = [pool(output) for output in fused]
            return [output for output, size in zip(fused, self.unit_sizes, strict=True) for _ in range(size)]

        features = self.experts(inputs, fuse)
        return Output({task: self.heads[task](fused) for task, fused in zip(requested, features, strict=True)})

    def parameter_groups(self) -> list[ParameterGroup]:
        view = [] if self.view is None else list(self.view.parameters())
        shared = [*self.experts.parameters(), *view, *self.fusions[:-1].parameters()]
        last: nn.ModuleList = self.fusions[-1]  # type: ignore[assignment]
        return [
            ParameterGroup("shared", shared),
            *(
                ParameterGroup(task, [*fusion.parameters(), *self.heads[task].parameters()], task=task)
                for task, fusion in zip(self.task_names, last, strict=True)
            ),
        ]
