"""What MTI-Net hands from one scale to the next."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtlrun.models.backbones import Shape
from mtlrun.models.blocks.distillation import ResidualBlock
from mtlrun.models.blocks.layers import conv1x1_or_linear, joined, pool


class SqueezeExcitation(nn.Module):
    """Weights each channel by sigmoid(MLP(mean over all places)).

    Source: Hu et al., "Squeeze-and-Excitation Networks" (CVPR 2018), with their reduction of 16 in the hidden layer,
    which has 16 units or more here: with a few only, all may be dead from the start.

    Args:
        channels: of the features, vectors or maps.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(16, channels // 16)
        self.gate = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, features: Tensor) -> Tensor:
        weights: Tensor = self.gate(pool(features))
        return weights.view(*weights.shape, *(1,) * (features.dim() - 2)) * features


class Propagation(nn.Module):
    """What a scale hands to the next finer one: F_k + SE_k(shared), with shared = r([m_1 * F_1; ...; m_K * F_K]).

    The masks m = softmax over the tasks of f([F_1; ...; F_K]) say, for each channel and place, whose features count;
    f is two residual blocks and a 1x1 convolution, r a residual block.

    Args:
        tasks: names.
        shape: of one sample's features, the same for each task.
    """

    def __init__(self, tasks: Sequence[str], shape: Shape) -> None:
        super().__init__()
        every = joined([shape] * len(tasks))
        fewer: Shape = (max(1, every[0] // 4), *shape[1:])
        self.mask: nn.Module | None = None  # the softmax over one task is 1
        if len(tasks) > 1:
            self.mask = nn.Sequential(
                ResidualBlock(every, fewer[0]), ResidualBlock(fewer, fewer[0]), conv1x1_or_linear(fewer, every[0])
            )
        self.reduce = ResidualBlock(every, shape[0])
        self.excite = nn.ModuleDict({task: SqueezeExcitation(shape[0]) for task in tasks})

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map {task: features} to what is propagated for each task, in the same shape."""
        together = torch.cat(list(features.values()), dim=1)
        if self.mask is not None:
            masks = self.mask(together).unflatten(1, (len(features), -1)).softmax(dim=1)
            together = masks.flatten(1, 2) * together
        shared = self.reduce(together)
        return {task: own + self.excite[task](shared) for task, own in features.items()}
