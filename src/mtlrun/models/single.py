"""Single-task baselines, all of them in one run."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtlrun.models.backbones import BackboneFactory
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_head, task_groups


class SingleTask(MultiTaskModel):
    """One network per task and nothing shared: each network is trained as if it were alone.

    Each network is initialized from the same random state, so that its initial weights are those of a run with this
    task alone. Gradients are clipped, checkpoints selected and patience counted per task. The networks do see the same
    order of batches, and their dropout masks are drawn from one generator, so they differ from those of separate runs.

    Shared: nothing. Per task: the whole network. Size: one backbone and one head per task.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the networks; filled in from the group `backbone`.
    """

    independent_tasks = True
    equal_start = True

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

    def task_networks(self) -> dict[str, tuple[nn.Module, nn.Module]]:
        return {task: (network[0], network[1]) for task, network in self.networks.items()}  # type: ignore[index]

    def state_prefixes(self, tasks: Sequence[str]) -> list[str]:
        return [f"networks.{task}" for task in tasks]

    def parameter_groups(self) -> list[ParameterGroup]:
        return task_groups(self.networks)
