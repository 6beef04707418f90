"""Task gradients of one segment of the shared part after the other, of which only the inner products are kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise
from math import inf

import torch
from torch import Tensor, nn

from mtlrun.gradients.gram import Gradient, gram_matrix, inner_products
from mtlrun.gradients.task_gradients import LossGraph, TaskGradients, fill, gradients_of
from mtlrun.weightings.inner_products import LARGEST_SQUARE, SMALLEST_SQUARE


@dataclass(frozen=True)
class Chain:
    """The shared part of a network as a chain of links, each with other parameters.

    Args:
        parameters: the trained ones of each link; together they are all that is shared.
        cuts: what each link puts out, with its graph, None where it cannot be cut; the last one is the representation.
    """

    parameters: Sequence[Sequence[nn.Parameter]]
    cuts: Sequence[Tensor | None]

    def inner_products(
        self, at_representation: Sequence[Gradient], products: Callable[[list[Gradient]], Tensor] = inner_products
    ) -> Tensor:
        """Return the inner products [K, K] of the task gradients of all parameters; the graph is kept.

        From the last segment to the first, the K gradients at its end are pulled back to its parameters and to its
        beginning. So the K gradients of one segment are in memory at a time, besides those at its two ends.

        Args:
            at_representation: the K gradients at the last cut.
            products: of the task gradients of a segment.
        """
        count = len(at_representation)
        total = torch.zeros(count, count, dtype=torch.float64, device=at_representation[0][0].device)
        gradients = [list(gradient) for gradient in at_representation]
        for start, stop in reversed(self.segments()):
            parameters = [parameter for link in self.parameters[start:stop] for parameter in link]
            first, last = self.cuts[start - 1] if start else None, self.cuts[stop - 1]
            before = [first] if first is not None and first.requires_grad else []
            of_parameters, at_start = [], []
            for position, gradient in enumerate(gradients):
                assert last is not None
                found = gradients_of([last], [*parameters, *before], gradient, retain=True)
                gradients[position] = []  # each is dropped as soon as it was pulled back
                of_parameters.append(found[: len(parameters)])
                at_start.append(found[len(parameters) :])
            if parameters:
                total += products(fill(of_parameters, parameters)[0]).to(total.device)
            del of_parameters
            if not before:
                break
            gradients = fill(at_start, before)[0]
        return total

    def segments(self) -> list[tuple[int, int]]:
        """Return from which link, up to but not including which, each segment goes."""
        ends = [None if cut is None else cut.numel() for cut in self.cuts]
        sizes = [sum(map(torch.numel, link)) for link in self.parameters]
        return list(pairwise(choose_cuts(tuple(ends), tuple(sizes))))


@cache
def choose_cuts(ends: tuple[int | None, ...], sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the links at which segments begin and end, such that the largest one needs as little memory as possible.

    What a segment needs is, for each task, the gradients at its end and then those of its parameters and at its
    beginning. Of equals, the fewest segments are taken.

    Args:
        ends: the size of what each link puts out, None where no segment may end.
        sizes: the number of parameters in each link.
    """
    starts, until = [0, *(inf if end is None else end for end in ends)], [0, *accumulate(sizes)]

    def needed(start: int, stop: int) -> float:
        return max(starts[stop], until[stop] - until[start] + starts[start])

    least = [0.0]  # for what is before each link
    for stop in range(1, len(starts)):
        least.append(min(max(least[start], needed(start, stop)) for start in range(stop)))
    fewest: list[tuple[int, ...] | None] = [(0,)]
    for stop in range(1, len(starts)):
        options = [(*cuts, stop) for start, cuts in enumerate(fewest) if cuts and needed(start, stop) <= least[-1]]
        fewest.append(min(options, key=len, default=None))
    assert fewest[-1] is not None
    return fewest[-1]


class StreamedGradients(TaskGradients):
    """The gradients of K losses, without those of the shared parameters, whose inner products are taken in segments."""

    chain: Chain

    @classmethod
    def stream(cls, graph: LossGraph, chain: Chain) -> "StreamedGradients":
        """Make the backward passes down to the representation; see `TaskGradients.take`."""
        taken = TaskGradients.take(graph, "representation")
        gradients = cls(taken.compared, taken.representation, taken.task_params, taken.reached)
        gradients.chain = chain
        return gradients

    def inner_products(self) -> Tensor:
        return self.chain.inner_products(self.representation)

    def within_range(self, products: Tensor) -> Tensor:
        squares = products.diagonal()
        if ((squares > SMALLEST_SQUARE) & (squares < LARGEST_SQUARE)).all():
            return products
        return self.chain.inner_products(self.representation, gram_matrix).cpu()
