"""Task routing: a fixed random subset of a shared backbone's channels for each task."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import Fraction, Seed, checked
from mtlrun.models.backbones import BackboneFactory
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads, task_groups
from mtlrun.models.blocks.layers import per_channel
from mtlrun.models.blocks.task_trunk import TaskTrunk


def draw_masks(num_tasks: int, channels: int, sigma: float, generator: torch.Generator) -> Tensor:
    """Return which task uses which channels, a bool tensor [K, channels].

    Each task independently draws round(sigma * channels) channels. Channels that no task drew are dealt out to the
    tasks in turn, so that all are trained; a task that still has none gets one.
    """
    number = round(sigma * channels)
    order = torch.stack([torch.randperm(channels, generator=generator) for _ in range(num_tasks)])
    masks = torch.zeros(num_tasks, channels, dtype=torch.bool)
    masks.scatter_(1, order[:, :number], True)
    unused = (~masks.any(dim=0)).nonzero().flatten()
    unused = unused[torch.randperm(len(unused), generator=generator)]
    masks[torch.arange(len(unused)) % num_tasks, unused] = True
    empty = ~masks.any(dim=1)
    masks[empty, order[empty, 0]] = True
    return masks


class Router(nn.Module):
    """A mask on the channels, which sets those that a task does not use to zero.

    Args:
        masks: bool [K, channels], which task uses which channels.
    """

    masks: Tensor

    def __init__(self, masks: Tensor) -> None:
        super().__init__()
        self.register_buffer("masks", masks)

    def forward(self, task: int, features: Tensor) -> Tensor:
        return per_channel(self.masks[task], features)


class TaskRouting(MultiTaskModel):
    """A shared backbone in which each task uses a fixed random subset of the channels.

    Source: Strezoski et al., "Many Task Learning With Task Routing" (ICCV 2019): binary masks on the output channels of
    layers, drawn once. Each task independently draws a fraction sigma of the channels, as in the authors' code (which
    counts those left out; at .5 that is the same). Departures: channels that no task drew would never be trained, so
    they are dealt out to the tasks; with sigma 0 the subsets are disjoint, and a single task has all channels. Masks
    are applied after each stage, not after each convolution, which is the same if each stage has one layer, as in mlp
    and lenet. BatchNorm statistics are separate per task, as the zeros differ.

    Shared: the backbone. Tensors are shared as a whole even if only one task uses some of their filters; the gradient
    of an unused filter is zero. Per task: the head. Size: one backbone, K heads. One pass per task, except for the
    first stage.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the trunk; filled in from the group `backbone`.
        sigma: sharing ratio, in [0, 1]: the fraction of the channels that each task draws; 0 for disjoint subsets, 1
            for hard sharing. The authors' code: .5.
        mask_seed: seed of the masks, >= 0; the run's seed does not change them.
    """

    @checked
    def __init__(
        self, tasks: Mapping[str, TaskLike], backbone: BackboneFactory, sigma: Fraction = 0.5, mask_seed: Seed = 0
    ) -> None:
        super().__init__(tuple(tasks))
        network = backbone()
        self.trunk = TaskTrunk(tasks, network)
        self.heads = make_heads(tasks, network.feature_shape, network.input_shape)
        generator = torch.Generator().manual_seed(mask_seed)
        self.routers = nn.ModuleList(
            Router(draw_masks(len(tasks), channels, sigma, generator)) for channels in network.stage_channels
        )

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested = self.requested(tasks)
        index = {task: position for position, task in enumerate(self.task_names)}
        features = self.trunk.run_tasks(
            requested, inputs, lambda task, stage, output: self.routers[stage](index[task], output)
        )
        return Output({task: self.heads[task](last) for task, last in zip(requested, features, strict=True)})

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup("shared", list(self.trunk.parameters())), *task_groups(self.heads)]
