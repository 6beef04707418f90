"""Soft parameter sharing by an L2 penalty on the distance of parameters."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import NonNegative, checked
from mtlrun.models.backbones import BackboneFactory
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads, task_groups


class SoftSharing(MultiTaskModel):
    """One network per task; a penalty draws the backbones' parameters towards each other.

    Source: Duong et al., "Low Resource Dependency Parsing: Cross-lingual Parameter Sharing in a Neural Network Parser"
    (ACL 2015), equation 3. The penalty is strength * mean over pairs of tasks and over tensors of ‖W_t - W_s‖²; it is
    added to the objective outside the weighting. The backbones start from equal weights, as the paper's second network
    starts from its first. Shared: no parameter, since each task's loss reaches only that task's network (so gradient
    methods have nothing to combine). Per task: the whole network. Size: one backbone and one head per task.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the networks; filled in from the group `backbone`.
        strength: factor of the penalty, >= 0; 0 makes the networks independent.
        init_from: folder of a run of model=single whose networks these start from; None for random weights.
    """

    equal_start = True

    @checked
    def __init__(
        self,
        tasks: Mapping[str, TaskLike],
        backbone: BackboneFactory,
        strength: NonNegative = 0.01,
        init_from: str | None = None,
    ) -> None:
        super().__init__(tuple(tasks))
        self.init_from = init_from
        first, *others = backbones = [backbone() for _ in tasks]
        for other in others:
            other.load_state_dict(first.state_dict())
        self.backbones = nn.ModuleDict(dict(zip(tasks, backbones, strict=True)))
        self.heads = make_heads(tasks, first.feature_shape, first.input_shape)
        self.strength = strength

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        predictions = {task: self.heads[task](self.backbones[task](inputs)) for task in self.requested(tasks)}
        if not self.training or len(self.task_names) < 2:
            return Output(predictions)
        return Output(predictions, regularizers={"soft_sharing": self.strength * self.distance()})

    def distance(self) -> Tensor:
        """Return the mean over pairs of tasks and over tensors of the squared distance of the parameters. Shape []."""
        distances = [
            (ours - theirs).square().sum()
            for a, b in combinations(self.task_names, 2)
            for ours, theirs in zip(self.backbones[a].parameters(), self.backbones[b].parameters(), strict=True)
        ]
        return torch.stack(distances).mean()

    def parameter_groups(self) -> list[ParameterGroup]:
        return task_groups(self.backbones, self.heads)
