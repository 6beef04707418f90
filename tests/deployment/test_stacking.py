"""Stacks: against slow renderings of the same formulas, and what cannot be fitted."""

import numpy
import pytest
import torch
from helpers import read_record
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.model_selection import StratifiedKFold
from trained_houses import find

from mtlrun.deployment.combined.combining import mean
from mtlrun.deployment.combined.stacking import PENALTIES, fit_stack
from mtlrun.tasks import BinaryClassification, Classification, Count, MultiLabel, Ordinal, Regression


def draw(task, count=60, models=3, seed=0):
    """Return the averages of some models that are right to different degrees, and the targets."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(count, task.output_size, generator=generator)
    predictions = [truth + (1 + index) * torch.randn(truth.shape, generator=generator) / 2 for index in range(models)]
    return truth, [task.to_average(prediction) for prediction in predictions]


def ridge(f, y, kept, penalty):
    """Return the predictions of all samples by a regression around the mean of f, [n, models], fitted to some."""
    center, scale = f.mean(axis=1), y.std()
    every, left = (f - center[:, None]) / scale, ((y - center) / scale)[kept]
    inner = every[kept] - every[kept].mean(axis=0)
    weights = numpy.linalg.solve(inner.T @ inner + penalty * numpy.eye(f.shape[1]), inner.T @ (left - left.mean()))
    return center + scale * ((every - every[kept].mean(axis=0)) @ weights + left.mean())


def test_numbers_are_a_ridge_regression_around_the_mean_with_the_penalty_of_leave_one_out():
    task = Regression(2)
    truth, averages = draw(task)
    target = 5 + 2 * truth.double()
    stack = fit_stack("t", task, averages, task.observed(target))
    combined = stack.combine(averages).numpy()
    for column in range(2):
        y, f = target[:, column].numpy(), numpy.stack([each[:, column].numpy() for each in averages], axis=1)
        count = len(y)
        every = numpy.arange(count)
        errors = [
            sum((ridge(f, y, every != i, penalty * count)[i] - y[i]) ** 2 for i in every) for penalty in PENALTIES
        ]
        best = PENALTIES[int(numpy.argmin(errors))]
        assert stack.settings[column]["penalty"] == pytest.approx(best)
        assert combined[:, column] == pytest.approx(ridge(f, y, every >= 0, best * count), rel=1e-6)
        assert sum(stack.settings[column]["weights"]) == pytest.approx(1)
        by_hand = f @ stack.settings[column]["weights"] + stack.settings[column]["constant"]
        assert combined[:, column] == pytest.approx(by_hand)


def fit_by_scipy(inputs, labels, num_classes, penalty):
    """Return the log-probabilities, as a function of inputs, of a multinomial regression."""
    shape = (num_classes, inputs.shape[1] + 1)

    def logits(flat, new):
        matrix = flat.reshape(shape)
        return log_softmax(new @ matrix[:, :-1].T + matrix[:, -1], axis=1)

    def objective(flat):
        matrix = flat.reshape(shape)
        return (
            -logits(flat, inputs)[numpy.arange(len(labels)), labels].sum()
            + penalty / 2 * numpy.square(matrix[:, :-1]).sum()
        )

    found = minimize(objective, numpy.zeros(shape).ravel(), method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-13})
    return lambda new: logits(found.x, new)


def test_classes_are_a_logistic_regression_with_the_penalty_of_cross_validation():
    task = Classification(3)
    truth, averages = draw(task, count=45, models=2)
    target = truth.argmax(dim=1)
    stack = fit_stack("t", task, averages, target)
    inputs = numpy.concatenate([average.log().numpy() for average in averages], axis=1)
    inputs, labels = inputs / inputs.std(), target.numpy()
    penalty = stack.settings[0]["penalty"]
    expected = fit_by_scipy(inputs, labels, 3, penalty * len(labels))(inputs)
    combined = stack.combine(averages)
    assert combined.numpy() == pytest.approx(numpy.exp(expected), abs=2e-3)
    assert len(stack.settings[0]["weights"]) == 2
    folds = StratifiedKFold(5, shuffle=True, random_state=0)

    def loss(penalty):
        losses = []
        for kept, left in folds.split(inputs, labels):
            predict = fit_by_scipy(inputs[kept], labels[kept], 3, penalty * len(kept))
            losses += list(-predict(inputs[left])[numpy.arange(len(left)), labels[left]])
        return numpy.mean(losses)

    place = PENALTIES.index(penalty)
    other = PENALTIES[place + (1 if place == 0 else -1)]
    assert loss(penalty) < loss(other)


def test_yes_and_no_are_a_logistic_regression_on_log_odds_for_each_label():
    task = MultiLabel(2)
    truth, averages = draw(task)
    target = (truth > 0).long()
    target[:20, 1] = -1
    stack = fit_stack("t", task, averages, task.observed(target))
    combined = stack.combine(averages)[..., 1].numpy()
    for label, known in ((0, slice(None)), (1, slice(20, None))):
        inputs = numpy.stack([torch.logit(average[:, label, 1]).numpy() for average in averages], axis=1)
        scale, labels = inputs[known].std(), target[known, label].numpy()
        penalty = stack.settings[label]["penalty"] * len(labels)
        # One logit in place of two, whose weights are w / 2 and -w / 2: half of their squares.
        by_scipy = fit_by_scipy(inputs[known] / scale, labels, 2, 2 * penalty)
        assert combined[:, label] == pytest.approx(numpy.exp(by_scipy(inputs / scale))[:, 1], abs=2e-3)
        assert len(stack.settings[label]["weights"]) == 3


def test_what_has_too_few_labels_keeps_its_average():
    task = Classification(4)
    truth, averages = draw(task)
    target = truth[:, :3].argmax(dim=1)
    stack = fit_stack("kind", task, averages, target)
    combined = stack.combine(averages)
    assert combined[:, 3].numpy() == pytest.approx(mean(averages)[:, 3].numpy())
    assert combined.sum(dim=1).numpy() == pytest.approx(1)
    assert stack.notes == [
        "task kind: 3 of 4 classes have two validation labels or more; the others keep their mean probability"
    ]
    binary = BinaryClassification()
    _, averages = draw(binary)
    stack = fit_stack("sold", binary, averages, torch.zeros(60, 1, dtype=torch.int64))
    assert torch.equal(stack.combine(averages), mean(averages))
    assert "1 of 1 outputs have fewer than two validation labels" in stack.notes[0]
    _, averages = draw(Regression(), count=1)
    assert "fewer than two" in fit_stack("price", Regression(), averages, torch.zeros(1, 1)).notes[0]


def test_every_kind_can_be_stacked_and_a_good_model_weighs_more():
    for task in (BinaryClassification(), Ordinal(4), Ordinal(4, "corn"), Count(), Regression()):
        truth, averages = draw(task, count=200)
        target = {
            "BinaryClassification": (truth[:, 0] > 0).long(),
            "Ordinal": (truth > 0).sum(dim=1),
            "Count": truth[:, 0].exp().round(),
            "Regression": truth[:, 0],
        }[type(task).__name__]
        stack = fit_stack("t", task, averages, task.observed(target))
        combined = task.from_average(stack.combine(averages))
        assert combined.isfinite().all()
        single = [task.loss(task.from_average(average), target) for average in averages]
        assert task.loss(combined, target) <= 1.02 * min(single), task
        assert stack.settings[0]["weights"][0] > stack.settings[0]["weights"][-1], task


def test_a_stack_of_runs_is_fitted_to_validation_and_says_so(in_houses, mtlrun, tmp_path):
    runs = [str(find(f"hard-*-s{seed}-*")) for seed in range(2)]
    code, out, err = mtlrun("ensemble", *runs, "--method", "stack", "--out", str(tmp_path))
    assert code == 0, err
    assert "by which the checkpoints of the runs were selected as well" in out
    record = read_record(find("ensemble-stack-2runs-*", tmp_path))
    settings, labeled = record["made_from"]["settings"], record["splits"]["val"]["labeled"]
    assert {task: fitted["samples"] for task, fitted in settings.items()} == labeled
    for fitted in settings.values():
        assert len(fitted["outputs"][0]["weights"]) == 2
        assert fitted["outputs"][0]["penalty"] in PENALTIES
