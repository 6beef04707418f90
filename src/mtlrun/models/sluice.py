"""Sluice networks."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from mtlrun.models.backbones import Backbone, BackboneFactory, Shape
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads
from mtlrun.models.blocks.layers import Resize, conv1x1_or_linear
from mtlrun.models.blocks.parallel_backbones import ParallelBackbones


class SubspaceUnit(nn.Module):
    """Mixes the subspaces of all tasks: G~_i = sum_j alpha_ij G_j over the K S subspaces.

    A task's subspaces are its channels cut into S parts, as even as can be. Where one has a channel less than
    another, that channel is zero for it.

    Args:
        num_tasks: K.
        num_subspaces: S.
        self_weight: initial weight of a subspace in itself; the other K S - 1 share 1 - self_weight.
    """

    def __init__(self, num_tasks: int, num_subspaces: int, self_weight: float) -> None:
        super().__init__()
        self.num_subspaces = num_subspaces
        size = num_tasks * num_subspaces
        alpha = torch.full((size, size), (1 - self_weight) / (size - 1) if size > 1 else 0.0)
        self.alpha = nn.Parameter(alpha.fill_diagonal_(self_weight if size > 1 else 1.0))  # [K S, K S], task by task

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Map K tensors [batch, channels, ...] to as many of the same shape."""
        parts = [part for own in features for part in own.tensor_split(self.num_subspaces, dim=1)]
        longest = parts[0].shape[1]
        even = torch.stack([part if part.shape[1] == longest else _with_zeros(part) for part in parts], dim=1)
        mixed = torch.einsum("ij,bj...->ib...", self.alpha, even)
        whole = [new[:, : old.shape[1]] for new, old in zip(mixed, parts, strict=True)]
        count = self.num_subspaces
        return [torch.cat(whole[start : start + count], dim=1) for start in range(0, len(whole), count)]


