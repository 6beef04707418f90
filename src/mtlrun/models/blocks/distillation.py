"""Parts of PAD-Net and MTI-Net: task branches, heads of auxiliary predictions, and distillation between tasks."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mtlrun.models.backbones import Shape
from mtlrun.models.base import TaskLike, make_head, output_shape
from mtlrun.models.blocks.layers import batch_norm, conv1x1_or_linear, conv3x3_or_linear
from mtlrun.models.heads import ConvHead


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm and ReLU, and a skip connection; for vectors, linear layers.

    Source: He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016), the basic block.

    Args:
        shape: shape of one sample's features.
        out_channels: channels of the result; if they differ, the skip is a 1x1 convolution with BatchNorm.
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
        output: Tensor = torch.relu(self.body(features) + self.skip(features))
        return output


def make_branches(tasks: Mapping[str, TaskLike], shape: Shape, channels: int) -> nn.ModuleDict:
    """Return two residual blocks per task, which turn shared features of this shape into task features."""
    return nn.ModuleDict(
        {
            task: nn.Sequential(ResidualBlock(shape, channels), ResidualBlock((channels, *shape[1:]), channels))
            for task in tasks
        }
    )


def make_auxiliary_heads(tasks: Mapping[str, TaskLike], shape: Shape, input_shape: Shape) -> nn.ModuleDict:
    """Return one head per task for auxiliary predictions: the one that the task configures, or a linear head.

    The linear head of a dense task is a 1x1 convolution.
    """
    return nn.ModuleDict(
        {
            name: ConvHead(shape, output_shape(task, input_shape), hidden=())
            if task.dense and task.head is None
            else make_head(task, shape, input_shape)
            for name, task in tasks.items()
        }
    )


class Distillation(nn.Module):
    """Messages from the other tasks' features, added through gates to the features F_k of one task.

    receiver: o_k = F_k + sum_{t != k} sigmoid(G_k F_k) * (W_kt F_t), PAD-Net, section 3.3, module C
    sender: o_k = F_k + sum_{t != k} sigmoid(G_kt F_t) * (W_kt F_t), MTI-Net, equation 1

    G and W are 3x3 convolutions without bias; for vectors, linear layers. All of them are specific to task k.

    Args:
        task: k.
        tasks: the names of all tasks.
        shape: shape of one sample's features, the same for each task.
        gate: whose features open the gates.
    """

    def __init__(self, task: str, tasks: Sequence[str], shape: Shape, gate: Literal["receiver", "sender"]) -> None:
        super().__init__()
        self.task = task
        self.gate = gate
        others = [other for other in tasks if other != task]
        gating = [task] if gate == "receiver" and others else others
        self.gates = nn.ModuleDict({name: conv3x3_or_linear(shape, shape[0], bias=False) for name in gating})
        self.messages = nn.ModuleDict({other: conv3x3_or_linear(shape, shape[0], bias=False) for other in others})

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Map {task: features} to the distilled features of this task, in the same shape."""
        distilled = features[self.task]
        gates = {name: gate(features[name]).sigmoid() for name, gate in self.gates.items()}
        for other, message in self.messages.items():
            gating = self.task if self.gate == "receiver" else other
            distilled = distilled + gates[gating] * message(features[other])
        return distilled


def make_distillations(tasks: Sequence[str], shape: Shape, gate: Literal["receiver", "sender"]) -> nn.ModuleDict:
    """Return a `Distillation` for each task."""
    return nn.ModuleDict({task: Distillation(task, tasks, shape, gate) for task in tasks})
