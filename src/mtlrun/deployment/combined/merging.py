"""Formulas of merging: one set of weights from several that were trained from the same initial ones.

All functions take and return {name: tensor}, float64, with the same names.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]

#: The fraction of the entries of each task vector that TIES keeps.
KEPT = 0.2


def average(networks: Sequence[Weights]) -> dict[str, Tensor]:
    """Return the mean of the weights.

    Source: Wortsman et al., "Model soups" (ICML 2022), of networks that were trained for one task.
    """
    return {name: torch.stack([weights[name] for weights in networks]).mean(dim=0) for name in networks[0]}


def task_vector_sum(networks: Sequence[Weights], initial: Weights) -> dict[str, Tensor]:
    """Return the sum of the task vectors, the changes of the weights by training.

    Source: Ilharco et al., "Editing Models with Task Arithmetic" (ICLR 2023).
    """
    return {
        name: torch.stack([weights[name] - start for weights in networks]).sum(dim=0) for name, start in initial.items()
    }


def ties(networks: Sequence[Weights], initial: Weights, kept: float = KEPT) -> dict[str, Tensor]:
    """Return the task vector that TIES merges: trimmed, of elected signs, the disjoint mean.

    Of each task vector, the fraction `kept` of its entries with the largest absolute values is kept, over all tensors
    together, and the others are 0. The sign of an entry is that of the sum over the trimmed vectors; the result is the
    mean over those that have this sign, and 0 if there are none.

    Source: Yadav et al., "TIES-Merging: Resolving Interference When Merging Models" (NeurIPS 2023), section 3.
    """
    vectors = torch.stack([_flatten(weights) - _flatten(initial) for weights in networks])
    size = vectors.shape[1]
    trimmed = torch.zeros_like(vectors)
    largest = vectors.abs().topk(max(1, round(kept * size)), dim=1).indices
    trimmed.scatter_(1, largest, vectors.gather(1, largest))
    elected = trimmed.sum(dim=0).sign()
    agrees = (trimmed.sign() == elected) & (trimmed != 0)
    merged = (trimmed * agrees).sum(dim=0) / agrees.sum(dim=0).clamp(min=1)
    return _like(initial, merged)


def apply(initial: Weights, vector: Weights, scale: float) -> dict[str, Tensor]:
    """Return the initial weights plus a multiple of a task vector."""
    return {name: start + scale * vector[name] for name, start in initial.items()}


def _flatten(weights: Weights) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in weights.values()])


def _like(weights: Weights, flat: Tensor) -> dict[str, Tensor]:
    parts = flat.split([tensor.numel() for tensor in weights.values()])
    return {name: part.reshape(tensor.shape) for (name, tensor), part in zip(weights.items(), parts, strict=True)}
