"""Shared and private encoders, told apart by an adversary."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtlrun.models.backbones import BackboneFactory
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads
from mtlrun.models.blocks.layers import joined, pool


class ReverseGradient(torch.autograd.Function):
    """Passes features on unchanged, and their gradient back times -factor."""

    @staticmethod
    def forward(features: Tensor, factor: float) -> Tensor:
        return features.view_as(features)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.factor * gradient, None


def overlap(shared: Tensor, private: Tensor) -> Tensor:
    """Return ‖SᵀP‖² / (‖S‖² ‖P‖²) with Frobenius norms: 0 if the features are orthogonal, at most 1. Shape [].

    Args:
        shared, private: S and P [batch, channels], one sample's features per row.
    """
    # ‖SᵀP‖² is the sum of the products of SSᵀ and PPᵀ, which are small: [batch, batch].
    grams: list[Tensor] = []
    for features in (shared.float(), private.float()):
        scaled = features / torch.linalg.vector_norm(features).clamp_min(1e-12)
        grams.append(scaled @ scaled.T)
    return torch.sum(grams[0] * grams[1])


class Adversarial(MultiTaskModel):
    """A shared encoder and one private encoder per task; an adversary keeps the shared features free of the tasks.

    Source: Liu, Qiu and Huang, "Adversarial Multi-task Learning for Text Classification" (ACL 2017), section 4.
    A task's head sees the features of both encoders, joined. In training a linear discriminator is to tell from the
    shared features, averaged over all places, which task a sample belongs to; it descends on its cross entropy at full
    rate, while the shared encoder gets -adversary times that gradient. A penalty keeps private features orthogonal to
    shared ones: orthogonality * sum over tasks of ‖SᵀP‖² / (‖S‖² ‖P‖²), over the batch, features averaged over all
    places. The paper does not divide; here the penalty is the same for any batch size, width and scale of the features,
    and smaller, so that the paper's factor is a mild one. S and P hold all samples of the batch, whichever tasks they
    carry labels of; tasks that are not requested have no P. Both terms join the objective outside the weighting.

    Made for tasks that have samples of their own: where each sample carries the labels of all tasks there is nothing to
    tell apart, the best discriminator says 1/K, and the adversary only keeps it there.

    Shared: the shared encoder, the discriminator. Task's own: its private encoder and its head. Size: one backbone and
    one head per task, and one backbone more. One task alone has both encoders and no discriminator.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the encoders; filled in from the group `backbone`.
        adversary: factor of the reversed gradient, >= 0. Paper (lambda): .05.
        orthogonality: factor of the penalty, >= 0. Paper (gamma): .01.
    """

    def __init__(
        self,
        tasks: Mapping[str, TaskLike],
        backbone: BackboneFactory,
        adversary: float = 0.05,
        orthogonality: float = 0.01,
    ) -> None:
        if not adversary >= 0:
            raise ValueError(f"adversary must be >= 0, found {adversary}")
        if not orthogonality >= 0:
            raise ValueError(f"orthogonality must be >= 0, found {orthogonality}")
        super().__init__(tuple(tasks))
        self.shared = backbone()
        self.private = nn.ModuleDict({task: backbone() for task in tasks})
        shape = self.shared.feature_shape
        self.heads = make_heads(tasks, joined([shape, shape]), self.shared.input_shape)
        self.discriminator = nn.Linear(shape[0], len(tasks)) if len(tasks) > 1 else None
        self.adversary = adversary
        self.orthogonality = orthogonality

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested = self.requested(tasks)
        shared = self.shared(inputs)
        private = {task: self.private[task](inputs) for task in requested}
        predictions = {task: self.heads[task](torch.cat([shared, own], dim=1)) for task, own in private.items()}
        if not self.training:
            return Output(predictions)
        pooled = pool(shared)
        domain_logits, regularizers = None, {}
        if self.discriminator is not None:
            domain_logits = self.discriminator(ReverseGradient.apply(pooled, self.adversary))
        if self.orthogonality > 0:
            overlaps = torch.stack([overlap(pooled, pool(own)) for own in private.values()])
            regularizers["orthogonality"] = self.orthogonality * overlaps.sum()
        return Output(predictions, domain_logits=domain_logits, regularizers=regularizers)

    def parameter_groups(self) -> list[ParameterGroup]:
        groups = [ParameterGroup("shared", list(self.shared.parameters()))]
        if self.discriminator is not None:
            groups.append(ParameterGroup("discriminator", list(self.discriminator.parameters())))
        for task in self.task_names:
            own = [*self.private[task].parameters(), *self.heads[task].parameters()]
            groups.append(ParameterGroup(task, own, task=task))
        return groups
