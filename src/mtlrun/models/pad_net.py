"""PAD-Net: predict, let the tasks inform each other, predict again."""

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn

from mtlrun.models.backbones import BackboneFactory
from mtlrun.models.base import AuxiliaryPredictions, MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads
from mtlrun.models.blocks.distillation import make_branches, make_distillations, make_first_heads


class PADNet(MultiTaskModel):
    """One trunk; each task makes a first prediction, then a final one that draws on the features of all the others.

    Source: Xu et al., "PAD-Net: Multi-Tasks Guided Prediction-and-Distillation Network for Simultaneous Depth
    Estimation and Scene Parsing" (CVPR 2018), section 3, with its distillation module C; see `Distillation`.
    A branch of two residual blocks makes a task's features F_k from the trunk's, one linear map at each place makes
    its first prediction from them, and the final head works on o_k, which gathers the other tasks' features.
    What is distilled is the branches' features, as in the published reimplementation by Vandenhende et al., not the
    first predictions, as the paper describes it: a prediction of one or two numbers tells others little. Its auxiliary
    tasks are tasks like all others here. Works for vectors too, with linear layers for the convolutions.
    Shared: the trunk and all branches, as each final prediction draws on all of them. Task's own: the first head, the
    gates and messages of its distillation, and the final head. Size: one backbone, per task one branch and two heads,
    and one message per pair of tasks. One task alone is a network with a branch and two heads.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the trunk; filled in from the group `backbone`.
        channels: of each task's features. 256 in the reimplementation.
        gate: what opens the gates of a message: the features of the task that receives it, as in the paper, or of the
            one that sends it, as in the reimplementation.
        intermediate_weight: weight of the first predictions' losses relative to the final ones'. 1 in the
            reimplementation.
    """

    def __init__(
        self,
        tasks: Mapping[str, TaskLike],
        backbone: BackboneFactory,
        channels: int = 256,
        gate: Literal["receiver", "sender"] = "receiver",
        intermediate_weight: float = 1.0,
    ) -> None:
        if channels < 1:
            raise ValueError(f"channels must be >= 1, found {channels}")
        if not intermediate_weight > 0:
            raise ValueError(f"intermediate_weight must be > 0, found {intermediate_weight}")
        super().__init__(tuple(tasks))
        self.trunk = backbone()
        source, input_shape = self.trunk.feature_shape, self.trunk.input_shape
        shape = (channels, *source[1:])
        self.branches = make_branches(tasks, source, channels)
        self.first_heads = make_first_heads(tasks, shape, input_shape)
        self.distillations = make_distillations(self.task_names, shape, gate)
        self.heads = make_heads(tasks, shape, input_shape)
        self.intermediate_weight = intermediate_weight

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested = self.requested(tasks)
        shared = self.trunk(inputs)
        features = {task: branch(shared) for task, branch in self.branches.items()}
        predictions = {task: self.heads[task](self.distillations[task](features)) for task in requested}
        if not self.training:
            return Output(predictions)
        first = {task: self.first_heads[task](features[task]) for task in requested}
        return Output(predictions, auxiliary=[AuxiliaryPredictions(first, self.intermediate_weight)])

    def parameter_groups(self) -> list[ParameterGroup]:
        own: list[nn.ModuleDict] = [self.first_heads, self.distillations, self.heads]
        return [
            ParameterGroup("shared", [*self.trunk.parameters(), *self.branches.parameters()]),
            *(
                ParameterGroup(task, [p for modules in own for p in modules[task].parameters()], task=task)
                for task in self.task_names
            ),
        ]
