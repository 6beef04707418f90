"""Similarity of the features that networks have learned, by centered kernel alignment (CKA)."""

from collections.abc import Mapping
from itertools import combinations
from math import nan, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy


_FEATURES_AT_ONCE = 4096


def linear_cka(one: "numpy.ndarray", other: "numpy.ndarray") -> float:
    """Return the linear CKA of the features of two networks on the same samples, in [0, 1].

    Source: Kornblith et al., "Similarity of Neural Network Representations Revisited" (ICML 2019), section 3: with
    centered features X and Y, ‖Y^T X‖²_F / (‖X^T X‖_F ‖Y^T Y‖_F). It does not change if features are rotated or scaled
    as a whole, so it compares networks of any width. It is too high where there are more features than samples.

    Args:
        one: [n, features].
        other: [n, as many or other features].
    """
    return alignment(centered_gram(one), centered_gram(other))


def centered_gram(features: "numpy.ndarray") -> "numpy.ndarray":
    """Return the inner products [n, n] of the samples' features [n, ...], less their mean, in float64."""
    import numpy

    flat = numpy.asarray(features).reshape(len(features), -1)
    gram = numpy.zeros((len(flat), len(flat)))
    for start in range(0, flat.shape[1], _FEATURES_AT_ONCE):
        block = flat[:, start : start + _FEATURES_AT_ONCE].astype(numpy.float64)
        block -= block.mean(axis=0)
        gram += block @ block.T
    return gram


def alignment(one: "numpy.ndarray", other: "numpy.ndarray") -> float:
    """Return the CKA of two networks from their centered Gram matrices; NaN if the features of one are constant.

    For these, ‖Y^T X‖²_F is the sum of the products of the entries of X X^T and Y Y^T.
    """
    sizes = float((one * one).sum()) * float((other * other).sum())
    return float((one * other).sum()) / sqrt(sizes) if sizes > 0 else nan


def align_all(grams: Mapping[str, "numpy.ndarray"]) -> dict[tuple[str, str], float]:
    """Return the CKA of all pairs of tasks.

    Args:
        grams: {task: centered Gram matrix of its network's features}, all on the same samples.
    """
    return {(a, b): alignment(grams[a], grams[b]) for a, b in combinations(grams, 2)}
