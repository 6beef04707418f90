"""MTAN: tasks attend to the features of one shared network."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mtlrun.models.backbones import BackboneFactory, Shape, StageCache
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads
from mtlrun.models.blocks.layers import Resize, batch_norm, conv1x1_or_linear, conv3x3_or_linear, joined


class Attention(nn.Module):
    """Selects from a stage's features: a = sigmoid(h(g([u; v]))), then a * u, for vectors and maps.

    g is a 1x1 convolution with BatchNorm and ReLU, h a 1x1 convolution with BatchNorm; for vectors, linear layers.

    Args:
        shape: of one sample's features u after the stage.
        has_previous: whether there is a v: what the task attended to after the stage before, in the same shape.
        reduction: g gives the channels of u divided by this.
    """

    def __init__(self, shape: Shape, has_previous: bool, reduction: int) -> None:
        super().__init__()
        hidden = max(1, shape[0] // reduction)
        inner: Shape = (hidden, *shape[1:])
        self.mask = nn.Sequential(
            conv1x1_or_linear(joined([shape, shape]) if has_previous else shape, hidden, bias=False),
            batch_norm(inner),
            nn.ReLU(),
            conv1x1_or_linear(inner, shape[0], bias=False),
            batch_norm(shape),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor, previous: Tensor | None = None) -> Tensor:
        """Return the attended features, in the shape of `features`."""
        seen = features if previous is None else torch.cat([features, previous], dim=1)
        found: Tensor = self.mask(seen) * features
        return found


class MTAN(MultiTaskModel):
    """One shared network; after each stage each task selects from its features by a mask of its own.

    Source: Liu, Johns & Davison, "End-to-End Multi-Task Learning with Attention" (CVPR 2019), section 3, equations 1
    and 2. With u the shared features after a stage and w what the task attended to after the stage before:
    a = sigmoid(h(g([u; f(w)]))), and the task attends to a * u, after the first stage without f(w). f is a 3x3
    convolution (a linear layer for vectors) with BatchNorm and ReLU, then resized to the stage; as in the paper, the
    tasks have it in common. The last attended features go to the head.
    The paper takes the mask from the features inside a block and puts it on those at its end; here both are a stage's
    result, as backbones show no more. Its f shrinks maps by their maxima, here by means, which fits any two sizes.
    Shared: the trunk and the f. Task's own: its attention modules and head. Size: one backbone, and per task one head
    and one attention module per stage.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the trunk; filled in from the group `backbone`.
        reduction: the hidden layer of a mask has the channels of its stage divided by this. 1 in the authors' SegNet
            and Wide ResNet, the networks of the paper; 4 in their later ResNet-50.
    """

    def __init__(self, tasks: Mapping[str, TaskLike], backbone: BackboneFactory, reduction: int = 1) -> None:
        if reduction < 1:
            raise ValueError(f"reduction must be >= 1, found {reduction}")
        super().__init__(tuple(tasks))
        self.trunk = backbone()
        shapes = self.trunk.stage_shapes
        self.passing = nn.ModuleList(
            nn.Sequential(
                conv3x3_or_linear(source, target[0], bias=False),
                batch_norm(source, target[0]),
                nn.ReLU(),
                Resize(target[1:]),
            )
            for source, target in pairwise(shapes)
        )
        self.attention = nn.ModuleDict(
            {
                task: nn.ModuleList(Attention(shape, index > 0, reduction) for index, shape in enumerate(shapes))
                for task in tasks
            }
        )
        self.heads = make_heads(tasks, shapes[-1], self.trunk.input_shape)

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested = self.requested(tasks)
        cache: StageCache = {}
        stages = [inputs]
        for index in range(len(self.trunk.stages)):
            stages.append(self.trunk.stage(index, stages[-1], cache))
        return Output({task: self.heads[task](self.attend(task, stages[1:])) for task in requested})

    def attend(self, task: str, stages: list[Tensor]) -> Tensor:
        """Return what a task attends to after the last stage.

        Args:
            task: its name.
            stages: the shared features after each stage.
        """
        modules: list[Attention] = list(self.attention[task])  # type: ignore[call-overload]
        attended: Tensor = modules[0](stages[0])
        for features, module, passing in zip(stages[1:], modules[1:], self.passing, strict=True):
            attended = module(features, passing(attended))
        return attended

    def parameter_groups(self) -> list[ParameterGroup]:
        return [
            ParameterGroup("shared", [*self.trunk.parameters(), *self.passing.parameters()]),
            *(
                ParameterGroup(task, [*self.attention[task].parameters(), *head.parameters()], task=task)
                for task, head in self.heads.items()
            ),
        ]
