"""TorchJD as a contestant of the benchmarks: its aggregators by mtlrun's names, and its three ways to an update.

Where TorchJD, or one of its extras that an aggregator needs, is not installed, asking for it raises ImportError.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

#: Weighting -> TorchJD's aggregator; those without one are mtlrun's alone, or have no equal there.
AGGREGATORS = {
    "mgda": "MGDA",
    "pcgrad": "PCGrad",
    "graddrop": "GradDrop",
    "imtl_g": "IMTLG",
    "aligned_mtl": "AlignedMTL",
    "config": "ConFIG",
    "cagrad": "CAGrad",
    "nash_mtl": "NashMTL",
    "fairgrad": "FairGrad",
    "dualproj": "DualProj",
    "upgrad": "UPGrad",
    "gradvac": "GradVac",
}
#: The ways, by the names that the tables have: all rows in one call that vmap batches, which is its default; one after
#: the other (`parallel_chunk_size=1`); and the Gram matrix alone, then one backward pass of the weighted losses.
WAYS = ("TorchJD", "TorchJD, sequential", "TorchJD, Gram engine")


def aggregator(name: str, num_tasks: int) -> Any:
    """Return TorchJD's aggregator for mtlrun's weighting `name`; what has no default there gets mtlrun's."""
    import torchjd.aggregation

    made = getattr(torchjd.aggregation, AGGREGATORS[name])
    arguments = {"cagrad": {"c": 0.4}, "nash_mtl": {"n_tasks": num_tasks}, "fairgrad": {"alpha": 2.0}}
    return made(**arguments.get(name, {}))


def by_rows(
    name: str, shared: Sequence[nn.Parameter], own: Sequence[Sequence[nn.Parameter]], *, chunk: int | None = None
) -> Callable[[Tensor, Sequence[Tensor]], None]:
    """Return a function that sets `.grad` by TorchJD's `mtl_backward`, of the representation and the K losses.

    Args:
        name: of mtlrun's weighting.
        shared: parameters of the trunk.
        own: those of the K heads.
        chunk: rows in one call that vmap batches; None for all, 1 for passes one after the other.
    """
    from torchjd.autojac import jac_to_grad, mtl_backward

    combine = aggregator(name, len(own))

    def run(features: Tensor, losses: Sequence[Tensor]) -> None:
        mtl_backward(list(losses), features, tasks_params=own, shared_params=shared, parallel_chunk_size=chunk)
        jac_to_grad(shared, combine)

    return run


def by_gram(name: str, trunk: nn.Module, num_tasks: int) -> Callable[[Tensor, Sequence[Tensor]], None]:
    """Return a function that sets `.grad` by TorchJD's `Engine`, for aggregators that need the Gram matrix alone.

    The engine's hooks stay on the trunk and slow its forward pass, so it needs a trunk of its own. The heads' gradients
    are weighted as well.

    Raises:
        ValueError: the aggregator needs more than the Gram matrix.
    """
    from torchjd.autogram import Engine

    weighting = getattr(aggregator(name, num_tasks), "gramian_weighting", None)
    if weighting is None:
        raise ValueError(f"TorchJD's {AGGREGATORS[name]} has no weights that come from the Gram matrix")
    engine = Engine(trunk, batch_dim=None)  # the K losses have no batch dimension

    def run(features: Tensor, losses: Sequence[Tensor]) -> None:
        stacked = torch.stack(list(losses))
        stacked.backward(weighting(engine.compute_gramian(stacked)))

    return run
