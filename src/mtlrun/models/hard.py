"""Hard parameter sharing."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mtlrun.models.backbones import BackboneFactory
from mtlrun.models.base import ParameterGroup, SharedRepresentationModel, TaskLike, head_groups, make_heads


class HardSharing(SharedRepresentationModel):
    """One trunk for all tasks, one head per task.

    Source: Caruana, "Multitask Learning: A Knowledge-Based Source of Inductive Bias" (ICML 1993).
    Shared: the trunk. Task's own: its head. Size: one backbone, and one head per task.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the trunk; filled in from the group `backbone`.
    """

    rotations: Tensor | None

    def __init__(self, tasks: Mapping[str, TaskLike], backbone: BackboneFactory) -> None:
        super().__init__(tuple(tasks))
        self.trunk = backbone()
        self.heads = make_heads(tasks, self.trunk.num_features)
        self.register_buffer("rotations", None)

    def encode(self, inputs: Tensor) -> Tensor:
        features: Tensor = self.trunk(inputs)
        return features

    def decode(self, representation: Tensor) -> dict[str, Tensor]:
        if self.rotations is None:
            return {task: head(representation) for task, head in self.heads.items()}
        views = (representation @ rotation.mT for rotation in self.rotations)
        return {task: head(view) for (task, head), view in zip(self.heads.items(), views, strict=True)}

    def add_rotations(self) -> Tensor:
        like = next(self.trunk.parameters())
        identity = torch.eye(self.trunk.num_features, dtype=like.dtype, device=like.device)
        self.rotations = identity.repeat(len(self.heads), 1, 1)
        return self.rotations

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup("shared", list(self.trunk.parameters())), *head_groups(self.heads)]
