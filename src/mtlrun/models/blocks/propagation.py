"""Feature propagation from one scale of MTI-Net to the next finer one."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtlrun.models.backbones import Shape
from mtlrun.models.blocks.distillation import ResidualBlock
from mtlrun.models.blocks.layers import concatenated_shape, conv1x1_or_linear, per_channel, pool


class SqueezeExcitation(nn.Module):
    """A reweighting of the channels by sigmoid(MLP(mean over all positions)).

    Source: Hu et al., "Squeeze-and-Excitation Networks" (CVPR 2018), with their reduction of 16 in the hidden layer.
    Departure: the hidden layer has at least 16 units, since a few ReLU units may all be dead from the start.

    Args:
        channels: of the features, vectors or maps.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(16, channels // 16)
        self.gate = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, features: Tensor) -> Tensor:
        return per_channel(self.gate(pool(features)), features)


class Propagation(nn.Module):
    """The features passed on to the next finer scale: F_k + SE_k(shared), with shared = r([m_1 * F_1; ...; m_K * F_K]).

    The masks m = softmax over the tasks of f([F_1; ...; F_K]) weight the tasks for each channel and position;
    f is two residual blocks and a 1x1 convolution, r a residual block.

    Args:
        tasks: their names.
        shape: shape of one sample's features, the same for each task.
    """

    def __init__(self, tasks: Sequence[str], shape: Shape) -> None:
        super().__init__()
        concatenated = concatenated_shape([shape] * len(tasks))
        reduced: Shape = (max(1, concatenated[0] // 4), *shape[1:])
        self.mask: nn.Module | None = None  # the softmax over one task is 1
        if len(tasks) > 1:
            self.mask = nn.Sequential(
                ResidualBlock(concatenated, reduced[0]),
                ResidualBlock(reduced, reduced[0]),
                conv1x1_or_linear(reduced, concatenated[0]),
            )
        self.reduce = ResidualBlock(concatenated, shape[0])
        self.excite = nn.ModuleDict({task: SqueezeExcitation(shape[0]) for task in tasks})

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map {task: features} to {task: features passed on}, in the same shape."""
        concatenated = torch.cat(list(features.values()), dim=1)
        if self.mask is not None:
            masks = self.mask(concatenated).unflatten(1, (len(features), -1)).softmax(dim=1)
            concatenated = masks.flatten(1, 2) * concatenated
        shared = self.reduce(concatenated)
        return {task: task_features + self.excite[task](shared) for task, task_features in features.items()}
