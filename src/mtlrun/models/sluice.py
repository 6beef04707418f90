"""Sluice networks: one network per task, with subspaces of their channels mixed between the stages."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import Fraction, NonNegative, Parts, Positive, checked
from mtlrun.models.backbones import Backbone, BackboneFactory, Shape
from mtlrun.models.base import MixesNetworks, MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads
from mtlrun.models.blocks.autocast import without_autocast
from mtlrun.models.blocks.layers import Resize, conv1x1_or_linear
from mtlrun.models.blocks.parallel_backbones import ParallelBackbones, one_of


class SubspaceUnit(nn.Module):
    """A linear mixture of the subspaces of all tasks: G~_i = sum_j alpha_ij G_j over the K S subspaces.

    The subspaces of a task are S parts of its channels, as equal in size as possible. A part that is one channel
    shorter than the others is padded with a channel of zeros.

    Args:
        num_tasks: K.
        num_subspaces: S.
        self_weight: initial weight of a subspace in its mixture; 1 - self_weight is divided equally among the other
            K S - 1.
    """

    def __init__(self, num_tasks: int, num_subspaces: int, self_weight: float) -> None:
        super().__init__()
        self.num_subspaces = num_subspaces
        size = num_tasks * num_subspaces
        alpha = torch.full((size, size), (1 - self_weight) / (size - 1) if size > 1 else 0.0)
        self.alpha = nn.Parameter(alpha.fill_diagonal_(self_weight if size > 1 else 1.0))  # [K S, K S], task by task

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Map K tensors [batch, channels, ...] to as many of the same shape."""
        parts = [part for x in features for part in x.tensor_split(self.num_subspaces, dim=1)]
        longest = parts[0].shape[1]
        padded = torch.stack([part if part.shape[1] == longest else _with_zeros(part) for part in parts], dim=1)
        mixed = torch.einsum("ij,bj...->ib...", self.alpha, padded)
        cut = [new[:, : old.shape[1]] for new, old in zip(mixed, parts, strict=True)]
        count = self.num_subspaces
        return [torch.cat(cut[start : start + count], dim=1) for start in range(0, len(cut), count)]


