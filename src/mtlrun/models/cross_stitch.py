"""Cross-stitch networks: one network per task, with features mixed between the stages."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import Fraction, Positive, checked
from mtlrun.models.backbones import BackboneFactory
from mtlrun.models.base import MixesNetworks, MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads, task_groups
from mtlrun.models.blocks.layers import per_channel
from mtlrun.models.blocks.parallel_backbones import ParallelBackbones, one_of

# For `unit_lr_scale=auto`: that of the paper, and what docs/benchmarks.md has measured for Adam.
_SGD_LR_SCALE, _ADAPTIVE_LR_SCALE = 100.0, 10.0


class CrossStitchUnit(nn.Module):
    """A linear mixture of the tasks' features: x~_a = sum_b alpha_ab x_b (paper, equation 1).

    Args:
        num_tasks: K.
        channels: number of channels of the features, or 1 for one alpha per pair of tasks.
        self_weight: initial alpha_aa; 1 - self_weight is divided equally among the others.
    """

    def __init__(self, num_tasks: int, channels: int, self_weight: float) -> None:
        super().__init__()
        others = (1 - self_weight) / (num_tasks - 1) if num_tasks > 1 else 0.0
        alpha = torch.full((num_tasks, num_tasks), others)
        alpha.fill_diagonal_(self_weight if num_tasks > 1 else 1.0)
        self.alpha = nn.Parameter(alpha.unsqueeze(-1).repeat(1, 1, channels))  # [K, K, channels]

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Map K tensors [batch, channels, ...] to as many of the same shape."""
        return [
            torch.stack([per_channel(alpha, x) for alpha, x in zip(alphas, features, strict=True)]).sum(dim=0)
            for alphas in self.alpha
        ]


class CrossStitch(MultiTaskModel, MixesNetworks):
    """One network per task; learned weights mix the features of all of them after each stage.

    Source: Misra et al., "Cross-stitch Networks for Multi-task Learning" (CVPR 2016), section 3.
    Every unit mixes all networks, the last one after the last stage, so every task's loss reaches every backbone.
    Shared: all backbones and units. Per task: the head. Size: one backbone and one head per task.
    Backbones start from different random weights or, as in the paper, from networks trained on one task each.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the networks; filled in from the group `backbone`.
        self_weight: initial weight of a network's features in their mixture, in [0, 1]; the rest is divided equally
            among the others. Paper: .9.
        granularity: `channel`, as in the paper: one weight per channel and pair of tasks; `layer`: one per pair.
        unit_lr_scale: learning rate of the units as a multiple of `optimizer.lr`; `auto` for the paper's 100 under
            `torch.optim.SGD`, and for 10 under any other optimizer: Adam's steps are as long as the learning rate, so
            that the first one, with 100, would leave nothing of the initial weights.
        init_from: folder of a run of model=single whose networks these start from; None for random weights.
    """

    @checked
    def __init__(
        self,
        tasks: Mapping[str, TaskLike],
        backbone: BackboneFactory,
        self_weight: Fraction = 0.9,
        granularity: Literal["channel", "layer"] = "channel",
        unit_lr_scale: Positive | Literal["auto"] = "auto",
        init_from: str | None = None,
    ) -> None:
        super().__init__(tuple(tasks))
        self.init_from = init_from
        self.backbones = ParallelBackbones(tasks, backbone)
        shapes = one_of(self.backbones).stage_shapes
        self.units = nn.ModuleList(
            CrossStitchUnit(len(tasks), shape[0] if granularity == "channel" else 1, self_weight) for shape in shapes
        )
        self.heads = make_heads(tasks, shapes[-1], one_of(self.backbones).input_shape)
        self.unit_lr_scale = _SGD_LR_SCALE if unit_lr_scale == "auto" else unit_lr_scale
        self.adaptive_unit_lr_scale = _ADAPTIVE_LR_SCALE if unit_lr_scale == "auto" else None

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested = self.requested(tasks)
        mixed = self.backbones(inputs, lambda index, features: self.units[index](features))
        features = dict(zip(self.task_names, mixed, strict=True))
        return Output({task: self.heads[task](features[task]) for task in requested})

    def mixing(self) -> Tensor:
        alphas: list[Tensor] = [unit.alpha for unit in self.units]  # type: ignore[misc]
        sizes = torch.stack([alpha.abs().sum(dim=-1) for alpha in alphas])
        return sizes / sizes.sum(dim=-1, keepdim=True)

    def parameter_groups(self) -> list[ParameterGroup]:
        return [
            ParameterGroup("shared", list(self.backbones.parameters())),
            ParameterGroup(
                "stitch",
                list(self.units.parameters()),
                lr_scale=self.unit_lr_scale,
                adaptive_lr_scale=self.adaptive_unit_lr_scale,
            ),
            *task_groups(self.heads),
        ]
