"""NDDR-CNN: one network per task, with neural discriminative dimensionality reduction between the stages."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import Fraction, Positive, checked
from mtlrun.models.backbones import BackboneFactory, Shape
from mtlrun.models.base import MixesNetworks, MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads
from mtlrun.models.blocks.layers import Resize, batch_norm, concatenated_shape, conv1x1_or_linear
from mtlrun.models.blocks.parallel_backbones import ParallelBackbones, one_of

# For `unit_lr_scale=auto`: that of the paper, and what docs/benchmarks.md has measured for Adam.
_SGD_LR_SCALE, _ADAPTIVE_LR_SCALE = 100.0, 1.0


class NDDRLayer(nn.ModuleDict):
    """One reduction per task from the concatenated features of all tasks to the channels of one task.

    A reduction is a 1x1 convolution (for vectors, a linear layer) without bias, BatchNorm and ReLU. Initially it is a
    weighted mean of the same channel of all tasks.

    Args:
        tasks: their names.
        shape: shape of one sample's features in one network.
        self_weight: initial weight of the task's features; 1 - self_weight is divided equally among the others.
    """

    def __init__(self, tasks: tuple[str, ...], shape: Shape, self_weight: float) -> None:
        super().__init__({task: _reduction(concatenated_shape([shape] * len(tasks)), shape) for task in tasks})
        others = (1 - self_weight) / (len(tasks) - 1)
        identity = torch.eye(shape[0])
        for task in tasks:
            blocks = [identity * (self_weight if other == task else others) for other in tasks]
            weight: nn.Parameter = self[task][0].weight  # type: ignore[index]
            with torch.no_grad():
                weight.copy_(torch.cat(blocks, dim=1).view_as(weight))

    def forward(self, features: list[Tensor], tasks: Sequence[str] | None = None) -> list[Tensor]:
        """Map K tensors [batch, channels, ...] to one of the same shape for each of `tasks`; for all if None."""
        concatenated = torch.cat(features, dim=1)
        return [self[task](concatenated) for task in (self if tasks is None else tasks)]


class NDDR(MultiTaskModel, MixesNetworks):
    """One network per task; after each stage, its features become a learned reduction of all networks' features.

    Source: Gao et al., "NDDR-CNN: Layerwise Feature Fusing in Multi-Task CNNs by Neural Discriminative Dimensionality
    Reduction" (CVPR 2019). The paper's weight decay on the reductions is left to the optimizer. Backbones start from
    different random weights or from `init_from` (the paper: from networks trained on one task each, or on ImageNet).
    The paper has two tasks; with K, the rest of the initial weight is divided equally among the other K - 1. A single
    task has nothing to fuse and is the plain network. Shared: all backbones, and all NDDR layers but the last. Per
    task: the reduction in the last NDDR layer, that of the shortcut, and the head. Size: one backbone and one head per
    task; an NDDR layer on C channels has K² C² weights.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the networks; filled in from the group `backbone`.
        self_weight: initial weight of a network's features in their reduction, in [0, 1]; the rest is divided equally
            among the others. Paper: .9.
        shortcut: NDDR-CNN-Shortcut: the head sees a reduction, of the same kind, of the task's features after all NDDR
            layers, resized to the last stage. A variant in the paper.
        unit_lr_scale: learning rate of the reductions as a multiple of `optimizer.lr`; `auto` for the paper's 100 under
            `torch.optim.SGD`, and for 1 under any other optimizer: Adam's steps are as long as the learning rate, so
            that the first one, with 100, would leave nothing of the initial weights.
        init_from: folder of a run of model=single whose networks these start from; None for random weights.
    """

    @checked
    def __init__(
        self,
        tasks: Mapping[str, TaskLike],
        backbone: BackboneFactory,
        self_weight: Fraction = 0.9,
        shortcut: bool = False,
        unit_lr_scale: Positive | Literal["auto"] = "auto",
        init_from: str | None = None,
    ) -> None:
        super().__init__(tuple(tasks))
        self.init_from = init_from
        self.backbones = ParallelBackbones(tasks, backbone)
        shapes = one_of(self.backbones).stage_shapes
        self.layers = nn.ModuleList()
        if len(tasks) > 1:
            self.layers.extend(NDDRLayer(self.task_names, shape, self_weight) for shape in shapes)
        self.shortcuts = nn.ModuleDict()
        if shortcut:
            last = shapes[-1]
            self.resize = Resize(last[1:])
            concatenated = concatenated_shape([(shape[0], *last[1:]) for shape in shapes])
            self.shortcuts.update({task: _reduction(concatenated, last) for task in tasks})
            for reduction in self.shortcuts.values():
                nn.init.xavier_uniform_(reduction[0].weight)  # type: ignore[index]
        self.heads = make_heads(tasks, shapes[-1], one_of(self.backbones).input_shape)
        self.unit_lr_scale = _SGD_LR_SCALE if unit_lr_scale == "auto" else unit_lr_scale
        self.adaptive_unit_lr_scale = _ADAPTIVE_LR_SCALE if unit_lr_scale == "auto" else None

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested = self.requested(tasks)
        stages: list[dict[str, Tensor]] = []  # the tasks' features after each stage

        def fuse(index: int, features: list[Tensor]) -> list[Tensor]:
            names = requested if index == len(self.layers) - 1 else self.task_names
            if self.layers:
                features = self.layers[index](features, names)
            stages.append(dict(zip(names, features, strict=True)))
            return features

        self.backbones(inputs, fuse)
        features = stages[-1]
        if self.shortcuts:
            features = {
                task: self.shortcuts[task](torch.cat([self.resize(stage[task]) for stage in stages], dim=1))
                for task in requested
            }
        return Output({task: self.heads[task](features[task]) for task in requested})

    def mixing(self) -> Tensor:
        num_tasks = len(self.task_names)
        if not self.layers:
            return torch.ones(1, 1, 1)
        weights = [[layer[task][0].weight for task in self.task_names] for layer in self.layers]  # type: ignore[index]
        sizes = [[w.abs().sum(dim=0).view(num_tasks, -1).sum(dim=1) for w in of_layer] for of_layer in weights]
        fractions = torch.stack([torch.stack(of_layer) for of_layer in sizes])
        return fractions / fractions.sum(dim=-1, keepdim=True)

    def parameter_groups(self) -> list[ParameterGroup]:
        groups = [ParameterGroup("shared", list(self.backbones.parameters()))]
        scales: dict[str, Any] = {"lr_scale": self.unit_lr_scale, "adaptive_lr_scale": self.adaptive_unit_lr_scale}
        if len(self.layers) > 1:
            groups.append(ParameterGroup("nddr", list(self.layers[:-1].parameters()), **scales))
        for task in self.task_names:
            units = [modules[task] for modules in (*self.layers[-1:], self.shortcuts) if task in modules]
            parameters = [parameter for unit in units for parameter in unit.parameters()]
            if parameters:
                groups.append(ParameterGroup(f"nddr_{task}", parameters, task=task, **scales))
            groups.append(ParameterGroup(task, list(self.heads[task].parameters()), task=task))
        return groups


def _reduction(source: Shape, target: Shape) -> nn.Sequential:
    """Return a reduction from the channels of `source` to those of `target` at each position."""
    return nn.Sequential(conv1x1_or_linear(source, target[0], bias=False), batch_norm(target), nn.ReLU())
