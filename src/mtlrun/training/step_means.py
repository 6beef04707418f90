"""Means over the steps since the last point of the curves, and over an epoch's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtlrun.records.tags import affinity_tag, cosine_tag

# So many steps are kept before they are summed up, where nothing asks for a mean earlier.
_KEPT = 256


@dataclass(frozen=True)
class _Step:
    """What a step hands over, as it lies on the device."""

    active: slice | Tensor
    losses: Tensor
    weights: Tensor | None
    gram: Tensor | None


class StepMeans:
    """Means of losses, task weights, gradient norms, cosines and affinities over the steps since the last reset.

    The losses are averaged over the steps of each epoch as well. A step's tensors are kept as they are, and read from
    the device when a mean is asked for, those of all steps in one copy. The sums are in float64 and in the order of the
    steps, so they do not depend on when that is.

    Args:
        tasks: names of the K tasks.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        self._tasks = list(tasks)
        num_tasks = len(self._tasks)
        # Sums, [0], and counts, [1].
        self._sums = {
            "losses": numpy.zeros((2, num_tasks)),
            "epoch_losses": numpy.zeros((2, num_tasks)),
            "weights": numpy.zeros((2, num_tasks)),
            "norms": numpy.zeros((2, num_tasks)),
            "cosines": numpy.zeros((2, num_tasks, num_tasks)),
            "conflicts": numpy.zeros((2, 1)),  # pairs of tasks that conflict, and all pairs
            "affinities": numpy.zeros((2, num_tasks, num_tasks)),
        }
        self._kept: list[_Step | None] = []  # None: an epoch begins

    def start_epoch(self) -> None:
        """Start the means of an epoch."""
        self._kept.append(None)

    def reset(self) -> None:
        """Start over."""
        self._add_kept()
        for name, sums in self._sums.items():
            if name != "epoch_losses":
                sums[:] = 0

    def add(self, active: slice | Tensor, losses: Tensor, weights: Tensor | None, gram: Tensor | None) -> None:
        """Add one step.

        Args:
            active: index of the tasks with a loss in this step, on the CPU; the other arguments have one entry for
                each, and are not changed in place later.
            losses: of these tasks.
            weights: task weights; None if the method has none.
            gram: inner products of the task gradients, on the CPU; None if they were not computed.
        """
        self._kept.append(_Step(active, losses, weights, gram))
        if len(self._kept) > _KEPT:
            self._add_kept()

    def add_affinity(self, active: slice | Tensor, affinity: Tensor) -> None:
        """Add the lookahead affinities [K, K] of the tasks with a loss in one step; what is not finite is left out.

        Args:
            active: index of these tasks.
            affinity: on the CPU; see `mtlrun.gradients.lookahead_affinity`.
        """
        found = affinity.double().numpy()
        _add(
            self._sums["affinities"], _grid(active), numpy.where(numpy.isfinite(found), found, 0), numpy.isfinite(found)
        )

    def _add_kept(self) -> None:
        """Add the steps that are kept to the sums."""
        kept, self._kept = self._kept, []
        steps = [step for step in kept if step is not None]
        losses = iter(_read([step.losses for step in steps]))
        weights = iter(_read([step.weights for step in steps if step.weights is not None]))
        for step in kept:
            if step is None:
                self._sums["epoch_losses"][:] = 0
                continue
            index: Any = step.active if isinstance(step.active, slice) else step.active.numpy()
            values = next(losses)
            _add(self._sums["losses"], index, values)
            _add(self._sums["epoch_losses"], index, values)
            if step.weights is not None:
                _add(self._sums["weights"], index, next(weights))
            if step.gram is not None:
                self._add_gram(step.active, step.gram.numpy())

    def _add_gram(self, active: slice | Tensor, gram: NDArray[numpy.float64]) -> None:
        norms = numpy.sqrt(numpy.maximum(gram.diagonal(), 0))
        products = norms[:, None] * norms
        # A zero gradient has no direction: it counts as orthogonal to all others.
        cosines = numpy.divide(gram, products, out=numpy.zeros_like(gram), where=products > 0)
        _add(self._sums["norms"], active if isinstance(active, slice) else active.numpy(), norms)
        _add(self._sums["cosines"], _grid(active), cosines)
        pairs = numpy.triu(gram < 0, k=1)
        _add(self._sums["conflicts"], slice(None), pairs.sum(), len(gram) * (len(gram) - 1) // 2)

    def means(self) -> dict[str, float]:
        """Return {TensorBoard tag: mean}; tags without a value in these steps are left out."""
        self._add_kept()
        means: dict[str, float] = {}
        for tag, name in {"train/{}/loss": "losses", "weight/{}": "weights", "grad_norm/{}": "norms"}.items():
            means |= {tag.format(task): mean for task, mean in self._by_task(name).items()}
        tasks = self._tasks
        sums, counts = self._sums["cosines"].tolist()
        for a, b in combinations(range(len(tasks)), 2):
            if counts[a][b]:
                means[cosine_tag(tasks[a], tasks[b])] = sums[a][b] / counts[a][b]
        sums, counts = self._sums["affinities"].tolist()
        for a, b in numpy.argwhere(self._sums["affinities"][1]).tolist():
            means[affinity_tag(tasks[a], tasks[b])] = sums[a][b] / counts[a][b]
        (conflicts,), (pairs,) = self._sums["conflicts"].tolist()
        if pairs:
            means["grad_conflict"] = conflicts / pairs
        return means

    def epoch_losses(self) -> dict[str, float]:
        """Return {task: its mean loss over the steps of this epoch so far} for tasks with a loss in any of them."""
        self._add_kept()
        return self._by_task("epoch_losses")

    def _by_task(self, name: str) -> dict[str, float]:
        sums, counts = self._sums[name].tolist()
        return {task: total / count for task, total, count in zip(self._tasks, sums, counts, strict=True) if count}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the sums, so that the means of a continued run are those of an uninterrupted one."""
        self._add_kept()
        return {name: torch.from_numpy(sums.copy()) for name, sums in self._sums.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self._kept = []
        self._sums = {name: state[name].numpy().copy() for name in self._sums}


def _add(sums: NDArray[numpy.float64], index: Any, values: Any, counts: Any = 1) -> None:
    """Add to sums, [0], and counts, [1], at an index of the tasks, or of their pairs."""
    sums[0][index] += values
    sums[1][index] += counts


def _grid(active: slice | Tensor) -> Any:
    """Return the index of all pairs of these tasks."""
    return active if isinstance(active, slice) else numpy.ix_(active.numpy(), active.numpy())


def _read(tensors: Sequence[Tensor]) -> list[NDArray[numpy.float64]]:
    """Return the numbers of tensors [n]; those of one device are read at once."""
    if not tensors:
        return []
    if len({tensor.device for tensor in tensors}) > 1:
        tensors = [tensor.cpu() for tensor in tensors]
    joined = torch.cat(list(tensors)).detach().double().cpu().numpy()
    return numpy.split(joined, numpy.cumsum([len(tensor) for tensor in tensors[:-1]]))
