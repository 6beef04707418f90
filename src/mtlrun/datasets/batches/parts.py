"""Parts of batches: samples that go through the model together, and which are labeled, before they are loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy
import torch
from torch import Tensor

from mtlrun.datasets.batches.copying import send

#: {task: which samples are labeled}, None for all of them; of a split as a mask, of a part as positions in it.
Labeled = Mapping[str, Tensor | None]


@dataclass(frozen=True)
class Part:
    """Samples of a batch that go through the model together.

    Args:
        indices: of the samples in their split, int64 [num_samples], on its device.
        positions: for the tasks for which it is known, the positions of the labeled samples in the part, in rising
            order, on the CPU.
        labeled: the same on the device of the split.
    """

    indices: Tensor
    positions: Labeled = field(default_factory=dict)
    labeled: Labeled = field(default_factory=dict)


class Labels:
    """Which samples of a split are labeled, for the tasks for which that is known.

    Args:
        labeled: of all samples, on the CPU.
    """

    def __init__(self, labeled: Labeled) -> None:
        masks = {task: mask for task, mask in labeled.items() if mask is not None}
        self._complete: dict[str, Tensor | None] = {task: None for task, mask in labeled.items() if mask is None}
        self._names = list(masks)
        # An array, since NumPy takes less time for so few numbers.
        self._masks = torch.stack(list(masks.values())).numpy() if masks else numpy.empty((0, 0))

    def divide(self, by_source: Mapping[str, Tensor]) -> dict[str, Part]:
        """Return {source: part}.

        Args:
            by_source: {source: indices of its samples of a batch}, on the CPU.
        """
        parts = {}
        for source, indices in by_source.items():
            positions = self._positions(indices)
            parts[source] = Part(indices, positions, positions)
        return parts

    def _positions(self, indices: Tensor) -> Labeled:
        """Return the positions of the labeled samples among some of the split."""
        if not self._names:
            return self._complete
        chosen = self._masks.take(indices.numpy(), axis=1)
        counts = chosen.sum(axis=1).tolist()
        found = zip(self._names, counts, torch.from_numpy(chosen.nonzero()[1]).split(counts), strict=True)
        size = len(indices)
        return self._complete | {task: None if count == size else places for task, count, places in found}


def place(batches: Sequence[Mapping[str, Part]], device: torch.device) -> list[dict[str, Part]]:
    """Return the parts of several batches as they are for a split on `device`, which they are sent to at once."""
    tensors = [tensor for parts in batches for part in parts.values() for tensor in _tensors(part)]
    if not tensors:
        return []
    placed = iter(send(torch.cat(tensors), device).split([len(tensor) for tensor in tensors]))
    return [
        {
            source: Part(
                next(placed),
                part.positions,
                {task: None if found is None else next(placed) for task, found in part.positions.items()},
            )
            for source, part in parts.items()
        }
        for parts in batches
    ]


def _tensors(part: Part) -> list[Tensor]:
    return [part.indices, *(found for found in part.positions.values() if found is not None)]
