"""A cascade of tasks: each head sees the predictions of the tasks before it."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtlrun.models.backbones import BackboneFactory
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_head
from mtlrun.models.blocks.layers import Resize


class Cascade(MultiTaskModel):
    """A shared backbone with the tasks in order: each head also sees the predictions of all earlier heads.

    Source: Dai, He and Sun, "Instance-aware Semantic Segmentation via Multi-task Network Cascades" (CVPR 2016), where
    each stage sees the shared features and the outputs of earlier stages; Hashimoto et al., "A Joint Many-Task Model:
    Growing a Neural Network for Multiple NLP Tasks" (EMNLP 2017), where a task's label probabilities are inputs of all
    later tasks. Here all tasks start from the backbone's last features z: head b sees z and y_a for each task a before
    b, concatenated along the channels. The y_a are raw outputs, such as logits, since only the loss knows their
    meaning; maps are resized to z, or averaged if z is a vector, and vectors are repeated at all positions of a map.
    Both papers let gradients flow back through the predictions, which is `stop_gradient=False`.

    Shared: the backbone; without `stop_gradient` also each head but the last, as its task and all later ones train it,
    at the learning rate of its task. So z does not always separate shared from task-specific parameters, and is not
    returned as a representation. Per task: the head, or only the last task's without `stop_gradient`. Size: one
    backbone and K heads, the last of which has as many more input channels as the others have outputs.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the trunk; filled in from the group `backbone`.
        order: names of all tasks, the first one first; None for the order in which they are configured.
        stop_gradient: losses of later tasks do not reach earlier heads.
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
                f"order must have a task with boxes last, since no other head can use them, found {', '.join(names)}"
            )
        super().__init__(tuple(tasks))
        self.trunk = backbone()
        channels, *size = self.trunk.feature_shape
        self.resize = Resize(size)
        self.heads = nn.ModuleDict()
        for task in names:
            self.heads[task] = make_head(tasks[task], (channels, *size), self.trunk.input_shape)
            channels += tasks[task].output_size
        self.stop_gradient = stop_gradient

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested = self.requested(tasks)
        features = self.trunk(inputs)
        predictions: dict[str, Tensor] = {}
        previous: Tensor | None = None
        for task, head in self.heads.items():
            if predictions.keys() >= set(requested):
                break  # later ones are not requested
            if previous is not None:
                features = torch.cat([features, self.resize(previous)], dim=1)
            predictions[task] = head(features)
            previous = predictions[task].detach() if self.stop_gradient else predictions[task]
        return Output({task: predictions[task] for task in requested})

    def parameter_groups(self) -> list[ParameterGroup]:
        groups = [ParameterGroup("shared", list(self.trunk.parameters()))]
        order = list(self.heads)
        for position, (task, head) in enumerate(self.heads.items()):
            reached_by = order[position:]
            if self.stop_gradient or len(reached_by) == 1:
                groups.append(ParameterGroup(task, list(head.parameters()), task=task))
            else:
                shared_by = tuple(reached_by) if position else ()  # all tasks reach the first head
                groups.append(ParameterGroup(task, list(head.parameters()), shared_by=shared_by, lr_task=task))
        return groups
