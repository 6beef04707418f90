"""MTI-Net: distillation between tasks at several scales."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Annotated

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import Bounds, Positive, Width, checked
from mtlrun.models.backbones import BackboneFactory, Shape, StageCache
from mtlrun.models.base import (
    AuxiliaryPredictions,
    MultiTaskModel,
    Output,
    ParameterGroup,
    TaskLike,
    make_heads,
    task_groups,
)
from mtlrun.models.blocks.distillation import make_auxiliary_heads, make_branches, make_distillations
from mtlrun.models.blocks.layers import Resize
from mtlrun.models.blocks.propagation import Propagation


class Scale(nn.Module):
    """Task features, auxiliary predictions and distillation at one scale.

    Args:
        tasks: {name: task}.
        shape: shape of one sample's shared features at this scale.
        channels: of each task's features.
        coarser: channels of the features propagated from the next coarser scale for each task, 0 at the coarsest.
        input_shape: shape of one sample.
    """

    def __init__(
        self, tasks: Mapping[str, TaskLike], shape: Shape, channels: int, coarser: int, input_shape: Shape
    ) -> None:
        super().__init__()
        self.shape: Shape = (channels, *shape[1:])
        self.resize = Resize(shape[1:])
        self.branches = make_branches(tasks, (shape[0] + coarser, *shape[1:]), channels)
        self.auxiliary_heads = make_auxiliary_heads(tasks, self.shape, input_shape)
        self.distillations = make_distillations(tuple(tasks), self.shape, "sender")

    def forward(self, shared: Tensor, propagated: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return each task's features before distillation.

        Args:
            shared: features of the trunk at this scale.
            propagated: {task: features from the next coarser scale}, empty at the coarsest.
        """
        return {
            task: branch(torch.cat([shared, self.resize(propagated[task])], dim=1) if propagated else shared)
            for task, branch in self.branches.items()
        }


class MTINet(MultiTaskModel):
    """A shared backbone with distillation between the tasks at several of its scales, from coarse to fine.

    Source: Vandenhende, Georgoulis & Van Gool, "MTI-Net: Multi-Scale Task Interaction Networks for Multi-Task
    Learning" (ECCV 2020), section 3. At each scale, a branch of two residual blocks computes each task's features from
    the backbone's and, except at the coarsest, from those propagated from the next coarser scale (`Propagation`). An
    auxiliary prediction is made from them, and they are distilled between the tasks (`Distillation`, equation 1). A
    task's distilled features of all scales are resized to the finest, concatenated, and passed to its head.
    The scales are stages of the backbone: for each size of features the deepest stage, and the last `num_scales` of
    these; if one stage returns a vector, it is the coarsest scale. If all stages have one size, as in an MLP or a ViT,
    the last `num_scales` stages are used, the deepest as the coarsest: the paper's idea, with depth in place of scale.
    The paper's backbones fuse their scales (HRNet, FPN); other backbones are used as they are.
    Shared: the backbone, all branches and propagations. Per task: the auxiliary heads, the gates and messages of its
    distillation, and the head. Size: one backbone, and at each scale one branch and auxiliary head per task and one
    message per pair of tasks; the propagations grow with K^2.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the trunk; filled in from the group `backbone`.
        num_scales: largest number of scales, >= 2. Paper: 4.
        channels: of each task's features at each scale; None for those of the stage, as in the authors' code. Their
            stages have 18 to 144 (HRNet-18); with the 64 to 512 of a ResNet-18, a model for two tasks has six times
            its parameters.
        auxiliary_weight: factor of the auxiliary predictions' losses, at each scale, > 0. Authors' code: 1.
    """

    @checked
    def __init__(
        self,
        tasks: Mapping[str, TaskLike],
        backbone: BackboneFactory,
        num_scales: Annotated[int, Bounds(2, 100, limit=True)] = 4,
        channels: Width | None = None,
        auxiliary_weight: Positive = 1.0,
    ) -> None:
        super().__init__(tuple(tasks))
        self.trunk = backbone()
        self.stages = pick_stages(self.trunk.stage_shapes, num_scales)
        self.auxiliary_weight = auxiliary_weight
        self.scales, coarser = nn.ModuleList(), 0
        for stage in self.stages:
            shape = self.trunk.stage_shapes[stage]
            self.scales.append(Scale(tasks, shape, channels or shape[0], coarser, self.trunk.input_shape))
            coarser = channels or shape[0]
        shapes: list[Shape] = [scale.shape for scale in self._scales]
        self.propagations = nn.ModuleList(Propagation(self.task_names, shape) for shape in shapes[:-1])
        self.resize = Resize(shapes[-1][1:])
        concatenated = (sum(shape[0] for shape in shapes), *shapes[-1][1:])
        self.heads = make_heads(tasks, concatenated, self.trunk.input_shape)

    @property
    def _scales(self) -> list[Scale]:
        return list(self.scales)  # type: ignore[arg-type]

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested = self.requested(tasks)
        shared = self._run_trunk(inputs)
        distilled: dict[str, list[Tensor]] = {task: [] for task in requested}
        auxiliary = []
        propagated: dict[str, Tensor] = {}
        for index, scale in enumerate(self._scales):
            features = scale(shared[index], propagated)
            if self.training:
                predictions = {task: scale.auxiliary_heads[task](features[task]) for task in requested}
                auxiliary.append(AuxiliaryPredictions(predictions, self.auxiliary_weight))
            for task in requested:
                distilled[task].append(self.resize(scale.distillations[task](features)))
            if index < len(self.propagations):
                propagated = self.propagations[index](features)
        predictions = {task: self.heads[task](torch.cat(scales, dim=1)) for task, scales in distilled.items()}
        return Output(predictions, auxiliary=auxiliary)

    def _run_trunk(self, inputs: Tensor) -> list[Tensor]:
        """Return the features of each scale, coarsest first."""
        cache: StageCache = {}
        outputs: dict[int, Tensor] = {}
        features = inputs
        for index in range(len(self.trunk.stages)):
            features = self.trunk.run(features, cache, index, index + 1)
            if index in self.stages:
                outputs[index] = features
        return [outputs[stage] for stage in self.stages]

    def parameter_groups(self) -> list[ParameterGroup]:
        shared: list[nn.Module] = [self.trunk, self.propagations, *(scale.branches for scale in self._scales)]
        per_task = [modules for scale in self._scales for modules in (scale.auxiliary_heads, scale.distillations)]
        return [
            ParameterGroup("shared", [parameter for module in shared for parameter in module.parameters()]),
            *task_groups(*per_task, self.heads),
        ]


def pick_stages(shapes: Sequence[Shape], count: int) -> list[int]:
    """Return the indices of the stages that serve as scales, coarsest first; ValueError if there are fewer than two.

    Args:
        shapes: shape of one sample's features after each stage.
        count: largest number of scales.
    """
    deepest = {shape[1:]: index for index, shape in enumerate(shapes)}
    candidates = sorted(deepest.values()) if len(deepest) > 1 else list(range(len(shapes)))
    if len(candidates) < 2:
        raise ValueError(
            f"mti_net needs a backbone of two or more stages, found {len(candidates)}; "
            "use a backbone with more, or model=pad_net, which needs one"
        )
    return sorted(candidates[-count:], key=lambda index: (prod(shapes[index][1:] or (0,)), -index))
