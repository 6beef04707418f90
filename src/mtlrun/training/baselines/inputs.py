"""Inputs as scikit-learn takes them: vectors of numbers, in which a column may hold indices of categories."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from numpy import ndarray
from torch import Tensor

from mtlrun.datasets.input_columns import InputColumn

#: Categories of a column that are told apart, those with the most training samples; boosting takes no more.
MOST_CATEGORIES = 254


@dataclass(frozen=True)
class Encoded:
    """The inputs of all splits.

    Args:
        splits: {split: [num_samples, num_features], float64}, an array, or a sparse matrix of rows (CSR).
        categories: positions of the columns that hold codes of categories.
    """

    splits: Mapping[str, Any]
    categories: Sequence[int] = ()

    def select(self, split: str, rows: ndarray) -> Any:
        """Return some samples of a split, in ascending order; all without a copy."""
        inputs = self.splits[split]
        return inputs if len(rows) == inputs.shape[0] else inputs[rows]


def encode(method: str, inputs: Mapping[str, Tensor], columns: Sequence[InputColumn] | None) -> Encoded:
    """Return the inputs as a linear model, or boosting, needs them.

    Numbers stay as they are. Of a column of indices, the categories that are rare in training are merged into one, with
    those that it lacks; for boosting the column holds codes, for a linear model it becomes an indicator of each.

    Args:
        method: `linear` or `boosting`.
        inputs: of each split, [num_samples, num_columns].
        columns: what the numbers mean; None if all are quantities.
    """
    arrays = {split: tensor.cpu().double().numpy() for split, tensor in inputs.items()}
    positions = [place for place, column in enumerate(columns or ()) if column.kind == "category"]
    if not positions:
        return Encoded(arrays)
    codes = {place: _codes({split: array[:, place] for split, array in arrays.items()}) for place in positions}
    if method == "boosting":
        for split, array in arrays.items():
            array = arrays[split] = array.copy()  # it may be the memory of the split itself
            for place in positions:
                array[:, place] = codes[place][split]
        return Encoded(arrays, positions)
    others = [place for place in range(next(iter(arrays.values())).shape[1]) if place not in codes]
    widths = [int(of_splits["train"].max()) + 1 for of_splits in codes.values()]
    return Encoded({
        split: _with_indicators(array[:, others], [of_splits[split] for of_splits in codes.values()], widths)
        for split, array in arrays.items()
    })  # fmt: skip


def _codes(indices: Mapping[str, ndarray]) -> dict[str, ndarray]:
    """Return 1, 2, ... for the most frequent categories of training, in this order, and 0 for all others."""
    values, counts = numpy.unique(indices["train"], return_counts=True)
    frequent = values[numpy.argsort(-counts, kind="stable")][:MOST_CATEGORIES]
    code_of = {value: code for code, value in enumerate(frequent.tolist(), 1)}
    return {split: numpy.array([code_of.get(value, 0) for value in of.tolist()]) for split, of in indices.items()}


def _with_indicators(numbers: ndarray, codes: Sequence[ndarray], widths: Sequence[int]) -> Any:
    """Return the numbers of each sample, and an indicator for each code but 0, which is the absence of all others."""
    from scipy import sparse

    parts = [sparse.csr_matrix(numbers)]
    for of_column, width in zip(codes, widths, strict=True):
        rows = numpy.flatnonzero(of_column)
        ones = numpy.ones(len(rows))
        parts.append(sparse.csr_matrix((ones, (rows, of_column[rows] - 1)), shape=(len(of_column), width - 1)))
    return sparse.hstack(parts, format="csr")
