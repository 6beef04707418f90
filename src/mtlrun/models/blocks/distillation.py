"""What PAD-Net and MTI-Net are made of: first predictions of each task, whose features then inform the other tasks."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mtlrun.models.backbones import Shape
from mtlrun.models.base import TaskLike, make_head, output_shape
from mtlrun.models.blocks.layers import batch_norm, conv1x1_or_linear, conv3x3_or_linear
from mtlrun.models.heads import ConvHead


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm and ReLU around a skip; for vectors, linear layers.

    Source: He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016), the basic block.

    Args:
        shape: of one sample's features.
        out_channels: of the result; the skip is a 1x1 convolution with BatchNorm where they are others.
    """

    def __init__(self, shape: Shape, out_channels: int) -> None:
        super().__init__()
        inner: Shape = (out_channels, *shape[1:])
        self.body = nn.Sequential(
            conv3x3_or_linear(shape, out_channels, bias=False),
            batch_norm(inner),
            nn.ReLU(),
            conv3x3_or_linear(inner, out_channels, bias=False),
            batch_norm(inner),
        )
        self.skip: nn.Module = nn.Identity()
        if out_channels != shape[0]:
            self.skip = nn.Sequential(conv1x1_or_linear(shape, out_channels, bias=False), batch_norm(inner))

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = torch.relu(self.body(features) + self.skip(features))
        return found


def make_branches(tasks: Mapping[str, TaskLike], shape: Shape, channels: int) -> nn.ModuleDict:
    """Return two residual blocks per task, which turn shared features of this shape into the task's own."""
    return nn.ModuleDict(
        {
            task: nn.Sequential(ResidualBlock(shape, channels), ResidualBlock((channels, *shape[1:]), channels))
            for task in tasks
        }
    )


def make_first_heads(tasks: Mapping[str, TaskLike], shape: Shape, input_shape: Shape) -> nn.ModuleDict:
    """Return one head per task for predictions on the way: the task's own choice, or one linear map at each place."""
    return nn.ModuleDict(
        {
            name: ConvHead(shape, output_shape(task, input_shape), hidden=())
            if task.dense and task.head is None
            else make_head(task, shape, input_shape)
            for name, task in tasks.items()
        }
    )


class Distillation(nn.Module):
    """Adds to one task's features F_k what those of the other tasks tell it, through gates.

    receiver: o_k = F_k + sum_{t != k} sigmoid(G_k F_k) * (W_kt F_t), PAD-Net, section 3.3, module C
    sender: o_k = F_k + sum_{t != k} sigmoid(G_kt F_t) * (W_kt F_t), MTI-Net, equation 1

    G and W are 3x3 convolutions without bias; for vectors, linear layers. All belong to task k alone.

    Args:
        task: k.
        tasks: the names of all tasks.
        shape: of one sample's features, the same for each task.
        gate: whose features open the gates.
    """

    def __init__(self, task: str, tasks: Sequence[str], shape: Shape, gate: Literal["receiver", "sender"]) -> None:
        super().__init__()
        self.task = task
        self.gate = gate
        others = [other for other in tasks if other != task]
        looks = [task] if gate == "receiver" and others else others
        self.gates = nn.ModuleDict({name: conv3x3_or_linear(shape, shape[0], bias=False) for name in looks})
        self.messages = nn.ModuleDict({other: conv3x3_or_linear(shape, shape[0], bias=False) for other in others})

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Map {task: features} to this task's, in the same shape."""
        found = features[self.task]
        opened = {name: gate(features[name]).sigmoid() for name, gate in self.gates.items()}
        for other, message in self.messages.items():
            looked = self.task if self.gate == "receiver" else other
            found = found + opened[looked] * message(features[other])
        return found


def make_distillations(tasks: Sequence[str], shape: Shape, gate: Literal["receiver", "sender"]) -> nn.ModuleDict:
    """Return a `Distillation` for each task."""
    return nn.ModuleDict({task: Distillation(task, tasks, shape, gate) for task in tasks})
