"""Late fusion: networks that were trained for one task each, and heads on the features of all of them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtlrun.models.backbones import BackboneFactory
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads, task_groups


class Concat(MultiTaskModel):
    """One network per task; each head sees the concatenated features of all networks.

    Made for training in two stages: the networks are trained apart, by a run of model=single, and then heads on all of
    their features, with the networks as they are or trained further. Misra et al., "Cross-stitch Networks for
    Multi-task Learning" (CVPR 2016), start from networks trained apart as well, and mix them by learned weights.

    Shared: all backbones; nothing if they are frozen. Per task: the head. Size: one backbone per task, and heads on K
    times as many features.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the networks; filled in from the group `backbone`.
        freeze: train only the heads, with the networks in evaluation mode.
        init_from: folder of a run of model=single whose networks these are; `auto` for the run of model=single with the
            other keys of this one, which is trained first if it is not finished; None for random weights.
    """

    def __init__(
        self,
        tasks: Mapping[str, TaskLike],
        backbone: BackboneFactory,
        freeze: bool = True,
        init_from: str | None = "auto",
    ) -> None:
        super().__init__(tuple(tasks))
        self.init_from = init_from
        self.freeze = freeze
        self.backbones = nn.ModuleDict({task: backbone() for task in tasks})
        first = next(iter(self.backbones.values()))
        channels, *size = first.feature_shape  # type: ignore[misc]
        self.heads = make_heads(tasks, (len(tasks) * channels, *size), first.input_shape)  # type: ignore[arg-type]
        if freeze:
            self.backbones.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Concat":
        super().train(mode)
        if self.freeze:
            self.backbones.eval()
        return self

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        features = torch.cat([backbone(inputs) for backbone in self.backbones.values()], dim=1)
        return Output({task: self.heads[task](features) for task in self.requested(tasks)})

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup("shared", list(self.backbones.parameters())), *task_groups(self.heads)]
