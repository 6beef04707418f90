"""Task routing."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtlrun.models.backbones import BackboneFactory
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, head_groups, make_heads
from mtlrun.models.blocks.layers import per_channel
from mtlrun.models.blocks.task_trunk import TaskTrunk


def draw_masks(num_tasks: int, channels: int, sigma: float, generator: torch.Generator) -> Tensor:
    """Return which task uses which channels, a bool tensor [K, channels].

    Each task draws round(sigma * channels) of them on its own. The channels that nobody drew are dealt out in turn,
    so that none is dead, and a task that still has none gets one.
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
    """Lets the channels of one task through and sets the others to zero.

    Args:
        masks: [K, channels], which task uses which.
    """

    masks: Tensor

    def __init__(self, masks: Tensor) -> None:
        super().__init__()
        self.register_buffer("masks", masks)

    def forward(self, task: int, features: Tensor) -> Tensor:
        return per_channel(self.masks[task], features)


class TaskRouting(MultiTaskModel):
    """One trunk in which each task uses a fixed random part of the channels.

    Source: Strezoski et al., "Many Task Learning With Task Routing" (ICCV 2019): binary masks, drawn once, on the
    channels that layers give. Each task draws a share sigma of the channels on its own, as in the authors' code
    (which counts the ones left out; at .5 that is the same). Departures: channels that no task drew would never be
    trained, and are dealt out to the tasks here, so that with sigma 0 each has a part of its own and one task alone
    has all of them; masks are applied after each stage, not each convolution, which is the same where a stage has one
    layer, such as in mlp and lenet. Each task has its own BatchNorm statistics, as its zeros are its own.

    Shared: the trunk. A filter may serve one task alone, but tensors are shared as a whole, and what a task does not
    use has the gradient zero. Task's own: its head. Size: one backbone, K heads; one pass per task, but for the first
    stage.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the trunk; filled in from the group `backbone`.
        sigma: sharing ratio, in [0, 1]: the share of the channels that each task draws; 0 for separate parts, 1 for
            hard sharing. The authors' code: .5.
        mask_seed: of the masks, >= 0, whatever the seed of the run.
    """

    def __init__(
        self, tasks: Mapping[str, TaskLike], backbone: BackboneFactory, sigma: float = 0.5, mask_seed: int = 0
    ) -> None:
        if not 0 <= sigma <= 1:
            raise ValueError(f"sigma must be in [0, 1], found {sigma}")
        if mask_seed < 0:
            raise ValueError(f"mask_seed must be >= 0, found {mask_seed}")
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
        numbers = {task: number for number, task in enumerate(self.task_names)}
        features = self.trunk.passes(
            requested, inputs, lambda task, stage, own: self.routers[stage](numbers[task], own)
        )
        return Output({task: self.heads[task](own) for task, own in zip(requested, features, strict=True)})

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup("shared", list(self.trunk.parameters())), *head_groups(self.heads)]
