"""Association of the labels of two tasks, by a measure that suits their kinds, and overlap of their labeled samples."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, product
from math import nan, sqrt
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy
    import numpy.typing

#: Fewer samples with both labels say nothing.
FEWEST = 10


@dataclass(frozen=True)
class Labels:
    """The labels of a task on the samples of a split.

    Args:
        kind: what the values are: `categories` are classes without an order, yes and no included; `numbers` have one.
        values: float64 [n, columns], NaN where there is no label: a column for each label or number of the task.
    """

    kind: Literal["categories", "numbers"]
    values: "numpy.ndarray"

    @property
    def present(self) -> "numpy.ndarray":
        """Which samples have a label, bool [n]."""
        import numpy

        present: numpy.ndarray = ~numpy.isnan(self.values).all(axis=1)
        return present


def associate(one: Labels, other: Labels) -> float:
    """Return the association of two tasks' labels in [0, 1]; NaN if too few samples have both, or a label is constant.

    Cramér's V between categories, the correlation ratio between categories and numbers, and the absolute value of
    Spearman's rank correlation between numbers; the first two are corrected for what independent labels would give. Of
    tasks with several labels or numbers, the mean over all pairs of these.

    Args:
        one, other: on the same samples.
    """
    import numpy

    values = []
    for ours, theirs in product(one.values.T, other.values.T):
        both = ~(numpy.isnan(ours) | numpy.isnan(theirs))
        if both.sum() < FEWEST:
            continue
        a, b = ours[both], theirs[both]
        if len(numpy.unique(a)) < 2 or len(numpy.unique(b)) < 2:
            continue
        if one.kind == other.kind == "categories":
            values.append(cramers_v(a, b))
        elif one.kind == other.kind:
            values.append(abs(spearman(a, b)))
        else:
            values.append(correlation_ratio(a, b) if one.kind == "categories" else correlation_ratio(b, a))
    return float(numpy.mean(values)) if values else nan


def overlap(one: Labels, other: Labels) -> float:
    """Return the number of samples that have both tasks' labels, as a fraction of those that have one of the two."""
    ours, theirs = one.present, other.present
    either = int((ours | theirs).sum())
    return int((ours & theirs).sum()) / either if either else nan


def cramers_v(a: "numpy.ndarray", b: "numpy.ndarray") -> float:
    """Return Cramér's V of two categories [n], corrected for bias, in [0, 1].

    Source: Bergsma, "A bias-correction for Cramér's V and Tschuprow's T" (Journal of the Korean Statistical Society,
    2013). Without the correction, ten classes each and a hundred samples give independent labels a V of .3.
    """
    import numpy

    _, rows = numpy.unique(a, return_inverse=True)
    _, columns = numpy.unique(b, return_inverse=True)
    r, c, n = int(rows.max()) + 1, int(columns.max()) + 1, len(a)
    counts = numpy.bincount(rows * c + columns, minlength=r * c).reshape(r, c)
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0, keepdims=True) / n
    phi2 = float(((counts - expected) ** 2 / expected).sum()) / n
    corrected = max(0.0, phi2 - (r - 1) * (c - 1) / (n - 1))
    smaller = min(r - (r - 1) ** 2 / (n - 1), c - (c - 1) ** 2 / (n - 1)) - 1
    return min(1.0, sqrt(corrected / smaller)) if smaller > 0 else nan


def correlation_ratio(categories: "numpy.ndarray", numbers: "numpy.ndarray") -> float:
    """Return the correlation ratio of numbers [n] on categories [n], corrected for bias, in [0, 1].

    Its square is the fraction of the numbers' variance that lies between the categories, less what chance gives
    (epsilon squared: Kelley, "An Unbiased Correlation Ratio Measure", PNAS 1935).
    """
    import numpy

    _, groups = numpy.unique(categories, return_inverse=True)
    counts = numpy.bincount(groups)
    means = numpy.bincount(groups, numbers) / counts
    total = float(((numbers - numbers.mean()) ** 2).sum())
    within = float(((numbers - means[groups]) ** 2).sum())
    n, k = len(numbers), len(counts)
    return sqrt(max(0.0, 1 - within / total * (n - 1) / (n - k))) if n > k and total > 0 else nan


def spearman(a: "numpy.typing.ArrayLike", b: "numpy.typing.ArrayLike") -> float:
    """Return Spearman's rank correlation of two columns [n], with the mean rank for ties, in [-1, 1].

    NaN if all values of a column are equal.
    """
    import numpy

    ranks = [_ranks(numpy.asarray(values)) for values in (a, b)]
    if any(column.min() == column.max() for column in ranks):
        return nan
    return float(numpy.corrcoef(ranks)[0, 1])


def _ranks(values: "numpy.ndarray") -> "numpy.ndarray":
    import numpy

    _, groups, counts = numpy.unique(values, return_inverse=True, return_counts=True)
    last = numpy.cumsum(counts)
    ranks: numpy.ndarray = (last - (counts - 1) / 2)[groups]
    return ranks


def associate_all(labels: Mapping[str, Labels]) -> dict[str, dict[tuple[str, str], float]]:
    """Return {measure: {(task, other): value}} of the association and the overlap of all pairs of tasks.

    Args:
        labels: {task: its labels}, all on the same samples.
    """
    pairs = list(combinations(labels, 2))
    return {
        "labels": {(a, b): associate(labels[a], labels[b]) for a, b in pairs},
        "overlap": {(a, b): overlap(labels[a], labels[b]) for a, b in pairs},
    }
