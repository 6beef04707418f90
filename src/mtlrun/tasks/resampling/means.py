"""Means over the samples, such as losses and errors, of many resamples."""

from collections.abc import Mapping

import numpy

from mtlrun.tasks.resampling.base import ResampledMetrics, Values, divide, numbers


def mean_loss(sums: Values, terms: "Values | None" = None) -> ResampledMetrics:
    """Return the loss of resamples.

    Args:
        sums: each sample's sum of the terms that the loss averages, [n].
        terms: each sample's number of terms, or the sum of their weights, [n]; None for 1.
    """
    numerators = numbers(sums)
    weights = numpy.ones_like(numerators) if terms is None else numbers(terms)
    both = numpy.stack([numerators, weights], axis=1)

    def loss(counts: numpy.ndarray) -> dict[str, numpy.ndarray]:
        numerator, denominator = (counts @ both).T
        return {"loss": divide(numerator, denominator)}

    return loss


def means(terms: Mapping[str, Values]) -> ResampledMetrics:
    """Return metrics that are means over the samples.

    Args:
        terms: {metric: each sample's value, [n]}.
    """
    values = numpy.stack([numbers(of_metric) for of_metric in terms.values()], axis=1)

    def metrics(counts: numpy.ndarray) -> dict[str, numpy.ndarray]:
        return dict(zip(terms, (counts @ values / counts.sum(axis=1, keepdims=True)).T, strict=True))

    return metrics


def errors(prediction: Values, target: Values) -> ResampledMetrics:
    """Return the root mean squared error and the mean absolute error.

    Args:
        prediction: [n], or [n, num_outputs], over which errors are averaged, too.
        target: of the same shape.
    """
    differences = (numbers(prediction) - numbers(target)).reshape(len(target), -1)
    both = means({"rmse": numpy.square(differences).mean(axis=1), "mae": numpy.abs(differences).mean(axis=1)})

    def metrics(counts: numpy.ndarray) -> dict[str, numpy.ndarray]:
        found = both(counts)
        return {"rmse": numpy.sqrt(found["rmse"]), "mae": found["mae"]}

    return metrics
