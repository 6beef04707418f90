"""Means over the steps since the last point of the curves, and over an epoch's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
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
        for is_epoch, steps in groupby(kept, key=lambda step: step is None):
            if is_epoch:
                self._sums["epoch_losses"][:] = 0
            else:
                self._add_steps([step for step in steps if step is not None])

    def _add_steps(self, steps: Sequence[_Step]) -> None:
        """Add steps of one epoch to the sums."""
        losses = [(step.active, step.losses) for step in steps]
        self._add_rows(losses, "losses", "epoch_losses")
        self._add_rows([(step.active, step.weights) for step in steps if step.weights is not None], "weights")
        grams = [(step.active, step.gram.numpy()) for step in steps if step.gram is not None]
        if grams and all(isinstance(active, slice) for active, _ in grams):
            self._add_grams(slice(None), numpy.stack([gram for _, gram in grams]))
        else:
            for active, gram in grams:
                self._add_grams(active, gram[None])

    def _add_rows(self, rows: Sequence[tuple[slice | Tensor, Tensor]], *names: str) -> None:
        """Add a number for each task from each of several steps, which are read from the device at once."""
        if not rows:
            return
        found = _read([values for _, values in rows])
        if all(isinstance(active, slice) for active, _ in rows):
            matrix = found.reshape(len(rows), -1)
            for name in names:
                sums = self._sums[name]
                sums[0] = _accumulated(sums[0], matrix)
                sums[1] += len(rows)
            return
        start = 0
        for active, values in rows:
            for name in names:
                _add(self._sums[name], _index(active), found[start : start + len(values)])
            start += len(values)

    def _add_grams(self, active: slice | Tensor, grams: NDArray[numpy.float64]) -> None:
        """Add the inner products [n, K, K] of n steps."""
        count, num_tasks = grams.shape[:2]
        norms = numpy.sqrt(numpy.maximum(grams.diagonal(axis1=1, axis2=2), 0))
        products = norms[:, :, None] * norms[:, None, :]
        # A zero gradient has no direction: it counts as orthogonal to all others.
        cosines = numpy.divide(grams, products, out=numpy.zeros_like(grams), where=products > 0)
        for name, index, values in (("norms", _index(active), norms), ("cosines", _grid(active), cosines)):
            sums = self._sums[name]
            sums[0][index] = _accumulated(sums[0][index], values)
            sums[1][index] += count
        conflicts = numpy.triu(grams < 0, k=1).sum()
        _add(self._sums["conflicts"], slice(None), conflicts, count * num_tasks * (num_tasks - 1) // 2)

    def means(self) -> dict[str, float]:
        """Return {TensorBoard tag: mean}; tags without a value in these steps are left out."""
        self._add_kept()
        means: dict[str, float] = {}
        for tag, name in {"train/{}/loss": "losses", "weight/{}": "weights", "grad_norm/{}": "norms"}.items():
            means |= {tag.format(task): mean for task, mean in self._by_task(name).items()}
        for a, b, mean in self._by_pair("cosines"):
            if a < b:
                means[cosine_tag(self._tasks[a], self._tasks[b])] = mean
        for a, b, mean in self._by_pair("affinities"):
            means[affinity_tag(self._tasks[a], self._tasks[b])] = mean
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

    def _by_pair(self, name: str) -> list[tuple[int, int, float]]:
        """Return (position of a task, of another one, mean) for all pairs that have one."""
        sums, counts = self._sums[name]
        found = counts.nonzero()
        return list(zip(*(index.tolist() for index in found), (sums[found] / counts[found]).tolist(), strict=True))

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


def _accumulated(start: NDArray[numpy.float64], values: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """Return a sum plus n values [n, ...], added one after the other, which NumPy's own sum does not always do."""
    total: NDArray[numpy.float64] = numpy.add.accumulate(numpy.concatenate([start[None], values]))[-1]
    return total


def _index(active: slice | Tensor) -> Any:
    return active if isinstance(active, slice) else active.numpy()


def _grid(active: slice | Tensor) -> Any:
    """Return the index of all pairs of these tasks."""
    return active if isinstance(active, slice) else numpy.ix_(active.numpy(), active.numpy())


def _read(tensors: Sequence[Tensor]) -> NDArray[numpy.float64]:
    """Return the numbers of tensors [n], one after the other; those of one device are read at once."""
    if len({tensor.device for tensor in tensors}) > 1:
        tensors = [tensor.cpu() for tensor in tensors]
    return torch.cat(list(tensors)).detach().double().cpu().numpy()
