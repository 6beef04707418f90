"""Backward passes of losses whose weights are known."""

import torch
from torch import Tensor

from mtlrun.gradients.task_gradients import LossGraph


def backward_weighted(graph: LossGraph, factors: list[float], head_loss: str) -> None:
    """Set `.grad` from losses whose weights are known, by one pass over the shared part.

    Args:
        graph: of the losses.
        factors: their weights in the shared parameters' gradient.
        head_loss: `weighted` if these are those of the tasks' parameters as well, `unweighted` for ones.
    """
    shared = list(graph.sharing.shared)
    task_params = [parameter for group in graph.sharing.task_params for parameter in group]
    weighted = _weighted(graph, factors)
    if head_loss == "weighted":
        torch.autograd.backward(weighted, inputs=[*shared, *task_params])
        return
    if task_params:
        torch.autograd.backward(torch.stack(list(graph.losses)).sum(), inputs=task_params, retain_graph=True)
    torch.autograd.backward(weighted, inputs=shared)  # last, since it walks and frees the whole graph


def backward_shared(graph: LossGraph, factors: list[float]) -> None:
    """Set `.grad` of the shared parameters from losses whose weights are known, by one pass, which frees the graph."""
    with torch.enable_grad():
        weighted = _weighted(graph, factors)
    torch.autograd.backward(weighted, inputs=list(graph.sharing.shared))


def _weighted(graph: LossGraph, factors: list[float]) -> Tensor:
    """Return the sum of the losses times their weights."""
    return torch.stack([factor * loss for factor, loss in zip(factors, graph.losses, strict=True)]).sum()
