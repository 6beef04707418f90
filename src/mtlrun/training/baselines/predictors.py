"""Predictors that baselines are made of: a generalized linear model and gradient boosting, for each family."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from numpy import ndarray

from mtlrun.tasks.base import Family

#: Strengths of the penalty on the weights of a linear model, from which validation chooses, the strongest first.
PENALTIES = (100.0, 10.0, 1.0, 0.1, 0.01)
#: Iterations of boosting at most, and without validation; how many without an improvement end it.
MOST_ITERATIONS, FIXED_ITERATIONS, PATIENCE = 300, 100, 10
_LINEAR_ITERATIONS = 200
_NO_LABEL = 0.5  # how many labels a class without any counts as


@dataclass(frozen=True)
class Examples:
    """Labeled samples.

    Args:
        inputs: float64 [n, num_features], an array or a sparse matrix.
        observations: what is predicted, as `GeneralizedLinear.observations` returns it.
        weights: > 0, [n]; None if all samples count the same.
        categories: the features that are codes of categories, which boosting splits into any two sets.
    """

    inputs: Any
    observations: ndarray
    weights: ndarray | None = None
    categories: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.observations)

    def select(self, mask: ndarray, observations: ndarray) -> "Examples":
        """Return some of the samples, with other observations, [n before the selection]."""
        weights = None if self.weights is None else self.weights[mask]
        # A copy of all inputs would take as much memory as they do.
        inputs = self.inputs if mask.all() else self.inputs[mask]
        return Examples(inputs, observations[mask], weights, self.categories)


#: From inputs [n, num_features] to natural parameters, [n, outputs].
Predict = Callable[[Any], ndarray]


@dataclass(frozen=True)
class Fitted:
    """A fitted predictor.

    Args:
        predict: gives the natural parameters, in the format of the head.
        settings: what validation chose for it: a value for each output that is fitted on its own.
    """

    predict: Predict
    settings: dict[str, list[Any]]


def fit(method: str, family: Family, num_outputs: int, train: Examples, val: Examples) -> Fitted:
    """Fit `linear` or `boosting`: one model of all classes, or one of each other output.

    Outputs without two different observations in training are predicted by a constant.

    Args:
        method: `linear` or `boosting`.
        family: of the task.
        num_outputs: size of the head.
        train: to fit to; one sample or more.
        val: to choose the penalty or the number of iterations by; if it is empty, these are 1 and 100.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a linear model that has not converged is still a baseline
        if family == "categorical":
            predict, chosen = _fit_classes(method, num_outputs, train, val)
            return _gather(method, [predict], [chosen])
        columns = [_column(train, index) for index in range(num_outputs)]
        fits = [_fit_column(method, family, part, _column(val, index)) for index, part in enumerate(columns)]
    return _gather(method, [predict for predict, _ in fits], [chosen for _, chosen in fits])


def _gather(method: str, predicts: list[Predict], chosen: list[Any]) -> Fitted:
    key = "penalty" if method == "linear" else "iterations"
    return Fitted(lambda inputs: numpy.concatenate([predict(inputs) for predict in predicts], axis=1), {key: chosen})


def _column(examples: Examples, index: int) -> Examples:
    """Return the samples that have an observation of one output."""
    column = examples.observations[:, index]
    return examples.select(~numpy.isnan(column), column)


def _fit_classes(method: str, num_classes: int, train: Examples, val: Examples) -> tuple[Predict, Any]:
    """Fit one model of the classes that training has; the others have the probability of half a label."""
    weights = numpy.ones(len(train)) if train.weights is None else train.weights
    counts = numpy.bincount(train.observations, weights, num_classes)
    logs = numpy.log(numpy.maximum(counts, _NO_LABEL) / counts.sum())
    seen = numpy.unique(train.observations)
    if len(seen) == 1:
        return lambda inputs: numpy.tile(logs, (inputs.shape[0], 1)), None
    numbered = train.select(numpy.ones(len(train), dtype=bool), numpy.searchsorted(seen, train.observations))
    known = val.select(numpy.isin(val.observations, seen), numpy.searchsorted(seen, val.observations))
    raw, chosen = _fit_model(method, "categorical", numbered, known)

    def predict(inputs: Any) -> ndarray:
        logits = numpy.tile(logs, (inputs.shape[0], 1))
        logits[:, seen] = _log_softmax(raw(inputs))
        return logits

    return predict, chosen


def _fit_column(method: str, family: Family, train: Examples, val: Examples) -> tuple[Predict, Any]:
    """Fit a model of one output; `observations` are [n], without missing ones."""
    labels = train.observations
    if len(labels) == 0 or (labels == labels[0]).all():
        constant = _constant(family, float(labels[0]) if len(labels) else numpy.nan, len(labels))
        return lambda inputs: numpy.full((inputs.shape[0], 1), constant), None
    raw, chosen = _fit_model(method, family, train, val)
    return lambda inputs: raw(inputs)[:, None], chosen


