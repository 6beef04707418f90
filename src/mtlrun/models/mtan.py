"""MTAN: a shared network with an attention module per task after each stage."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import Width, checked
from mtlrun.models.backbones import BackboneFactory, Shape, StageCache
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads, task_groups
from mtlrun.models.blocks.layers import Resize, batch_norm, concatenated_shape, conv1x1_or_linear, conv3x3_or_linear


class Attention(nn.Module):
    """An attention mask on a stage's features u: a * u with a = sigmoid(h(g([u; v]))), for vectors and maps.

    g is a 1x1 convolution with BatchNorm and ReLU, h a 1x1 convolution with BatchNorm; for vectors, linear layers.

    Args:
        shape: shape of one sample's features u after the stage.
        has_previous: True if there is a v: the task's attended features of the preceding stage, in the shape of u.
        reduction: g has as many output channels as u divided by this.
    """

    def __init__(self, shape: Shape, has_previous: bool, reduction: int) -> None:
        super().__init__()
        hidden = max(1, shape[0] // reduction)
        inner: Shape = (hidden, *shape[1:])
        self.mask = nn.Sequential(
            conv1x1_or_linear(concatenated_shape([shape, shape]) if has_previous else shape, hidden, bias=False),
            batch_norm(inner),
            nn.ReLU(),
            conv1x1_or_linear(inner, shape[0], bias=False),
            batch_norm(shape),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor, previous: Tensor | None = None) -> Tensor:
        """Return the attended features, in the shape of `features`."""
        mask_input = features if previous is None else torch.cat([features, previous], dim=1)
        attended: Tensor = self.mask(mask_input) * features
        return attended


class MTAN(MultiTaskModel):
    """A shared network; after each stage, each task selects from its features by an attention mask.

    Source: Liu, Johns & Davison, "End-to-End Multi-Task Learning with Attention" (CVPR 2019), section 3, equations 1
    and 2. With u the shared features after a stage and w the task's attended features of the preceding stage,
    a = sigmoid(h(g([u; f(w)]))), and the attended features are a * u; the first stage has no f(w). f is a 3x3
    convolution (a linear layer for vectors) with BatchNorm and ReLU, resized to the stage; as in the paper, all tasks
    share it. The head sees the last attended features.
    Departures: the paper computes the mask from features inside a block and applies it to those at its end; here both
    are the output of a stage, as backbones expose nothing else. The paper's f shrinks maps by max pooling; here it
    averages, which works for any two sizes.
    Shared: the backbone and the f. Per task: the attention modules and the head. Size: one backbone, and per task one
    head and one attention module per stage.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the trunk; filled in from the group `backbone`.
        reduction: a stage's channels divided by those of the hidden layer of its masks. 1 in the authors' SegNet and
            Wide ResNet, the networks of the paper; 4 in their later ResNet-50.
    """

    @checked
    def __init__(self, tasks: Mapping[str, TaskLike], backbone: BackboneFactory, reduction: Width = 1) -> None:
        super().__init__(tuple(tasks))
        self.trunk = backbone()
        shapes = self.trunk.stage_shapes
        self.transitions = nn.ModuleList(
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
            stages.append(self.trunk.run(stages[-1], cache, index, index + 1))
        return Output({task: self.heads[task](self.attend(task, stages[1:])) for task in requested})

    def attend(self, task: str, stages: list[Tensor]) -> Tensor:
        """Return a task's attended features of the last stage.

        Args:
            task: its name.
            stages: the shared features after each stage.
        """
        modules: list[Attention] = list(self.attention[task])  # type: ignore[call-overload]
        attended: Tensor = modules[0](stages[0])
        for features, module, transition in zip(stages[1:], modules[1:], self.transitions, strict=True):
            attended = module(features, transition(attended))
        return attended

    def parameter_groups(self) -> list[ParameterGroup]:
        return [
            ParameterGroup("shared", [*self.trunk.parameters(), *self.transitions.parameters()]),
            *task_groups(self.attention, self.heads),
        ]
