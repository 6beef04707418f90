"""PAD-Net: auxiliary predictions, distillation between the tasks, and final predictions."""

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor

from mtlrun.config.bounds import Positive, Width, checked
from mtlrun.models.backbones import BackboneFactory
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


class PADNet(MultiTaskModel):
    """A shared backbone; each task's final prediction uses distilled features of all tasks.

    Source: Xu et al., "PAD-Net: Multi-Tasks Guided Prediction-and-Distillation Network for Simultaneous Depth
    Estimation and Scene Parsing" (CVPR 2018), section 3, with its distillation module C; see `Distillation`.
    A branch of two residual blocks computes a task's features F_k from the backbone's; a linear map at each position
    makes an auxiliary prediction from them, and the final head works on o_k, which adds the other tasks' features.
    Departures: the branches' features are distilled, as in the published reimplementation by Vandenhende et al., and
    not the auxiliary predictions, as the paper describes: a prediction of one or two numbers carries little information
    for other tasks. The paper's auxiliary tasks are ordinary tasks here. For vectors, convolutions are linear layers.
    Shared: the backbone and all branches, as each final prediction uses all of them. Per task: the auxiliary head, the
    gates and messages of its distillation, and the final head. Size: one backbone, per task one branch and two heads,
    and one message per pair of tasks. A single task is a network with a branch and two heads.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the trunk; filled in from the group `backbone`.
        channels: of each task's features. 256 in the reimplementation.
        gate: whose features open the gate of a message: those of the task that receives it, as in the paper, or of the
            one that sends it, as in the reimplementation.
        auxiliary_weight: factor of the auxiliary predictions' losses, > 0. 1 in the reimplementation.
    """

    @checked
    def __init__(
        self,
        tasks: Mapping[str, TaskLike],
        backbone: BackboneFactory,
        channels: Width = 256,
        gate: Literal["receiver", "sender"] = "receiver",
        auxiliary_weight: Positive = 1.0,
    ) -> None:
        super().__init__(tuple(tasks))
        self.trunk = backbone()
        source, input_shape = self.trunk.feature_shape, self.trunk.input_shape
        shape = (channels, *source[1:])
        self.branches = make_branches(tasks, source, channels)
        self.auxiliary_heads = make_auxiliary_heads(tasks, shape, input_shape)
        self.distillations = make_distillations(self.task_names, shape, gate)
        self.heads = make_heads(tasks, shape, input_shape)
        self.auxiliary_weight = auxiliary_weight

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested = self.requested(tasks)
        shared = self.trunk(inputs)
        features = {task: branch(shared) for task, branch in self.branches.items()}
        predictions = {task: self.heads[task](self.distillations[task](features)) for task in requested}
        if not self.training:
            return Output(predictions)
        auxiliary = {task: self.auxiliary_heads[task](features[task]) for task in requested}
        return Output(predictions, auxiliary=[AuxiliaryPredictions(auxiliary, self.auxiliary_weight)])

    def parameter_groups(self) -> list[ParameterGroup]:
        return [
            ParameterGroup("shared", [*self.trunk.parameters(), *self.branches.parameters()]),
            *task_groups(self.auxiliary_heads, self.distillations, self.heads),
        ]
