"""CGC: customized gate control over shared and task-specific experts."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from mtlrun.config.bounds import SharedExperts, TaskExperts, checked
from mtlrun.models.backbones import BackboneFactory
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads
from mtlrun.models.blocks.experts import GateInput, SoftmaxGate, mixture, name_experts, stack_units
from mtlrun.models.blocks.parallel_backbones import ParallelBackbones, one_of


class CGC(MultiTaskModel):
    """Shared and task-specific experts; each task mixes its experts with the shared ones by a gate.

    Source: Tang et al., "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model for Personalized
    Recommendations" (RecSys 2020), section 4.1: g_k(x) = softmax(W_k x) weights task k's experts and the shared ones.
    An expert is a whole backbone (in the paper: a multi-layer perceptron). Gates see a small grid of means of images
    instead of x, see `GateInput`. Shared: the shared experts. Per task: its experts, the gate and the head. Size:
    `num_task_experts` backbones, a gate and a head per task, and `num_shared_experts` backbones.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the experts; filled in from the group `backbone`.
        num_shared_experts: number of shared experts, at least 1. Default: the fewest; the paper recommends none.
        num_task_experts: number of experts of each task, at least 1. Default: the fewest, too.
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
        first = one_of(self.experts)
        self.view = GateInput(first)
        self.gates = nn.ModuleDict(
            {task: SoftmaxGate(self.view.size, num_task_experts + num_shared_experts) for task in tasks}
        )
        self.heads = make_heads(tasks, first.feature_shape, first.input_shape)

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested = self.requested(tasks)
        names = name_experts(requested, self.num_task_experts, self.num_shared_experts)
        sizes = [self.num_task_experts] * len(requested) + [self.num_shared_experts]
        *task_units, shared_unit = stack_units([self.experts[name](inputs) for name in names], sizes)
        gate_input = self.view(inputs)
        return Output(
            {
                task: self.heads[task](mixture(self.gates[task](gate_input), [task_unit, shared_unit]))
                for task, task_unit in zip(requested, task_units, strict=True)
            }
        )

    def parameter_groups(self) -> list[ParameterGroup]:
        experts = list(self.experts.values())
        size = self.num_task_experts
        groups = []
        for index, (task, gate) in enumerate(self.gates.items()):
            modules = [*experts[index * size : (index + 1) * size], gate, self.heads[task]]
            groups.append(ParameterGroup(task, [p for module in modules for p in module.parameters()], task=task))
        shared = [p for expert in experts[size * len(self.gates) :] for p in expert.parameters()]
        return [ParameterGroup("shared", [*shared, *self.view.parameters()]), *groups]
