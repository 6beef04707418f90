"""LoRA: low-rank adaptation of a shared backbone to each task."""

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from mtlrun.config.bounds import Positive, Width, checked
from mtlrun.models.backbones import BackboneFactory
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads, task_groups
from mtlrun.models.blocks.task_trunk import TaskTrunk

#: {name of a projection in nn.MultiheadAttention: number of matrices in it}.
PROJECTIONS = {"in_proj_weight": 3, "q_proj_weight": 1, "k_proj_weight": 1, "v_proj_weight": 1}


def adaptable_weights(network: nn.Module) -> dict[str, int]:
    """Return {name of a weight that can be adapted: number of matrices that are stacked in it}."""
    adaptable = {}
    for layer, module in network.named_modules():
        prefix = f"{layer}." if layer else ""
        if isinstance(module, nn.Linear | _ConvNd):
            adaptable[f"{prefix}weight"] = 1
        elif isinstance(module, nn.MultiheadAttention):
            projections = [name for name in PROJECTIONS if getattr(module, name) is not None]
            adaptable |= {prefix + name: PROJECTIONS[name] for name in projections}
    return adaptable


class LowRank(nn.Module):
    """The low-rank update of a weight: (alpha / r) B A, initially zero (paper, equation 3).

    The weight of a convolution counts as a matrix [out, in * height * width]. Its update is equivalent to a convolution
    A of the same kernel with r outputs, followed by a 1x1 convolution B.

    Args:
        weight: the weight that is adapted.
        rank: r; at most the smaller side of the matrix is used.
        alpha: of the factor alpha / r.
        parts: number of matrices that are stacked in the weight; there is one A and one B for each.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float, parts: int = 1) -> None:
        super().__init__()
        rows, columns = weight.shape[0] // parts, prod(weight.shape[1:])
        rank = min(rank, rows, columns)
        self.scale = alpha / rank
        self.a = nn.Parameter(torch.empty(parts, rank, columns).uniform_(-1, 1) / columns**0.5)
        self.b = nn.Parameter(torch.zeros(parts, rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the adapted weight."""
        return weight + self.scale * (self.b @ self.a).view(weight.shape)


class LoRA(MultiTaskModel):
    """A shared backbone; each task adds a low-rank matrix to the weight of each layer.

    Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (ICLR 2022), equation 3:
    W_t x = W x + (alpha / r) B_t A_t x. B_t is initialized with zeros, so that the model starts as hard sharing, A_t
    uniformly like a linear layer, as in the authors' code (in the paper: normal). Departures: all linear layers,
    convolutions and attention projections of the backbone are adapted, where the paper adapts query and value; the
    product is added to the weight, so that one layer is run and not three; the backbone is trained as well, unless
    `freeze_backbone`, which is what the paper does with a pretrained one; BatchNorm statistics are separate per task.

    Shared: the backbone; nothing if it is frozen. Per task: the low-rank matrices and the head. Size: one backbone, and
    per task r (in + out) parameters for each weight of `out` x `in`, and a head. One pass per task.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the trunk; filled in from the group `backbone`.
        rank: r, >= 1. Paper: 1 to 64, mostly 4 or 8.
        alpha: of the factor alpha / r, > 0. Paper: the first r that is tried.
        freeze_backbone: train only matrices and heads, with the backbone in evaluation mode; for pretrained weights.
    """

    @checked
    def __init__(
        self,
        tasks: Mapping[str, TaskLike],
        backbone: BackboneFactory,
        rank: Width = 8,
        alpha: Positive = 8.0,
        freeze_backbone: bool = False,
    ) -> None:
        super().__init__(tuple(tasks))
        network = backbone()
        self.adapted = adaptable_weights(network)
        if not self.adapted:
            raise ValueError(
                "lora adapts linear layers, convolutions and attention, and the backbone has none of them; "
                "use model=adapters"
            )
        self.trunk = TaskTrunk(tasks, network, frozen=freeze_backbone)
        self.heads = make_heads(tasks, network.feature_shape, network.input_shape)
        self.matrices = nn.ModuleDict(
            {
                task: nn.ModuleList(
                    LowRank(network.get_parameter(name), rank, alpha, parts) for name, parts in self.adapted.items()
                )
                for task in tasks
            }
        )

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        return Output(
            {
                task: self.heads[task](self.trunk.run(task, inputs, {}, weights=self.weights(task)))
                for task in self.requested(tasks)
            }
        )

    def weights(self, task: str) -> dict[str, Tensor]:
        """Return {name in the backbone: weight with this task's update}."""
        get = self.trunk.network.get_parameter
        matrices = self.matrices[task]
        return {name: low_rank(get(name)) for name, low_rank in zip(self.adapted, matrices, strict=True)}  # type: ignore[call-overload]

    def parameter_groups(self) -> list[ParameterGroup]:
        return [
            ParameterGroup("shared", list(self.trunk.parameters())),
            *task_groups(self.matrices, self.heads),
        ]
