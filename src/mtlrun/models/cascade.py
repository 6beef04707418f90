"""Tasks that see the estimates of earlier tasks."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtlrun.models.backbones import BackboneFactory
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_head
from mtlrun.models.blocks.layers import Resize


class Cascade(MultiTaskModel):
    """One trunk; the tasks come one after the other, and each head also sees what all heads before it say.

    Source: Dai, He and Sun, "Instance-aware Semantic Segmentation via Multi-task Network Cascades" (CVPR 2016), where
    each stage sees the shared features and the outputs of earlier stages; Hashimoto et al., "A Joint Many-Task Model:
    Growing a Neural Network for Multiple NLP Tasks" (EMNLP 2017), where a task's label probabilities are inputs of all
    later tasks. Here all tasks start from the trunk's last features z: head_b sees (z, y_a for each a before b), joined
    along the channels. The y_a are raw outputs, such as logits, since what they mean is known to the loss alone; maps
    are resized to z, or averaged if z is a vector, and vectors are spread over all places of a map. Both papers let
    gradients flow back through the estimates, which is `stop_gradient=False`.

    Shared: the trunk; without `stop_gradient` also each head but the last, which its own and all later tasks train, at
    the learning rate of what is shared. So z does not always separate shared from own parameters, and it is not handed
    out as a representation. Task's own: its head, or the last one. Size: one backbone and K heads, which see up to the
    number of all outputs in channels more.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the trunk; filled in from the group `backbone`.
        order: all tasks, the first one first; None for the order in which they are given.
        stop_gradient: the losses of later tasks do not reach earlier heads.
    """

    def __init__(
        self,
        tasks: Mapping[str, TaskLike],
        backbone: BackboneFactory,
        order: list[str] | None = None,
        stop_gradient: bool = True,
    ) -> None:
        if order is not None and sorted(order) != sorted(tasks):
            raise ValueError(f"order must name each of {', '.join(tasks)} once, found {', '.join(order) or 'none'}")
        names = list(order or tasks)
        early = [name for name in names[:-1] if tasks[name].boxes]
        if early:
            raise ValueError(
                f"order must have a task with boxes last, since no other head can see them, found {', '.join(names)}"
            )
        super().__init__(tuple(tasks))
        self.trunk = backbone()
        channels, *size = self.trunk.feature_shape
        self.fit = Resize(size)
        self.heads = nn.ModuleDict()
        for task in names:
            self.heads[task] = make_head(tasks[task], (channels, *size), self.trunk.input_shape)
            channels += tasks[task].output_size
        self.stop_gradient = stop_gradient

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested = self.requested(tasks)
        features = self.trunk(inputs)
        predictions: dict[str, Tensor] = {}
        estimate: Tensor | None = None
        for task, head in self.heads.items():
            if predictions.keys() >= set(requested):
                break  # nobody asks for later ones
            if estimate is not None:
                features = torch.cat([features, self.fit(estimate)], dim=1)
            predictions[task] = head(features)
            estimate = predictions[task].detach() if self.stop_gradient else predictions[task]
        return Output({task: predictions[task] for task in requested})

    def parameter_groups(self) -> list[ParameterGroup]:
        groups = [ParameterGroup("shared", list(self.trunk.parameters()))]
        order = list(self.heads)
        for position, (task, head) in enumerate(self.heads.items()):
            reached_by = order[position:]
            if self.stop_gradient or len(reached_by) == 1:
                groups.append(ParameterGroup(task, list(head.parameters()), task=task))
            else:
                some = tuple(reached_by) if position else ()
                groups.append(ParameterGroup(task, list(head.parameters()), shared_by=some))
        return groups
