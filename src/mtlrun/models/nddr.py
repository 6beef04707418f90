"""NDDR-CNN: neural discriminative dimensionality reduction."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtlrun.models.backbones import BackboneFactory, Shape
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads
from mtlrun.models.blocks.layers import Resize, batch_norm, conv1x1_or_linear, joined
from mtlrun.models.blocks.parallel_backbones import ParallelBackbones


class NDDRLayer(nn.ModuleDict):
    """Reduces the joined features of all tasks to as many channels as one task has, once for each task.

    A 1x1 convolution (for vectors, a linear layer) without bias, BatchNorm, ReLU. It starts as a weighted mean of the
    same channel in all tasks.

    Args:
        tasks: names of the tasks.
        shape: of one sample's features in one network.
        self_weight: initial weight of the task's own features; those of the others share 1 - self_weight.
    """

    def __init__(self, tasks: tuple[str, ...], shape: Shape, self_weight: float) -> None:
        super().__init__({task: _reduction(joined([shape] * len(tasks)), shape) for task in tasks})
        others = (1 - self_weight) / (len(tasks) - 1)
        identity = torch.eye(shape[0])
        for task in tasks:
            blocks = [identity * (self_weight if other == task else others) for other in tasks]
            weight: nn.Parameter = self[task][0].weight  # type: ignore[index]
            with torch.no_grad():
                weight.copy_(torch.cat(blocks, dim=1).view_as(weight))

    def forward(self, features: list[Tensor], tasks: Sequence[str] | None = None) -> list[Tensor]:
        """Map K tensors [batch, channels, ...] to one of the same shape for each of `tasks`, for all if None."""
        whole = torch.cat(features, dim=1)
        return [self[task](whole) for task in (self if tasks is None else tasks)]


class NDDR(MultiTaskModel):
    """K networks; after each stage each of them goes on with a learned reduction of the joined features of all.

    Source: Gao et al., "NDDR-CNN: Layerwise Feature Fusing in Multi-Task CNNs by Neural Discriminative Dimensionality
    Reduction" (CVPR 2019). Its weight decay on the reductions is the optimizer's. Each backbone starts from
    random weights of its own (the paper starts from networks trained on one task each, or on ImageNet). The paper has
    two tasks; with K, the other K - 1 share what is left of the initial weight. One task alone has nothing to join
    and is the plain network. Shared: all backbones, and all NDDR layers but the last. Task's own: its reduction in
    the last NDDR layer, that of the shortcut, its head. Size: one backbone and one head per task; an NDDR layer on C
    channels has K² C² weights.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the networks; filled in from the group `backbone`.
        self_weight: initial weight of a network's own features, in [0, 1]; the others share the rest. Paper: .9.
        shortcut: NDDR-CNN-Shortcut: the head gets a reduction, of the same kind, of what all NDDR layers give its
            task, resized to the last one's size. Paper: without, and with as a variant.
        unit_lr_scale: learning rate of the reductions as a multiple of `optimizer.lr`. Paper: 100, with SGD.
        init_from: folder of a run of model=single whose networks these are to start from; None for random weights.
    """

    def __init__(
        self,
        tasks: Mapping[str, TaskLike],
        backbone: BackboneFactory,
        self_weight: float = 0.9,
        shortcut: bool = False,
        unit_lr_scale: float = 100.0,
        init_from: str | None = None,
    ) -> None:
        if not 0 <= self_weight <= 1:
            raise ValueError(f"self_weight must be in [0, 1], found {self_weight}")
        if not unit_lr_scale > 0:
            raise ValueError(f"unit_lr_scale must be > 0, found {unit_lr_scale}")
        super().__init__(tuple(tasks))
        self.init_from = init_from
        self.backbones = ParallelBackbones(tasks, backbone)
        shapes = self.backbones.stage_shapes
        self.layers = nn.ModuleList()
        if len(tasks) > 1:
            self.layers.extend(NDDRLayer(self.task_names, shape, self_weight) for shape in shapes)
        self.shortcuts = nn.ModuleDict()
        if shortcut:
            last = shapes[-1]
            self.fit = Resize(last[1:])
            every = joined([(shape[0], *last[1:]) for shape in shapes])
            self.shortcuts.update({task: _reduction(every, last) for task in tasks})
            for reduction in self.shortcuts.values():
                nn.init.xavier_uniform_(reduction[0].weight)  # type: ignore[index]
        self.heads = make_heads(tasks, shapes[-1], self.backbones.first.input_shape)
        self.unit_lr_scale = unit_lr_scale

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested = self.requested(tasks)
        after: list[dict[str, Tensor]] = []  # the tasks' features after each stage

        def fuse(index: int, features: list[Tensor]) -> list[Tensor]:
            going = requested if index == len(self.layers) - 1 else self.task_names
            if self.layers:
                features = self.layers[index](features, going)
            after.append(dict(zip(going, features, strict=True)))
            return features

        self.backbones(inputs, fuse)
        features = after[-1]
        if self.shortcuts:
            features = {
                task: self.shortcuts[task](torch.cat([self.fit(stage[task]) for stage in after], dim=1))
                for task in requested
            }
        return Output({task: self.heads[task](features[task]) for task in requested})

    def parameter_groups(self) -> list[ParameterGroup]:
        groups = [ParameterGroup("shared", list(self.backbones.parameters()))]
        if len(self.layers) > 1:
            groups.append(ParameterGroup("nddr", list(self.layers[:-1].parameters()), lr_scale=self.unit_lr_scale))
        for task in self.task_names:
            units = [modules[task] for modules in (*self.layers[-1:], self.shortcuts) if task in modules]
            own = [parameter for unit in units for parameter in unit.parameters()]
            if own:
                groups.append(ParameterGroup(f"nddr_{task}", own, task=task, lr_scale=self.unit_lr_scale))
            groups.append(ParameterGroup(task, list(self.heads[task].parameters()), task=task))
        return groups


def _reduction(source: Shape, target: Shape) -> nn.Sequential:
    """Return a reduction from the channels of `source` to those of `target`, at each place on its own."""
    return nn.Sequential(conv1x1_or_linear(source, target[0], bias=False), batch_norm(target), nn.ReLU())
