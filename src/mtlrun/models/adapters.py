"""Adapters."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from mtlrun.models.backbones import BackboneFactory
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads
from mtlrun.models.blocks.layers import conv1x1_or_linear
from mtlrun.models.blocks.task_trunk import TaskTrunk


class Adapter(nn.Module):
    """A residual bottleneck, x + up(gelu(down(x))), the same at each place; the identity at the start.

    Args:
        shape: of one sample's features.
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
    """One backbone with a small residual bottleneck per task after each stage.

    Source: Houlsby et al., "Parameter-Efficient Transfer Learning for NLP" (ICML 2019), section 2.1; for convolutional
    networks, with 1x1 convolutions: Rebuffi et al., "Learning multiple visual domain_logits with residual adapters"
    (NeurIPS 2017). Departures: one adapter after each stage, where the papers have one or two in each block; the
    backbone is trained along unless `frozen`, which the papers do with a pretrained one; each task has its own
    BatchNorm statistics (Rebuffi et al.: scales and shifts too).
    GELU is the authors' choice; narrow bottlenecks with ReLU may be dead from the start.
    As the adapters start as identities, the model starts as hard sharing.

    Shared: the backbone; frozen, nothing. Task's own: its adapters and its head. Size: one backbone, and per task
    about 2 C^2 / reduction parameters for each stage of C channels, and a head; one pass per task, but for the first
    stage.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the trunk; filled in from the group `backbone`.
        reduction: channels of a stage per channel of its adapter's bottleneck, >= 1. Our choice, for stages of
            10 to 500 channels; Houlsby et al. have 8 to 256 channels for 1024.
        frozen: train adapters and heads alone, with the backbone in evaluation mode; for pretrained weights.
    """

    def __init__(
        self,
        tasks: Mapping[str, TaskLike],
        backbone: BackboneFactory,
        reduction: int = 4,
        frozen: bool = False,
    ) -> None:
        if reduction < 1:
            raise ValueError(f"reduction must be >= 1, found {reduction}")
        super().__init__(tuple(tasks))
        network = backbone()
        shapes = network.stage_shapes
        self.trunk = TaskTrunk(tasks, network, frozen=frozen)
        self.heads = make_heads(tasks, shapes[-1], network.input_shape)
        self.adapters = nn.ModuleDict(
            {task: nn.ModuleList(Adapter(shape, max(1, shape[0] // reduction)) for shape in shapes) for task in tasks}
        )

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested = self.requested(tasks)
        features = self.trunk.passes(requested, inputs, self.adapt)
        return Output({task: self.heads[task](own) for task, own in zip(requested, features, strict=True)})

    def adapt(self, task: str, stage: int, features: Tensor) -> Tensor:
        """Apply a task's adapter to what a stage gave."""
        adapted: Tensor = self.adapters[task][stage](features)  # type: ignore[index]
        return adapted

    def parameter_groups(self) -> list[ParameterGroup]:
        return [
            ParameterGroup("shared", list(self.trunk.parameters())),
            *(
                ParameterGroup(task, [*self.adapters[task].parameters(), *head.parameters()], task=task)
                for task, head in self.heads.items()
            ),
        ]
