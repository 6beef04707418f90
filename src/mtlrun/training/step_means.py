"""Means over the steps since the last point of the curves, and over an epoch's, summed on the device."""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from mtlrun.records.tags import affinity_tag, cosine_tag
from mtlrun.weightings.state.active_tasks import index_on
from mtlrun.weightings.transfer import sent


class StepMeans:
    """Means of losses, task weights, gradient norms, cosines and affinities over the steps since the last reset.

    The losses are averaged over the steps of each epoch as well. Nothing waits for the device until a mean is read.

    Args:
        tasks: names of the K tasks.
        device: of the losses and task weights.
    """

    def __init__(self, tasks: Sequence[str], device: torch.device) -> None:
        self._tasks = list(tasks)
        self._device = device
        # Sums and counts since the last reset, [0], and in this epoch, [1]: both are added to by one operation.
        self._all_losses = torch.zeros(2, 2, len(self._tasks), dtype=torch.float32, device=self._device)
        self.reset()

    @property
    def _losses(self) -> Tensor:
        return self._all_losses[0]

    def start_epoch(self) -> None:
        """Start the means of an epoch."""
        self._all_losses[1] = 0

    def reset(self) -> None:
        """Start over."""
        num_tasks = len(self._tasks)
        # Also where the default is half precision, in which sums lose what is added. [0]: sums, [1]: counts.
        self._all_losses[0] = 0
        self._weights = torch.zeros(2, num_tasks, dtype=torch.float32, device=self._device)
        self._norms = torch.zeros(2, num_tasks, dtype=torch.float64)
        self._cosines = torch.zeros(2, num_tasks, num_tasks, dtype=torch.float64)
        self._conflicts = torch.zeros(2, 1, dtype=torch.float64)  # pairs of tasks that conflict, and all pairs
        self._affinities = torch.zeros(2, num_tasks, num_tasks, dtype=torch.float64)

    def add(self, active: slice | Tensor, losses: Tensor, weights: Tensor | None, gram: Tensor | None) -> None:
        """Add one step.

        Args:
            active: index of the tasks with a loss in this step, on the CPU; the other arguments have one entry for
                each.
            losses: of these tasks.
            weights: task weights; None if the method has none.
            gram: inner products of the task gradients, on the CPU; None if they were not computed.
        """
        on_device = index_on(active, self._device)
        self._all_losses[:, 0, on_device] += losses
        self._all_losses[:, 1, on_device] += 1
        if weights is not None:
            self._weights[0, on_device] += sent(weights, self._device, self._weights.dtype)
            self._weights[1, on_device] += 1
        if gram is not None:
            norms = gram.diagonal().clamp_min(0).sqrt()
            self._norms[0, active] += norms
            self._norms[1, active] += 1
            grid = self._grid(active)
            products = norms.unsqueeze(1) * norms.unsqueeze(0)
            # A zero gradient has no direction: it counts as orthogonal to all others.
            self._cosines[0][grid] += torch.where(products > 0, gram / products, 0.0)
            self._cosines[1][grid] += 1
            pairs = torch.triu_indices(len(gram), len(gram), offset=1)
            self._conflicts[0] += (gram[pairs[0], pairs[1]] < 0).sum()
            self._conflicts[1] += pairs.shape[1]

    def add_affinity(self, active: slice | Tensor, affinity: Tensor) -> None:
        """Add the lookahead affinities [K, K] of the tasks with a loss in one step; what is not finite is left out.

        Args:
            active: index of these tasks.
            affinity: on the CPU; see `mtlrun.gradients.lookahead_affinity`.
        """
        grid = self._grid(active)
        finite = affinity.isfinite()
        self._affinities[0][grid] += torch.where(finite, affinity, 0.0)
        self._affinities[1][grid] += finite

    def _grid(self, active: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Return the index of all pairs of these tasks."""
        positions = torch.arange(len(self._tasks))[active]
        return positions.unsqueeze(1), positions.unsqueeze(0)

    def means(self) -> dict[str, float]:
        """Return {TensorBoard tag: mean}; tags without a value in these steps are left out."""
        means = {}
        for tag, (sums, counts) in {
            "train/{}/loss": self._losses,
            "weight/{}": self._weights,
            "grad_norm/{}": self._norms,
        }.items():
            for task, value, count in zip(self._tasks, sums.tolist(), counts.tolist(), strict=True):
                if count:
                    means[tag.format(task)] = value / count
        for a, b in combinations(range(len(self._tasks)), 2):
            if self._cosines[1, a, b]:
                mean = float(self._cosines[0, a, b] / self._cosines[1, a, b])
                means[cosine_tag(self._tasks[a], self._tasks[b])] = mean
        for a, b in self._affinities[1].nonzero().tolist():
            mean = float(self._affinities[0, a, b] / self._affinities[1, a, b])
            means[affinity_tag(self._tasks[a], self._tasks[b])] = mean
        if self._conflicts[1]:
            means["grad_conflict"] = float(self._conflicts[0] / self._conflicts[1])
        return means

    def epoch_losses(self) -> dict[str, float]:
        """Return {task: its mean loss over the steps of this epoch so far} for tasks with a loss in any of them."""
        sums, counts = self._all_losses[1].tolist()
        return {task: sum_ / count for task, sum_, count in zip(self._tasks, sums, counts, strict=True) if count}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the sums, so that the means of a continued run are those of an uninterrupted one."""
        return {
            "losses": self._all_losses.clone(),
            "weights": self._weights,
            "norms": self._norms,
            "cosines": self._cosines,
            "conflicts": self._conflicts,
            "affinities": self._affinities,
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self._all_losses = state["losses"].to(self._device)
        self._weights = state["weights"].to(self._device)
        self._norms = state["norms"]
        self._cosines = state["cosines"]
        self._conflicts = state["conflicts"]
        self._affinities = state["affinities"]
