"""Shared and private encoders, with an adversary that removes task-specific features from the shared one."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import NonNegative, checked
from mtlrun.models.backbones import BackboneFactory
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads, task_groups
from mtlrun.models.blocks.autocast import without_autocast
from mtlrun.models.blocks.layers import concatenated_shape, pool


class ReverseGradient(torch.autograd.Function):
    """A gradient reversal layer: the identity forward, the gradient times -factor backward."""

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
        shared, private: S and P [batch, channels].
    """
    # ‖SᵀP‖² = sum_ij (SSᵀ)_ij (PPᵀ)_ij; these are small matrices, [batch, batch].
    grams: list[Tensor] = []
    for features in (shared.float(), private.float()):
        scaled = features / torch.linalg.vector_norm(features).clamp_min(1e-12)
        with without_autocast(scaled):
            grams.append(scaled @ scaled.T)
    return torch.sum(grams[0] * grams[1])


class Adversarial(MultiTaskModel):
    """A shared encoder and one private encoder per task; an adversary keeps the shared features free of the tasks.

    Source: Liu, Qiu and Huang, "Adversarial Multi-task Learning for Text Classification" (ACL 2017), section 4.
    A task's head sees the concatenated features of both encoders. In training, a linear discriminator predicts from the
    shared features, averaged over all positions, which task a sample belongs to. The discriminator descends on its
    cross entropy at the full rate; the shared encoder gets that gradient times -adversarial_weight. A penalty keeps
    private features orthogonal to shared ones: orthogonality_weight * sum over tasks of ‖SᵀP‖² / (‖S‖² ‖P‖²), over the
    batch, with features averaged over all positions. The paper does not divide by the norms; here the penalty does not
    depend on the batch size, width and scale of the features, and is smaller, so that the paper's factor is a mild one.
    S and P hold all samples of the batch, whichever tasks they are labeled for; tasks that are not requested have no P.
    Both terms are added to the objective outside the weighting.

    Meant for tasks with separate samples: if each sample is labeled for all tasks, there is nothing to discriminate,
    and the best discriminator predicts 1/K.

    Shared: the shared encoder, the discriminator. Per task: the private encoder and the head. Size: one backbone and
    one head per task, and one backbone more. A single task has both encoders and no discriminator.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the encoders; filled in from the group `backbone`.
        adversarial_weight: factor of the reversed gradient, >= 0. Paper (lambda): .05.
        orthogonality_weight: factor of the penalty, >= 0. Paper (gamma): .01.
    """

    @checked
    def __init__(
        self,
        tasks: Mapping[str, TaskLike],
        backbone: BackboneFactory,
        adversarial_weight: NonNegative = 0.05,
        orthogonality_weight: NonNegative = 0.01,
    ) -> None:
        super().__init__(tuple(tasks))
        self.shared = backbone()
        self.private = nn.ModuleDict({task: backbone() for task in tasks})
        shape = self.shared.feature_shape
        self.heads = make_heads(tasks, concatenated_shape([shape, shape]), self.shared.input_shape)
        self.discriminator = nn.Linear(shape[0], len(tasks)) if len(tasks) > 1 else None
        self.adversarial_weight = adversarial_weight
        self.orthogonality_weight = orthogonality_weight

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested = self.requested(tasks)
        shared = self.shared(inputs)
        private = {task: self.private[task](inputs) for task in requested}
        predictions = {task: self.heads[task](torch.cat([shared, p], dim=1)) for task, p in private.items()}
        if not self.training:
            return Output(predictions)
        pooled = pool(shared)
        domain_logits, regularizers = None, {}
        if self.discriminator is not None:
            domain_logits = self.discriminator(ReverseGradient.apply(pooled, self.adversarial_weight))
        if self.orthogonality_weight > 0:
            overlaps = torch.stack([overlap(pooled, pool(features)) for features in private.values()])
            regularizers["orthogonality"] = self.orthogonality_weight * overlaps.sum()
        return Output(predictions, domain_logits=domain_logits, regularizers=regularizers)

    def parameter_groups(self) -> list[ParameterGroup]:
        groups = [ParameterGroup("shared", list(self.shared.parameters()))]
        if self.discriminator is not None:
            groups.append(ParameterGroup("discriminator", list(self.discriminator.parameters())))
        return [*groups, *task_groups(self.private, self.heads)]
