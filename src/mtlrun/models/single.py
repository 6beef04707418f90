"""Single-task baselines: all of them in one run."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtlrun.models.backbones import BackboneFactory
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_head


class SingleTask(MultiTaskModel):
    """One network per task and nothing shared: each is trained as if it were alone.

    Each network starts from the same random state, so its first weights are those that a run with this task alone
    would have; gradients are clipped, checkpoints selected and patience counted per task. What the networks do
    share is the order of the batches. (With dropout, the masks come from one stream: alike, not equal.)

    Shared: nothing. Task's own: its whole network. Size: one backbone and one head per task.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the networks; filled in from the group `backbone`.
    """

    independent_tasks = True

    def __init__(self, tasks: Mapping[str, TaskLike], backbone: BackboneFactory) -> None:
        super().__init__(tuple(tasks))
        self.networks = nn.ModuleDict()
        start = torch.random.get_rng_state()
        for name, task in tasks.items():
            torch.random.set_rng_state(start)
            trunk = backbone()
            head = make_head(task, trunk.feature_shape, trunk.input_shape)
            self.networks[name] = nn.Sequential(trunk, head)

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        return Output({task: self.networks[task](inputs) for task in self.requested(tasks)})

    def state_prefixes(self, tasks: Sequence[str]) -> list[str]:
        return [f"networks.{task}" for task in tasks]

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup(task, list(network.parameters()), task=task) for task, network in self.networks.items()]
