"""Stacking: a small model of what several models predict, fitted to validation samples.

Source: Wolpert, "Stacked generalization" (Neural Networks 1992), with ridge regression for numbers as in Breiman,
"Stacked regressions" (Machine Learning 1996), and logistic regression for classes.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch
from numpy import ndarray
from torch import Tensor

from mtlrun.deployment.combined.combining import Combine, mean
from mtlrun.tasks import AveragesPredictions, Count, Task
from mtlrun.tasks.averaging import log

#: Of the squared weights, relative to the mean loss of a validation sample.
PENALTIES = tuple(float(penalty) for penalty in 10.0 ** numpy.arange(-4, 3))
_FOLDS = 5
_ITERATIONS = 1000


@dataclass
class Stack:
    """A fitted combination of averages.

    Args:
        combine: maps those of the models, on any samples, to the combined ones.
        settings: of each output, or of all classes: the `penalty`, and the `weights` of the models.
        notes: on what could not be fitted.
    """

    combine: Combine
    settings: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def fit_stack(name: str, task: Task, averages: Sequence[Tensor], observed: Tensor) -> Stack:
    """Return the combination that is fitted to the labeled samples of validation.

    Numbers are the mean over the models plus a ridge regression of what it leaves, on how far each model is from it: a
    large penalty gives the mean, but for a constant. The weights of the models sum up to 1. Classes are predicted by a
    logistic regression: of yes or no, of a label or of a threshold, on the log-odds of each model; of several classes
    on the logarithms of all probabilities of each. Classes with fewer than two labels keep their mean probability.

    The penalty is the one with the least squared error in leave-one-out cross-validation of the samples, or the least
    log loss in cross-validation with five folds; a model is then fitted to all of them.

    Args:
        name: of the task.
        task: without maps.
        averages: `AveragesPredictions.to_average` of the predictions of each model.
        observed: `AveragesPredictions.observed` of the targets.
    """
    are_rates = isinstance(task, Count)
    assert isinstance(task, AveragesPredictions)
    arrays = [average.cpu().numpy() for average in averages]
    targets = observed.cpu().numpy()
    if task.distribution_dim is None:
        found = _numbers(name, arrays, targets)
    elif arrays[0].ndim == 2:
        found = _classes(name, arrays, targets)
    else:
        found = _pairs(name, arrays, targets)
    fitted = found.combine

    def combine(of_models: Sequence[Tensor]) -> Tensor:
        combined = fitted([average.cpu() for average in of_models]).to(of_models[0].device)
        # A rate is positive: none is lower than the lowest of the models.
        return combined.maximum(torch.stack(list(of_models)).amin(dim=0)) if are_rates else combined

    return Stack(combine, found.settings, found.notes)


# ------------------------------------------------------------------------------------------------------- numbers


def _numbers(name: str, arrays: Sequence[ndarray], targets: ndarray) -> Stack:
    """Fit a ridge regression of each output; all arrays are [n, num_outputs]."""
    count = len(arrays)
    stacked = numpy.stack(arrays)
    if len(targets) < 2:
        return Stack(mean, notes=[f"task {name}: fewer than two validation samples; the average in place of a stack"])
    weights, constants, settings = [], [], []
    for column in range(targets.shape[1]):
        center = stacked[:, :, column].mean(axis=0)
        scale = targets[:, column].std() or 1.0
        inputs, left = (stacked[:, :, column] - center).T / scale, (targets[:, column] - center) / scale
        slopes, constant, penalty = _ridge(inputs, left)
        weights.append(slopes + (1 - slopes.sum()) / count)
        constants.append(constant * scale)
        settings.append({"penalty": penalty, "weights": weights[-1].tolist(), "constant": constants[-1]})
    matrix, shift = torch.from_numpy(numpy.stack(weights, axis=1)), torch.tensor(constants, dtype=torch.float64)

    def combine(averages: Sequence[Tensor]) -> Tensor:
        return (torch.stack(list(averages)) * matrix[:, None]).sum(dim=0) + shift

    return Stack(combine, settings)


def _ridge(inputs: ndarray, targets: ndarray) -> tuple[ndarray, float, float]:
    """Return the weights, the constant and the penalty that is best in leave-one-out cross-validation."""
    from sklearn.linear_model import RidgeCV

    count = len(targets)
    model = RidgeCV(alphas=[penalty * count for penalty in reversed(PENALTIES)]).fit(inputs, targets)
    return model.coef_, float(model.intercept_), float(model.alpha_) / count


# ------------------------------------------------------------------------------------------------------- classes


def _classes(name: str, arrays: Sequence[ndarray], targets: ndarray) -> Stack:
    """Fit a logistic regression of the classes; arrays are [n, num_classes], targets [n]."""
    count, num_classes = len(arrays), arrays[0].shape[1]
    known = numpy.flatnonzero(numpy.bincount(targets, minlength=num_classes) >= 2)
    notes = []
    if len(known) < num_classes:
        rest = "the average in place of a stack" if len(known) < 2 else "the others keep their mean probability"
        notes = [f"task {name}: {len(known)} of {num_classes} classes have two validation labels or more; {rest}"]
    if len(known) < 2:
        return Stack(mean, notes=notes)
    used = numpy.isin(targets, known)
    inputs = numpy.concatenate([_log(array) for array in arrays], axis=1)
    scores, coefficients, penalty = _logistic(inputs[used], numpy.searchsorted(known, targets[used]))
    by_class = numpy.stack([-coefficients[0] / 2, coefficients[0] / 2]) if len(known) == 2 else coefficients
    own = [by_class[:, model * num_classes + known].diagonal().mean() for model in range(count)]

    def combine(averages: Sequence[Tensor]) -> Tensor:
        usual = mean(averages)
        logits = scores(numpy.concatenate([_log(average.numpy()) for average in averages], axis=1))
        if logits.ndim == 1:  # of two classes
            logits = numpy.stack([-logits / 2, logits / 2], axis=1)
        combined = usual.clone()
        combined[:, known] = torch.from_numpy(logits).softmax(dim=1) * usual[:, known].sum(dim=1, keepdim=True)
        return combined

    return Stack(combine, [{"penalty": penalty, "weights": [float(weight) for weight in own]}], notes)


def _pairs(name: str, arrays: Sequence[ndarray], targets: ndarray) -> Stack:
    """Fit a logistic regression of each label or threshold; arrays are [n, num_labels, 2], targets [n, num_labels]."""
    fitted: list[Callable[[ndarray], ndarray] | None] = []
    settings: list[dict[str, Any]] = []
    for label in range(targets.shape[1]):
        known = targets[:, label] >= 0
        if min(numpy.bincount(targets[known, label], minlength=2)) < 2:
            fitted.append(None)
            settings.append({"penalty": None, "weights": [1 / len(arrays)] * len(arrays)})
            continue
        inputs = numpy.stack([_log_odds(array[:, label]) for array in arrays], axis=1)
        scores, coefficients, penalty = _logistic(inputs[known], targets[known, label])
        fitted.append(scores)
        settings.append({"penalty": penalty, "weights": coefficients[0].tolist()})
    without = sum(scores is None for scores in fitted)
    notes = [
        f"task {name}: {without} of {len(fitted)} outputs have fewer than two validation labels of yes, or of no; the "
        "average in place of a stack"
    ] * bool(without)

    def combine(averages: Sequence[Tensor]) -> Tensor:
        combined = mean(averages)
        for label, scores in enumerate(fitted):
            if scores is not None:
                logit = scores(numpy.stack([_log_odds(average[:, label].numpy()) for average in averages], axis=1))
                combined[:, label] = torch.from_numpy(numpy.stack([-logit, logit], axis=1)).sigmoid()
        return combined

    return Stack(combine, settings, notes)


def _log(probabilities: ndarray) -> ndarray:
    logarithms: ndarray = log(torch.from_numpy(probabilities)).numpy()
    return logarithms


def _log_odds(pairs: ndarray) -> ndarray:
    logarithms = _log(pairs)
    odds: ndarray = logarithms[:, 1] - logarithms[:, 0]
    return odds


def _logistic(inputs: ndarray, labels: ndarray) -> tuple[Callable[[ndarray], ndarray], ndarray, float]:
    """Return the scores as a function of inputs, the weights, and the penalty.

    Args:
        inputs: [n, num_inputs].
        labels: [n], of two classes or more, each of which occurs twice or more.

    Returns:
        Scores are the logit of yes, [n], of two classes, or those of several classes, [n, num_classes], and weights
        [1 or num_classes, num_inputs].
    """
    from sklearn.model_selection import StratifiedKFold

    scale = inputs.std() or 1.0
    inputs = inputs / scale
    folds = StratifiedKFold(min(_FOLDS, int(numpy.bincount(labels).min())), shuffle=True, random_state=0)
    best: tuple[float, float] | None = None
    for penalty in reversed(PENALTIES):
        losses = [
            _log_loss(_fit_logistic(inputs[kept], labels[kept], penalty), inputs[left], labels[left])
            for kept, left in folds.split(inputs, labels)
        ]
        loss = float(numpy.concatenate(losses).mean())
        if best is None or loss < best[0]:
            best = loss, penalty
    assert best is not None
    model = _fit_logistic(inputs, labels, best[1])
    return lambda new: model.decision_function(new / scale), model.coef_ / scale, best[1]


def _fit_logistic(inputs: ndarray, labels: ndarray, penalty: float) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # what has not converged is judged by its loss as well
        return LogisticRegression(C=1 / (penalty * len(labels)), max_iter=_ITERATIONS).fit(inputs, labels)


def _log_loss(model: Any, inputs: ndarray, labels: ndarray) -> ndarray:
    """Return the loss of each sample."""
    scores = model.decision_function(inputs)
    if scores.ndim == 1:
        scores = numpy.stack([numpy.zeros_like(scores), scores], axis=1)
    losses: ndarray = -torch.from_numpy(scores).log_softmax(dim=1).numpy()[numpy.arange(len(labels)), labels]
    return losses
