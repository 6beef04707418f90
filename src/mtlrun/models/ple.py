"""PLE: progressive layered extraction, shared and task-specific experts at each level."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from mtlrun.config.bounds import SharedExperts, TaskExperts, checked
from mtlrun.models.backbones import Backbone, BackboneFactory
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads
from mtlrun.models.blocks.experts import GateInput, SoftmaxGate, mixture, name_experts, stack_units
from mtlrun.models.blocks.layers import pool
from mtlrun.models.blocks.parallel_backbones import ParallelBackbones, one_of


class PLE(MultiTaskModel):
    """Shared and task-specific experts at each level, mixed by gates; a shared path mixes the experts of all tasks.

    Source: Tang et al., "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model for Personalized
    Recommendations" (RecSys 2020), section 4.2. A level is a stage of the backbone: the experts at level l are the l-th
    stages of several backbones side by side, so each backbone contributes one expert to every level. Task k's path
    continues with a gated sum of task k's experts and the shared ones; the shared path with a gated sum of all experts.
    The shared path ends before the last level, where nothing would use it. A gate is softmax(W v), where v is the
    output of its path one level below, averaged over all positions of maps; at the first level, the input itself or a
    small grid of means of images, see `GateInput`.
    Shared: the shared experts and, through the shared path, all levels but the last of the tasks' experts and all
    levels but the last two of the tasks' gates. Per task: the last level of its experts, its last two gates, the head.
    Size: `num_task_experts` backbones, a gate per level and a head for each task, and `num_shared_experts` backbones.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the networks; filled in from the group `backbone`.
        num_shared_experts: number of shared experts at each level, at least 1. Default: the fewest; the paper
            recommends none.
        num_task_experts: number of experts of each task at each level, at least 1. Default: the fewest, too.
    """

    @checked
    def __init__(
        self,
        tasks: Mapping[str, TaskLike],
        backbone: BackboneFactory,
        num_shared_experts: SharedExperts = 1,
        num_task_experts: TaskExperts = 1,
    ) -> None:
        super().__init__(tuple(tasks))
        self.num_task_experts, self.num_shared_experts = num_task_experts, num_shared_experts
        self.experts = ParallelBackbones(name_experts(tasks, num_task_experts, num_shared_experts), backbone)
        first, shapes = one_of(self.experts), one_of(self.experts).stage_shapes
        self.view = GateInput(first)
        sizes = [self.view.size, *(shape[0] for shape in shapes[:-1])]
        self.gates = nn.ModuleList(
            nn.ModuleDict({task: SoftmaxGate(size, num_task_experts + num_shared_experts) for task in tasks})
            for size in sizes
        )
        self.shared_gates = nn.ModuleList(SoftmaxGate(size, len(self.experts)) for size in sizes[:-1])
        self.heads = make_heads(tasks, shapes[-1], first.input_shape)

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested, last = self.requested(tasks), len(self.shared_gates)
        view = self.view(inputs)
        gate_inputs, shared_gate_input = dict.fromkeys(self.task_names, view), view

        def fuse(level: int, features: list[Tensor]) -> list[Tensor]:
            nonlocal gate_inputs, shared_gate_input
            # The shared path mixes all tasks' experts, except at the last level, where it has ended.
            names = requested if level == last else self.task_names
            continuing = requested if level >= last - 1 else self.task_names
            units = stack_units(features, [self.num_task_experts] * len(names) + [self.num_shared_experts])
            task_units = dict(zip(names, units[:-1], strict=True))
            gates: nn.ModuleDict = self.gates[level]  # type: ignore[assignment]
            paths = {
                task: mixture(gates[task](gate_inputs[task]), [task_units[task], units[-1]]) for task in continuing
            }
            if level == last:
                return list(paths.values())
            shared = mixture(self.shared_gates[level](shared_gate_input), units)
            gate_inputs, shared_gate_input = {task: pool(path) for task, path in paths.items()}, pool(shared)
            repeated = [path for path in paths.values() for _ in range(self.num_task_experts)]
            return [*repeated, *[shared] * self.num_shared_experts]

        names = name_experts(requested, self.num_task_experts, self.num_shared_experts)
        features = self.experts(inputs, fuse, names)
        return Output({task: self.heads[task](path) for task, path in zip(requested, features, strict=True)})

    def parameter_groups(self) -> list[ParameterGroup]:
        networks: list[Backbone] = list(self.experts.values())  # type: ignore[arg-type]
        size = self.num_task_experts
        groups = []
        for index, task in enumerate(self.task_names):
            experts = networks[index * size : (index + 1) * size]
            modules: list[nn.Module] = [self.heads[task], *experts]
            if len(self.gates) > 1:
                modules[1:] = [expert.stages[-1] for expert in experts]
            modules += [level[task] for level in self.gates[-2:]]  # type: ignore[index]
            groups.append(ParameterGroup(task, [p for module in modules for p in module.parameters()], task=task))
        task_params = {id(parameter) for group in groups for parameter in group.parameters}
        return [ParameterGroup("shared", [p for p in self.parameters() if id(p) not in task_params]), *groups]
