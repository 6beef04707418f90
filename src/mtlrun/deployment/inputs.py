"""Readers of new inputs: from files to what the model of a run takes, some samples at a time."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy
from torch import Tensor


@dataclass(frozen=True)
class Samples:
    """Some samples that were read, one after the other in the input; not all of them may be of use.

    Args:
        ids: what each is called: a row of a file, an id, or a path.
        batches: (positions, inputs) of those that can be predicted, some at a time; each is read when it is asked for.
        wrong: {position: why a sample cannot be predicted}; filled while `batches` are read.
    """

    ids: Sequence[str | int]
    batches: Iterator[tuple[numpy.ndarray, Tensor]]
    wrong: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)


class InputReader(ABC):
    """A source of new inputs, encoded as those that the run was trained on."""

    #: True if all ids are whole numbers.
    ids_are_numbers = False

    @abstractmethod
    def read(self, batch_size: int) -> Iterator[Samples]:
        """Yield all samples, in their order.

        Args:
            batch_size: the most samples of a batch.

        Raises:
            DataError: the input cannot be read any further.
        """

    def notes(self) -> list[str]:
        """Return sentences on what was unlike the data of training; complete once all samples were read."""
        return []
