"""Adapters: small task-specific bottlenecks in a shared backbone."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from mtlrun.config.bounds import Width, checked
from mtlrun.models.backbones import BackboneFactory
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads, task_groups
from mtlrun.models.blocks.layers import conv1x1_or_linear
from mtlrun.models.blocks.task_trunk import TaskTrunk


class Adapter(nn.Module):
    """A residual bottleneck, x + up(gelu(down(x))), applied at each position; initially the identity.

    Args:
        shape: shape of one sample's features.
        width: channels of the bottleneck.
    """

    def __init__(self, shape: Sequence[int], width: int) -> None:
        super().__init__()
        self.down = conv1x1_or_linear(shape, width)
        self.up = conv1x1_or_linear((width, *shape[1:]), shape[0])
        for parameter in self.up.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        change: Tensor = self.up(nn.functional.gelu(self.down(features)))
        return features + change


class Adapters(MultiTaskModel):
    """A shared backbone with a small residual bottleneck per task after each stage.

    Source: Houlsby et al., "Parameter-Efficient Transfer Learning for NLP" (ICML 2019), section 2.1; for convolutional
    networks, with 1x1 convolutions: Rebuffi et al., "Learning multiple visual domain_logits with residual adapters"
    (NeurIPS 2017). Departures: one adapter after each stage, where the papers have one or two in each block; the
    backbone is trained as well, unless `freeze_backbone`, which is what the papers do with a pretrained one; BatchNorm
    statistics are separate per task (in Rebuffi et al., scales and shifts too).
    GELU is the authors' choice; narrow bottlenecks with ReLU may be dead from the start.
    As the adapters start as identities, the model starts as hard sharing.

    Shared: the backbone; nothing if it is frozen. Per task: the adapters and the head. Size: one backbone, and per task
    about 2 C^2 / reduction parameters for each stage of C channels, and a head. One pass per task, except for the first
    stage.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the trunk; filled in from the group `backbone`.
        reduction: a stage's channels divided by those of its adapter's bottleneck, >= 1. The default is our choice for
            stages of 10 to 500 channels; Houlsby et al. use 8 to 256 channels for 1024.
        freeze_backbone: train only adapters and heads, with the backbone in evaluation mode; for pretrained weights.
    """

    @checked
    def __init__(
        self,
        tasks: Mapping[str, TaskLike],
        backbone: BackboneFactory,
        reduction: Width = 4,
        freeze_backbone: bool = False,
    ) -> None:
        super().__init__(tuple(tasks))
        network = backbone()
        shapes = network.stage_shapes
        self.trunk = TaskTrunk(tasks, network, frozen=freeze_backbone)
        self.heads = make_heads(tasks, shapes[-1], network.input_shape)
        self.adapters = nn.ModuleDict(
            {task: nn.ModuleList(Adapter(shape, max(1, shape[0] // reduction)) for shape in shapes) for task in tasks}
        )

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested = self.requested(tasks)
        features = self.trunk.run_tasks(requested, inputs, self.adapt)
        return Output({task: self.heads[task](last) for task, last in zip(requested, features, strict=True)})

    def adapt(self, task: str, stage: int, features: Tensor) -> Tensor:
        """Apply a task's adapter to the output of a stage."""
        adapted: Tensor = self.adapters[task][stage](features)  # type: ignore[index]
        return adapted

    def parameter_groups(self) -> list[ParameterGroup]:
        return [
            ParameterGroup("shared", list(self.trunk.parameters())),
            *task_groups(self.adapters, self.heads),
        ]
