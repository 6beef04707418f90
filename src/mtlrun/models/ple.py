"""Progressive layered extraction."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from mtlrun.models.backbones import Backbone, BackboneFactory
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads
from mtlrun.models.blocks.experts import GateInput, SoftmaxGate, check_numbers, mixture, name_experts, stack_units
from mtlrun.models.blocks.layers import pool
from mtlrun.models.blocks.parallel_backbones import ParallelBackbones


class PLE(MultiTaskModel):
    """Shared and per-task experts at each level, mixed by gates; the shared path takes up all tasks' experts.

    Source: Tang et al., "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model for Personalized
    Recommendations" (RecSys 2020), section 4.2. A level is a stage of the backbone: the experts at
    level l are the l-th stages of networks side by side, so each network gives one expert to every level. Task k's
    path goes on with the sum over its own and the shared experts; the shared path with that over the experts of all,
    and ends before the last level, where nothing would use it. A gate is softmax(W v), v being what its own path gave
    one level below: the features, and of maps their mean over all places; at the first level the input, of images a
    small grid of means, see `GateInput`.
    Shared: the shared experts, and through the shared path each level but the last of the tasks' experts, and of the
    tasks' gates all but the last two levels. Task's own: the last level of its experts, its last two gates, its head.
    Size: `task_experts` backbones, a gate per level and a head for each task, and `shared_experts` backbones.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the networks; filled in from the group `backbone`.
        shared_experts: number of shared experts at each level, at least 1. Default: the fewest; the paper does not
            settle on one.
        task_experts: number of experts of each task at each level, at least 1. Default: as for `shared_experts`.
    """

    def __init__(
        self, tasks: Mapping[str, TaskLike], backbone: BackboneFactory, shared_experts: int = 1, task_experts: int = 1
    ) -> None:
        check_numbers(shared_experts, task_experts)
        super().__init__(tuple(tasks))
        self.task_experts, self.shared_experts = task_experts, shared_experts
        self.experts = ParallelBackbones(name_experts(tasks, task_experts, shared_experts), backbone)
        first, shapes = self.experts.first, self.experts.stage_shapes
        self.view = GateInput(first)
        sizes = [self.view.size, *(shape[0] for shape in shapes[:-1])]
        self.gates = nn.ModuleList(
            nn.ModuleDict({task: SoftmaxGate(size, task_experts + shared_experts) for task in tasks}) for size in sizes
        )
        self.shared_gates = nn.ModuleList(SoftmaxGate(size, len(self.experts)) for size in sizes[:-1])
        self.heads = make_heads(tasks, shapes[-1], first.input_shape)

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested, last = self.requested(tasks), len(self.shared_gates)
        view = self.view(inputs)
        seen, shared_seen = dict.fromkeys(self.task_names, view), view  # by each path's gate

        def fuse(level: int, features: list[Tensor]) -> list[Tensor]:
            nonlocal seen, shared_seen
            # The shared path takes up all tasks' experts, but for those of the last level, where it has ended.
            here = requested if level == last else self.task_names
            onward = requested if level >= last - 1 else self.task_names
            units = stack_units(features, [self.task_experts] * len(here) + [self.shared_experts])
            own = dict(zip(here, units[:-1], strict=True))
            gates: nn.ModuleDict = self.gates[level]  # type: ignore[assignment]
            paths = {task: mixture(gates[task](seen[task]), [own[task], units[-1]]) for task in onward}
            if level == last:
                return list(paths.values())
            shared = mixture(self.shared_gates[level](shared_seen), units)
            seen, shared_seen = {task: pool(path) for task, path in paths.items()}, pool(shared)
            return [path for path in paths.values() for _ in range(self.task_experts)] + [shared] * self.shared_experts

        features = self.experts(inputs, fuse, name_experts(requested, self.task_experts, self.shared_experts))
        return Output({task: self.heads[task](own) for task, own in zip(requested, features, strict=True)})

    def parameter_groups(self) -> list[ParameterGroup]:
        networks: list[Backbone] = list(self.experts.values())  # type: ignore[arg-type]
        size = self.task_experts
        groups = []
        for index, task in enumerate(self.task_names):
            own = networks[index * size : (index + 1) * size]
            modules: list[nn.Module] = [self.heads[task], *own]
            if len(self.gates) > 1:
                modules[1:] = [network.stages[-1] for network in own]
            modules += [level[task] for level in self.gates[-2:]]  # type: ignore[index]
            groups.append(ParameterGroup(task, [p for module in modules for p in module.parameters()], task=task))
        found = {id(parameter) for group in groups for parameter in group.parameters}
        return [ParameterGroup("shared", [p for p in self.parameters() if id(p) not in found]), *groups]
