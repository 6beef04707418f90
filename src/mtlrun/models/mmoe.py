"""MMoE: multi-gate mixture of experts."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from mtlrun.config.bounds import Experts, checked
from mtlrun.models.backbones import BackboneFactory
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads, task_groups
from mtlrun.models.blocks.experts import GateInput, SoftmaxGate, mixture, stack_units
from mtlrun.models.blocks.parallel_backbones import ParallelBackbones, one_of


class MMoE(MultiTaskModel):
    """Experts that all tasks share; each task weights them by a separate gate.

    Source: Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts" (KDD
    2018), equations 6-8: y_k = h_k(sum_i g_k(x)_i f_i(x)) with g_k(x) = softmax(W_k x).
    An expert is a whole backbone (in the paper: one layer). Gates see a small grid of means of images instead of x, see
    `GateInput`. Shared: all experts. Per task: the gate and the head. Size: `num_experts` backbones, whatever the
    number of tasks; a gate and a head per task.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the experts; filled in from the group `backbone`.
        num_experts: number of experts, at least 2. Paper: 8.
    """

    @checked
    def __init__(self, tasks: Mapping[str, TaskLike], backbone: BackboneFactory, num_experts: Experts = 8) -> None:
        super().__init__(tuple(tasks))
        self.experts = ParallelBackbones((f"expert_{index + 1}" for index in range(num_experts)), backbone)
        first = one_of(self.experts)
        self.view = GateInput(first)
        self.gates = nn.ModuleDict({task: SoftmaxGate(self.view.size, num_experts) for task in tasks})
        self.heads = make_heads(tasks, first.feature_shape, first.input_shape)

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested = self.requested(tasks)
        experts = stack_units([expert(inputs) for expert in self.experts.values()], [len(self.experts)])
        gate_input = self.view(inputs)
        return Output({task: self.heads[task](mixture(self.gates[task](gate_input), experts)) for task in requested})

    def parameter_groups(self) -> list[ParameterGroup]:
        return [
            ParameterGroup("shared", [*self.experts.parameters(), *self.view.parameters()]),
            *task_groups(self.gates, self.heads),
        ]