class Skip(nn.Module):
    """Mixes what one network gives after each stage: sum_l beta_l h_l.

    Args:
        shapes: of one sample's features after each stage.
        last: initial weight of the last stage; the others share 1 - last.
    """

    def __init__(self, shapes: Sequence[Shape], last: float) -> None:
        super().__init__()
        others = len(shapes) - 1
        self.beta = nn.Parameter(torch.tensor([(1 - last) / others] * others + [last] if others else [1.0]))
        self.fits = nn.ModuleList(_fit(shape, shapes[-1]) for shape in shapes)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Map one tensor per stage to one like the last."""
        fitted = [fit(features) for fit, features in zip(self.fits, stages, strict=True)]
        return torch.stack([weight * own for weight, own in zip(self.beta, fitted, strict=True)]).sum(dim=0)


class Sluice(MultiTaskModel):
    """K networks: their subspaces are mixed after each stage, and each head sees a mixture of all stages.

    Source: Ruder et al., "Latent Multi-task Architecture Learning" (AAAI 2019). The penalty is
    orthogonality * sum over tasks, stages and pairs of subspaces of ‖G_1^T G_2‖²; the columns of G_s are the weights
    of the subspace's channels in the stage's last layer, so that channels of different subspaces are to see different
    things (the authors' code has them as rows, which needs subspaces of one size). The paper's stages are LSTMs of one
    size; where stages differ in shape, features of earlier ones are resized (maps become vectors by their mean) and
    mapped to the last stage's channels by a learned 1x1 convolution, the task's own. Each backbone starts from random
    weights of its own.
    Shared: all backbones and alphas. Task's own: its betas, the maps before them, its head. Size: one backbone, one
    set of betas and one head per task, and (K S)² alphas per stage.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the networks; filled in from the group `backbone`.
        subspaces: S, >= 1, not more than any stage has channels. Paper: 2.
        self_weight: initial weight of a subspace in itself, in [0, 1]; all others, of all tasks, share the rest. .9, as
            in cross-stitch networks.
        last: initial weight of the last stage for the head, in [0, 1]; the others share the rest. Authors' code: .9.
        orthogonality: factor of the penalty, >= 0. .1, from the example of the authors' code.
        unit_lr_scale: learning rate of alphas and betas as a multiple of that of the other parameters. Authors' code:
            the same for all.
        init_from: folder of a run of model=single whose networks these are to start from; None for random weights.
    """

    def __init__(
        self,
        tasks: Mapping[str, TaskLike],
        backbone: BackboneFactory,
        subspaces: int = 2,
        self_weight: float = 0.9,
        last: float = 0.9,
        orthogonality: float = 0.1,
        unit_lr_scale: float = 1.0,
        init_from: str | None = None,
    ) -> None:
        for name, share in (("self_weight", self_weight), ("last", last)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be in [0, 1], found {share}")
        if not orthogonality >= 0:
            raise ValueError(f"orthogonality must be >= 0, found {orthogonality}")
        if not unit_lr_scale > 0:
            raise ValueError(f"unit_lr_scale must be > 0, found {unit_lr_scale}")
        super().__init__(tuple(tasks))
        self.init_from = init_from
        self.backbones = ParallelBackbones(tasks, backbone)
        shapes = self.backbones.stage_shapes
        narrowest = min(shape[0] for shape in shapes)
        if not 1 <= subspaces <= narrowest:
            raise ValueError(
                f"subspaces must be in 1..{narrowest}, the channels of the narrowest stage, found {subspaces}"
            )
        if subspaces > 1 and orthogonality > 0 and not _last_weights(self.backbones.first):
            raise ValueError(
                "orthogonality must be 0 for a backbone with no linear layer or convolution that gives a stage's "
                f"channels, found {orthogonality}"
            )
        self.units = nn.ModuleList(SubspaceUnit(len(tasks), subspaces, self_weight) for _ in shapes)
        self.heads = make_heads(tasks, shapes[-1], self.backbones.first.input_shape)
        self.skips = nn.ModuleDict({task: Skip(shapes, last) for task in tasks})
        self.subspaces, self.orthogonality, self.unit_lr_scale = subspaces, orthogonality, unit_lr_scale

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested = self.requested(tasks)
        after: list[list[Tensor]] = []  # the tasks' features after each stage

        def mix(index: int, features: list[Tensor]) -> list[Tensor]:
            after.append(self.units[index](features))
            return after[-1]

        self.backbones(inputs, mix)
        predictions = {
            task: self.heads[task](self.skips[task](stages))
            for task, stages in zip(self.task_names, zip(*after, strict=True), strict=True)
            if task in requested
        }
        if not self.training or self.subspaces < 2 or self.orthogonality == 0:
            return Output(predictions)
        return Output(predictions, regularizers={"orthogonality": self.orthogonality * self.overlap()})

    def overlap(self) -> Tensor:
        """Return the sum over tasks, stages and pairs of subspaces of ‖G_1^T G_2‖². Shape []."""
        overlaps = [
            (ours @ theirs.mT).square().sum()
            for network in self.backbones.values()
            for weight in _last_weights(network)  # type: ignore[arg-type]
            for ours, theirs in combinations(weight.flatten(1).tensor_split(self.subspaces), 2)
        ]
        return torch.stack(overlaps).sum()

    def parameter_groups(self) -> list[ParameterGroup]:
        groups = [
            ParameterGroup("shared", list(self.backbones.parameters())),
            ParameterGroup("alpha", list(self.units.parameters()), lr_scale=self.unit_lr_scale),
        ]
        for task in self.task_names:
            skip, head = self.skips[task], self.heads[task]
            assert isinstance(skip, Skip)
            groups += [
                ParameterGroup(f"beta_{task}", [skip.beta], task=task, lr_scale=self.unit_lr_scale),
                ParameterGroup(task, [*skip.fits.parameters(), *head.parameters()], task=task),
            ]
        return groups


def _with_zeros(part: Tensor) -> Tensor:
    """Append one channel of zeros."""
    return torch.cat([part, torch.zeros_like(part[:, :1])], dim=1)


def _fit(source: Shape, target: Shape) -> nn.Module:
    """Return a map from features of one shape to another: none if they are equal; else resized, then mixed by place."""
    if source == target:
        return nn.Identity()
    return nn.Sequential(Resize(target[1:]), conv1x1_or_linear((source[0], *target[1:]), target[0], bias=False))


def _last_weights(network: Backbone) -> list[Tensor]:
    """Return the weights of each stage's last linear layer or convolution that gives as many channels as the stage."""
    found = []
    for stage, channels in zip(network.stages, network.stage_channels, strict=True):
        layers = [module.weight for module in stage.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
        found += [weight for weight in layers if weight.shape[0] == channels][-1:]
    return found
