"""MTI-Net: tasks inform each other at several scales."""

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor, nn

from mtlrun.models.backbones import BackboneFactory, Shape, StageCache
from mtlrun.models.base import AuxiliaryPredictions, MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads
from mtlrun.models.blocks.distillation import make_branches, make_distillations, make_first_heads
from mtlrun.models.blocks.layers import Resize
from mtlrun.models.blocks.propagation import Propagation


class Scale(nn.Module):
    """First predictions and distillation at one scale.

    Args:
        tasks: {name: task}.
        shape: of the shared features at this scale.
        channels: of each task's features.
        coarser: channels of what the next coarser scale hands over per task, 0 at the coarsest.
        input_shape: of one sample.
    """

    def __init__(
        self, tasks: Mapping[str, TaskLike], shape: Shape, channels: int, coarser: int, input_shape: Shape
    ) -> None:
        super().__init__()
        self.shape: Shape = (channels, *shape[1:])
        self.fit = Resize(shape[1:])
        self.branches = make_branches(tasks, (shape[0] + coarser, *shape[1:]), channels)
        self.first_heads = make_first_heads(tasks, self.shape, input_shape)
        self.distillations = make_distillations(tuple(tasks), self.shape, "sender")

    def forward(self, shared: Tensor, handed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return each task's features before distillation.

        Args:
            shared: features of the trunk.
            handed: {task: what the next coarser scale hands over}, empty at the coarsest.
        """
        return {
            task: branch(torch.cat([shared, self.fit(handed[task])], dim=1) if handed else shared)
            for task, branch in self.branches.items()
        }


class MTINet(MultiTaskModel):
    """One trunk; the tasks inform each other at several of its scales, from coarse to fine, and all scales count.

    Source: Vandenhende, Georgoulis & Van Gool, "MTI-Net: Multi-Scale Task Interaction Networks for Multi-Task
    Learning" (ECCV 2020), section 3. At each scale a branch of two residual blocks makes each task's features from the
    trunk's and, but at the coarsest, from what the next coarser scale hands over (`Propagation`); they give a first
    prediction and are distilled between the tasks (`Distillation`, equation 1). A task's distilled features of all
    scales, brought to the size of the finest and joined, go to its head.
    The scales are stages of the backbone, one for each size of its features, of equal ones the deepest, and the last
    `scales` of these; a vector beside maps is the coarsest scale. Where all stages have one size, as in an MLP or a
    ViT, the last `scales` stages stand in, the deepest as the coarsest: the paper's idea carried over from scale to
    depth. The paper's backbones fuse their scales (HRNet, FPN); others are taken as they are.
    Shared: the trunk, all branches and propagations. Task's own: its first heads, the gates and messages of its
    distillation, and its head. Size: one backbone, and at each scale one branch and first head per task and one
    message per pair of tasks; the propagations grow with the square of K.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the trunk; filled in from the group `backbone`.
        scales: how many at most, 2 or more. Paper: 4.
        channels: of each task's features at each scale; None for those of the stage, as in the authors' code. Their
            stages have 18 to 144 (HRNet-18); with the 64 to 512 of a ResNet-18, two tasks take six times its
            parameters.
        intermediate_weight: weight of the first predictions' losses, at each scale, relative to the final ones'. 1 in
            the authors' code.
    """

    def __init__(
        self,
        tasks: Mapping[str, TaskLike],
        backbone: BackboneFactory,
        scales: int = 4,
        channels: int | None = None,
        intermediate_weight: float = 1.0,
    ) -> None:
        if scales < 2:
            raise ValueError(f"scales must be >= 2, found {scales}")
        if channels is not None and channels < 1:
            raise ValueError(f"channels must be null or >= 1, found {channels}")
        if not intermediate_weight > 0:
            raise ValueError(f"intermediate_weight must be > 0, found {intermediate_weight}")
        super().__init__(tuple(tasks))
        self.trunk = backbone()
        self.stages = pick_stages(self.trunk.stage_shapes, scales)
        self.intermediate_weight = intermediate_weight
        self.scales, coarser = nn.ModuleList(), 0
        for stage in self.stages:
            shape = self.trunk.stage_shapes[stage]
            self.scales.append(Scale(tasks, shape, channels or shape[0], coarser, self.trunk.input_shape))
            coarser = channels or shape[0]
        shapes: list[Shape] = [scale.shape for scale in self._scales]
        self.propagations = nn.ModuleList(Propagation(self.task_names, shape) for shape in shapes[:-1])
        self.fit = Resize(shapes[-1][1:])
        together = (sum(shape[0] for shape in shapes), *shapes[-1][1:])
        self.heads = make_heads(tasks, together, self.trunk.input_shape)

    @property
    def _scales(self) -> list[Scale]:
        return list(self.scales)  # type: ignore[arg-type]

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested = self.requested(tasks)
        shared = self._run_trunk(inputs)
        distilled: dict[str, list[Tensor]] = {task: [] for task in requested}
        auxiliary = []
        handed: dict[str, Tensor] = {}
        for index, scale in enumerate(self._scales):
            features = scale(shared[index], handed)
            if self.training:
                first = {task: scale.first_heads[task](features[task]) for task in requested}
                auxiliary.append(AuxiliaryPredictions(first, self.intermediate_weight))
            for task in requested:
                distilled[task].append(self.fit(scale.distillations[task](features)))
            if index < len(self.propagations):
                handed = self.propagations[index](features)
        predictions = {task: self.heads[task](torch.cat(own, dim=1)) for task, own in distilled.items()}
        return Output(predictions, auxiliary=auxiliary)

    def _run_trunk(self, inputs: Tensor) -> list[Tensor]:
        """Return the features of each scale, from the coarsest on."""
        cache: StageCache = {}
        found: dict[int, Tensor] = {}
        features = inputs
        for index in range(len(self.trunk.stages)):
            features = self.trunk.stage(index, features, cache)
            if index in self.stages:
                found[index] = features
        return [found[stage] for stage in self.stages]

    def parameter_groups(self) -> list[ParameterGroup]:
        shared: list[nn.Module] = [self.trunk, self.propagations, *(scale.branches for scale in self._scales)]
        own = [part for scale in self._scales for part in (scale.first_heads, scale.distillations)] + [self.heads]
        return [
            ParameterGroup("shared", [parameter for module in shared for parameter in module.parameters()]),
            *(
                ParameterGroup(task, [p for modules in own for p in modules[task].parameters()], task=task)
                for task in self.task_names
            ),
        ]


def pick_stages(shapes: Sequence[Shape], count: int) -> list[int]:
    """Return which stages serve as scales, from the coarsest on; ValueError if there are fewer than two.

    Args:
        shapes: of one sample's features after each stage.
        count: how many at most.
    """
    deepest = {shape[1:]: index for index, shape in enumerate(shapes)}
    candidates = sorted(deepest.values()) if len(deepest) > 1 else list(range(len(shapes)))
    if len(candidates) < 2:
        raise ValueError(
            f"mti_net needs a backbone of two or more stages, found {len(candidates)}; "
            "use a backbone with more, or model=pad_net, which needs one"
        )
    return sorted(candidates[-count:], key=lambda index: (prod(shapes[index][1:] or (0,)), -index))