def _constant(family: Family, label: float, count: int) -> float:
    """Return the natural parameter where all observations are the same; half a one differs, as none is certain."""
    if numpy.isnan(label):
        return 0.0
    if family == "gaussian":
        return label
    if family == "poisson":
        return float(numpy.log(label if label > 0 else _NO_LABEL / count))
    return float(numpy.log(count / _NO_LABEL)) * (1 if label == 1 else -1)


def _fit_model(method: str, family: Family, train: Examples, val: Examples) -> tuple[Predict, Any]:
    return (_fit_linear if method == "linear" else _fit_boosting)(family, train, val)


# ------------------------------------------------------------------------------------------------------- linear


def _fit_linear(family: Family, train: Examples, val: Examples) -> tuple[Predict, float]:
    """Fit logistic (multinomial), ridge or Poisson regression with the penalty that is best on validation."""
    total = float(len(train) if train.weights is None else train.weights.sum())
    if len(val) == 0:
        return _linear_of(family, 1.0, total, train), 1.0
    best: tuple[float, float, Predict] | None = None
    for penalty in PENALTIES:
        predict = _linear_of(family, penalty, total, train)
        loss = _loss(family, predict(val.inputs), val.observations)
        if best is None or loss < best[0]:
            best = loss, penalty, predict
    assert best is not None
    return best[2], best[1]


def _linear_of(family: Family, penalty: float, total: float, train: Examples) -> Predict:
    """Return the model that minimizes the sum of its losses + penalty / 2 |w|^2, for ridge + penalty |w|^2."""
    from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge

    model: Any
    if family == "gaussian":
        model = Ridge(alpha=penalty)
    elif family == "poisson":  # whose loss is a mean
        model = PoissonRegressor(alpha=penalty / total, max_iter=_LINEAR_ITERATIONS)
    else:
        model = LogisticRegression(C=1 / penalty, max_iter=_LINEAR_ITERATIONS)
    model.fit(train.inputs, train.observations, sample_weight=train.weights)
    if family == "poisson":
        return lambda inputs: inputs @ model.coef_ + model.intercept_
    if family == "gaussian":
        return lambda inputs: model.predict(inputs)
    return lambda inputs: _both_classes(family, model.decision_function(inputs))


# ------------------------------------------------------------------------------------------------------ boosting


def _fit_boosting(family: Family, train: Examples, val: Examples) -> tuple[Predict, int]:
    """Fit gradient boosting of histograms, with the number of iterations at which validation stops to improve."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    with_val = len(val) > 0
    options: dict[str, Any] = {
        "max_iter": MOST_ITERATIONS if with_val else FIXED_ITERATIONS,
        "early_stopping": with_val,
        "n_iter_no_change": PATIENCE,
        "categorical_features": list(train.categories) or None,
        "random_state": 0,  # of the samples that the bins are made of, if there are very many
    }
    validation = {"X_val": val.inputs, "y_val": val.observations} if with_val else {}
    model: Any
    if family in ("gaussian", "poisson"):
        model = HistGradientBoostingRegressor(loss="poisson" if family == "poisson" else "squared_error", **options)
    else:
        model = HistGradientBoostingClassifier(**options)
    model.fit(train.inputs, train.observations, sample_weight=train.weights, **validation)
    iterations = int(model.n_iter_)
    if family == "gaussian":
        return lambda inputs: model.predict(inputs), iterations
    if family == "poisson":
        return lambda inputs: numpy.log(model.predict(inputs)), iterations
    return lambda inputs: _both_classes(family, model.decision_function(inputs)), iterations


# -------------------------------------------------------------------------------------------------------- common


def _both_classes(family: Family, decision: ndarray) -> ndarray:
    """Return a logit of each class where scikit-learn gives one logit for two classes."""
    if family == "categorical" and decision.ndim == 1:
        return numpy.stack([numpy.zeros_like(decision), decision], axis=1)
    return decision


def _log_softmax(logits: ndarray) -> ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    normalized: ndarray = shifted - numpy.log(numpy.exp(shifted).sum(axis=1, keepdims=True))
    return normalized


def _loss(family: Family, parameters: ndarray, observations: ndarray) -> float:
    """Return the mean negative log-likelihood of the observations, up to a constant; for `gaussian` the squared error.

    Args:
        family: of the outputs.
        parameters: natural parameters, [n], or of the classes in `observations`, [n, num_classes].
        observations: [n].
    """
    if family == "gaussian":
        losses = numpy.square(parameters - observations)
    elif family == "poisson":
        with numpy.errstate(over="ignore"):
            losses = numpy.exp(parameters) - observations * parameters
    elif family == "bernoulli":
        losses = numpy.logaddexp(0, parameters) - observations * parameters
    else:
        losses = -_log_softmax(parameters)[numpy.arange(len(parameters)), observations]
    return float(losses.mean())