class Skip(nn.Module):
    """A linear mixture of one network's features after all stages: sum_l beta_l h_l.

    Args:
        shapes: shape of one sample's features after each stage.
        last_weight: initial weight of the last stage; 1 - last_weight is divided equally among the others.
    """

    def __init__(self, shapes: Sequence[Shape], last_weight: float) -> None:
        super().__init__()
        others = len(shapes) - 1
        weights = [(1 - last_weight) / others] * others + [last_weight] if others else [1.0]
        self.beta = nn.Parameter(torch.tensor(weights))
        self.adapters = nn.ModuleList(_adapter(shape, shapes[-1]) for shape in shapes)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Map one tensor per stage to one in the shape of the last."""
        adapted = [adapter(features) for adapter, features in zip(self.adapters, stages, strict=True)]
        return torch.stack([weight * x for weight, x in zip(self.beta, adapted, strict=True)]).sum(dim=0)


class Sluice(MultiTaskModel, MixesNetworks):
    """One network per task; subspaces of all networks are mixed after each stage, and each head sees all stages.

    Source: Ruder et al., "Latent Multi-task Architecture Learning" (AAAI 2019). The penalty is orthogonality_weight *
    sum over tasks, stages and pairs of subspaces of ‖G_1^T G_2‖²; the columns of G_s are the weights of the subspace's
    channels in the stage's last layer, so that channels of different subspaces learn different features (in the
    authors' code they are rows, which needs subspaces of equal size). The paper's stages are LSTMs of one size; here,
    if stages differ in shape, features of earlier stages are resized (maps become vectors by their mean) and mapped to
    the last stage's channels by a learned 1x1 convolution per task. Backbones start from different random weights.
    Shared: all backbones and alphas. Per task: the betas, the convolutions before them, the head. Size: one backbone,
    one set of betas and one head per task, and (K S)² alphas per stage.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the networks; filled in from the group `backbone`.
        num_subspaces: S, from 1 to the channels of the narrowest stage. Paper: 2.
        self_weight: initial weight of a subspace in its mixture, in [0, 1]; the rest is divided equally among all
            others, of all tasks. Default: .9, as in cross-stitch networks.
        last_stage_weight: initial weight of the last stage in the head's mixture, in [0, 1]; the rest is divided
            equally among the others. Authors' code: .9.
        orthogonality_weight: factor of the penalty, >= 0. .1 in the example of the authors' code.
        unit_lr_scale: learning rate of alphas and betas as a multiple of that of the other parameters. Authors' code:
            the same for all.
        init_from: folder of a run of model=single whose networks these start from; None for random weights.
    """

    @checked
    def __init__(
        self,
        tasks: Mapping[str, TaskLike],
        backbone: BackboneFactory,
        num_subspaces: Parts = 2,
        self_weight: Fraction = 0.9,
        last_stage_weight: Fraction = 0.9,
        orthogonality_weight: NonNegative = 0.1,
        unit_lr_scale: Positive = 1.0,
        init_from: str | None = None,
    ) -> None:
        super().__init__(tuple(tasks))
        self.init_from = init_from
        self.backbones = ParallelBackbones(tasks, backbone)
        shapes = one_of(self.backbones).stage_shapes
        narrowest = min(shape[0] for shape in shapes)
        if num_subspaces > narrowest:
            raise ValueError(
                f"num_subspaces must be in 1..{narrowest}, the channels of the narrowest stage, found {num_subspaces}"
            )
        if num_subspaces > 1 and orthogonality_weight > 0 and not _last_weights(one_of(self.backbones)):
            raise ValueError(
                "orthogonality_weight must be 0 for a backbone with no linear layer or convolution that gives a "
                f"stage's channels, found {orthogonality_weight}"
            )
        self.units = nn.ModuleList(SubspaceUnit(len(tasks), num_subspaces, self_weight) for _ in shapes)
        self.heads = make_heads(tasks, shapes[-1], one_of(self.backbones).input_shape)
        self.skips = nn.ModuleDict({task: Skip(shapes, last_stage_weight) for task in tasks})
        self.num_subspaces, self.orthogonality_weight, self.unit_lr_scale = (
            num_subspaces,
            orthogonality_weight,
            unit_lr_scale,
        )

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested = self.requested(tasks)
        mixed: list[list[Tensor]] = []  # the tasks' features after each stage

        def mix(index: int, features: list[Tensor]) -> list[Tensor]:
            mixed.append(self.units[index](features))
            return mixed[-1]

        self.backbones(inputs, mix)
        predictions = {
            task: self.heads[task](self.skips[task](stages))
            for task, stages in zip(self.task_names, zip(*mixed, strict=True), strict=True)
            if task in requested
        }
        if not self.training or self.num_subspaces < 2 or self.orthogonality_weight == 0:
            return Output(predictions)
        return Output(predictions, regularizers={"orthogonality": self.orthogonality_weight * self.overlap()})

    def overlap(self) -> Tensor:
        """Return the sum over tasks, stages and pairs of subspaces of ‖G_1^T G_2‖². Shape []."""
        weights = [weight for network in self.backbones.values() for weight in _last_weights(network)]  # type: ignore[arg-type]
        with without_autocast(weights[0]):
            overlaps = [
                (ours @ theirs.mT).square().sum()
                for weight in weights
                for ours, theirs in combinations(weight.flatten(1).tensor_split(self.num_subspaces), 2)
            ]
        return torch.stack(overlaps).sum()

    def mixing(self) -> Tensor:
        num_tasks, count = len(self.task_names), self.num_subspaces
        alphas: list[Tensor] = [unit.alpha for unit in self.units]  # type: ignore[misc]
        sizes = torch.stack([alpha.abs().view(num_tasks, count, num_tasks, count).sum(dim=(1, 3)) for alpha in alphas])
        return sizes / sizes.sum(dim=-1, keepdim=True)

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
                ParameterGroup(task, [*skip.adapters.parameters(), *head.parameters()], task=task),
            ]
        return groups


def _with_zeros(part: Tensor) -> Tensor:
    """Return features with one channel of zeros appended."""
    return torch.cat([part, torch.zeros_like(part[:, :1])], dim=1)


def _adapter(source: Shape, target: Shape) -> nn.Module:
    """Return a map from features of one shape to another: the identity, or resizing and a 1x1 convolution."""
    if source == target:
        return nn.Identity()
    return nn.Sequential(Resize(target[1:]), conv1x1_or_linear((source[0], *target[1:]), target[0], bias=False))


def _last_weights(network: Backbone) -> list[Tensor]:
    """Return the weights of each stage's last linear layer or convolution that gives as many channels as the stage."""
    weights = []
    for stage, channels in zip(network.stages, network.stage_channels, strict=True):
        layers = [module.weight for module in stage.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
        weights += [weight for weight in layers if weight.shape[0] == channels][-1:]
    return weights
