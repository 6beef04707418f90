"""Customized gate control."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from mtlrun.models.backbones import BackboneFactory
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads
from mtlrun.models.blocks.experts import GateInput, SoftmaxGate, check_numbers, mixture, name_experts, stack_units
from mtlrun.models.blocks.parallel_backbones import ParallelBackbones


class CGC(MultiTaskModel):
    """Shared experts, and experts that belong to one task; each task mixes its own with the shared ones.

    Source: Tang et al., "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model for Personalized
    Recommendations" (RecSys 2020), section 4.1: g_k(x) = softmax(W_k x) weights task k's own and the shared experts.
    An expert is a whole backbone (in the paper: a multi-layer perceptron). Of images the gates see a small grid of
    means instead of x, see `GateInput`. Shared: the shared experts. Task's own: its experts, gate and head. Size:
    `task_experts` backbones, a gate and a head per task, and `shared_experts` backbones.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the experts; filled in from the group `backbone`.
        shared_experts: number of shared experts, at least 1. Default: the fewest; the paper does not settle on one.
        task_experts: number of experts of each task, at least 1. Default: as for `shared_experts`.
    """

    def __init__(
        self, tasks: Mapping[str, TaskLike], backbone: BackboneFactory, shared_experts: int = 1, task_experts: int = 1
    ) -> None:
        check_numbers(shared_experts, task_experts)
        super().__init__(tuple(tasks))
        self.task_experts, self.shared_experts = task_experts, shared_experts
        self.experts = ParallelBackbones(name_experts(tasks, task_experts, shared_experts), backbone)
        first = self.experts.first
        self.view = GateInput(first)
        self.gates = nn.ModuleDict({task: SoftmaxGate(self.view.size, task_experts + shared_experts) for task in tasks})
        self.heads = make_heads(tasks, first.feature_shape, first.input_shape)

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested = self.requested(tasks)
        names = name_experts(requested, self.task_experts, self.shared_experts)
        sizes = [self.task_experts] * len(requested) + [self.shared_experts]
        *own, shared = stack_units([self.experts[name](inputs) for name in names], sizes)
        seen = self.view(inputs)
        return Output(
            {
                task: self.heads[task](mixture(self.gates[task](seen), [mine, shared]))
                for task, mine in zip(requested, own, strict=True)
            }
        )

    def parameter_groups(self) -> list[ParameterGroup]:
        experts = list(self.experts.values())
        size = self.task_experts
        groups = []
        for index, (task, gate) in enumerate(self.gates.items()):
            modules = [*experts[index * size : (index + 1) * size], gate, self.heads[task]]
            groups.append(ParameterGroup(task, [p for module in modules for p in module.parameters()], task=task))
        shared = [p for expert in experts[size * len(self.gates) :] for p in expert.parameters()]
        return [ParameterGroup("shared", shared), *groups]
