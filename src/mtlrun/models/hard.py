"""Hard parameter sharing: one backbone, and one head or branch per task."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import Parts, checked
from mtlrun.models.backbones import Backbone, BackboneFactory, StageCache
from mtlrun.models.base import (
    CutsTrunk,
    Output,
    ParameterGroup,
    SharedRepresentationModel,
    TaskLike,
    make_heads,
    task_groups,
)
from mtlrun.models.blocks.layers import is_map


class HardSharing(CutsTrunk, SharedRepresentationModel):
    """A backbone whose first stages all tasks share, with one branch per task for the remaining stages and the head.

    Source: Caruana, "Multitask Learning: A Knowledge-Based Source of Inductive Bias" (ICML 1993).
    Shared: the first stages. Per task: the other stages, with separate initial weights, and the head. Size: one
    backbone and one head per task, and for each further task the stages that are not shared.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the trunk; filled in from the group `backbone`.
        shared_stages: number of stages that are shared, from the first; None for all, so that only heads are per task.
    """

    rotations: Tensor | None

    @checked
    def __init__(
        self, tasks: Mapping[str, TaskLike], backbone: BackboneFactory, shared_stages: Parts | None = None
    ) -> None:
        super().__init__(tuple(tasks))
        trunk = backbone()
        shapes = trunk.stage_shapes
        shared_stages = len(shapes) if shared_stages is None else shared_stages
        if shared_stages > len(shapes):
            raise ValueError(
                f"shared_stages must be null or in 1..{len(shapes)}, the stages of the backbone, found {shared_stages}"
            )
        self.shared_stages = shared_stages
        self.branches = nn.ModuleDict()
        if shared_stages < len(shapes):
            self.branches = nn.ModuleDict({task: _without(backbone(), range(shared_stages)) for task in tasks})
        self.trunk = _without(trunk, range(shared_stages, len(shapes)))
        self.heads = make_heads(tasks, shapes[-1], trunk.input_shape)
        self._representation_shape = shapes[shared_stages - 1]
        self.register_buffer("rotations", None)

    def encode(
        self, inputs: Tensor, cache: StageCache | None = None, cuts: list[Tensor | None] | None = None
    ) -> Tensor:
        return self.trunk.run(inputs, {} if cache is None else cache, stop=self.shared_stages, cuts=cuts)

    def decode(
        self, representation: Tensor, tasks: Sequence[str] | None = None, cache: StageCache | None = None
    ) -> dict[str, Tensor]:
        predictions = {}
        for task in self.requested(tasks):
            features = representation
            if self.rotations is not None:
                features = _rotate(features, self.rotations[self.task_names.index(task)].to(features.dtype))
            if task in self.branches:
                branch = self.branches[task]
                features = branch.run(features, dict(cache or {}), start=self.shared_stages)  # type: ignore[operator]
            predictions[task] = self.heads[task](features)
        return predictions

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        cache: StageCache = {}
        cuts: list[Tensor | None] | None = [] if self.cuts_trunk and self.training else None
        # Subclasses may have an `encode` that cuts nothing.
        representation = self.encode(inputs, cache) if cuts is None else self.encode(inputs, cache, cuts)
        output = self.output(representation, partial(self.decode, tasks=self.requested(tasks), cache=cache))
        return replace(output, cuts=[*cuts[:-1], output.representation]) if cuts else output

    def link_parameters(self) -> list[list[nn.Parameter]]:
        links = [link for index in range(self.shared_stages) for link in self.trunk.links(index)]
        return [[each for module in link for each in module.parameters() if each.requires_grad] for link in links]

    def add_rotations(self) -> Tensor:
        like = next(self.trunk.parameters())
        # In float32 at least: half precision has no room for the small angle of a step.
        dtype = torch.promote_types(like.dtype, torch.float32)
        identity = torch.eye(self._representation_shape[0], dtype=dtype, device=like.device)
        self.rotations = identity.repeat(len(self.heads), 1, 1)
        return self.rotations

    def parameter_groups(self) -> list[ParameterGroup]:
        return [
            ParameterGroup("shared", list(self.trunk.parameters())),
            *task_groups(self.branches, self.heads),
        ]


def _without(network: Backbone, stages: range) -> Backbone:
    """Remove the parameters of these stages from a network that will not run them."""
    shapes = network.stage_shapes  # cached while all stages exist
    for index in stages:
        network.stages[index] = nn.Identity()
    assert network.stage_shapes == shapes
    return network


def _rotate(features: Tensor, rotation: Tensor) -> Tensor:
    """Return vectors or maps with their channels multiplied by a rotation [d, d]."""
    if is_map(features.shape[1:]):
        return torch.einsum("bc...,dc->bd...", features, rotation)
    return features @ rotation.mT
