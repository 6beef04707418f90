"""The predictors that baselines are made of: they predict as scikit-learn does, or else a constant."""

import numpy
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.preprocessing import OneHotEncoder
from threadpoolctl import threadpool_limits

from mtlrun.datasets.input_columns import InputColumn
from mtlrun.training.baselines import inputs as inputs_module
from mtlrun.training.baselines.cost import estimate_seconds
from mtlrun.training.baselines.inputs import MOST_CATEGORIES, encode
from mtlrun.training.baselines.predictors import PENALTIES, Examples, fit

RANDOM = numpy.random.default_rng(0)
INPUTS = RANDOM.standard_normal((300, 4))
SCORE = INPUTS @ [1.0, -0.5, 0.0, 0.3] + 0.5 * RANDOM.standard_normal(300)
WEIGHTS = RANDOM.uniform(0.1, 3, 200)
#: {family: (observations, size of the head)}.
OBSERVED = {
    "categorical": (numpy.digitize(SCORE, [-0.5, 0.5]), 3),
    "bernoulli": (numpy.stack([SCORE > 0, numpy.where(INPUTS[:, 1] > 1, numpy.nan, SCORE > 0.7)], axis=1) * 1.0, 2),
    "gaussian": (SCORE[:, None], 1),
    "poisson": (RANDOM.poisson(numpy.exp(SCORE / 2))[:, None] * 1.0, 1),
}


def examples(family, rows, weights=None):
    return Examples(INPUTS[rows], OBSERVED[family][0][rows], weights)


def fitted(method, family, weights=WEIGHTS, val=slice(200, 300)):
    return fit(method, family, OBSERVED[family][1], examples(family, slice(200), weights), examples(family, val))


def log_probabilities(logits):
    return logits - numpy.logaddexp.reduce(logits, axis=1, keepdims=True)


def column(family, index=0):
    """Return what is fitted to, [train and val], and which of these have it."""
    observed = OBSERVED[family][0]
    observed = observed if observed.ndim == 1 else observed[:, index]
    return observed, ~numpy.isnan(observed)


def test_linear_is_logistic_regression_with_the_penalty_that_is_best_on_validation():
    found = fitted("linear", "categorical")
    y, _ = column("categorical")
    models = {p: LogisticRegression(C=1 / p).fit(INPUTS[:200], y[:200], WEIGHTS) for p in PENALTIES}
    losses = {p: -model.predict_log_proba(INPUTS[200:])[range(100), y[200:]].mean() for p, model in models.items()}
    best = min(losses, key=losses.get)
    assert found.settings == {"penalty": [best]}
    expected = models[best].predict_log_proba(INPUTS)
    assert log_probabilities(found.predict(INPUTS)) == pytest.approx(expected, abs=1e-6)


def test_each_output_of_yes_or_no_is_fitted_to_the_samples_that_have_it():
    found = fitted("linear", "bernoulli")
    for index, penalty in enumerate(found.settings["penalty"]):
        y, there = column("bernoulli", index)
        train = there[:200]
        model = LogisticRegression(C=1 / penalty).fit(INPUTS[:200][train], y[:200][train], WEIGHTS[train])
        assert found.predict(INPUTS)[:, index] == pytest.approx(model.decision_function(INPUTS), abs=1e-6)


def test_linear_is_ridge_and_poisson_regression():
    found = fitted("linear", "gaussian")
    (penalty,) = found.settings["penalty"]
    model = Ridge(alpha=penalty).fit(INPUTS[:200], column("gaussian")[0][:200], WEIGHTS)
    assert found.predict(INPUTS)[:, 0] == pytest.approx(model.predict(INPUTS), abs=1e-9)
    found = fitted("linear", "poisson")
    (penalty,) = found.settings["penalty"]
    model = PoissonRegressor(alpha=penalty / WEIGHTS.sum()).fit(INPUTS[:200], column("poisson")[0][:200], WEIGHTS)
    assert numpy.exp(found.predict(INPUTS)[:, 0]) == pytest.approx(model.predict(INPUTS), rel=1e-6)


@pytest.mark.parametrize("family", OBSERVED)
def test_boosting_stops_by_validation(family):
    y, there = column(family)
    train, val = (part & there for part in numpy.eye(2, dtype=bool)[[0] * 200 + [1] * 100].T)
    options = {"max_iter": 300, "early_stopping": True, "random_state": 0}
    if family in ("gaussian", "poisson"):
        model = HistGradientBoostingRegressor(loss="poisson" if family == "poisson" else "squared_error", **options)
    else:
        model = HistGradientBoostingClassifier(**options)
    model.fit(INPUTS[train], y[train], WEIGHTS, X_val=INPUTS[val], y_val=y[val])
    found = fitted("boosting", family)
    assert found.settings["iterations"][0] == model.n_iter_ < 300
    predicted = found.predict(INPUTS)
    if family == "categorical":
        assert numpy.exp(log_probabilities(predicted)) == pytest.approx(model.predict_proba(INPUTS), abs=1e-9)
    elif family == "bernoulli":
        assert predicted[:, 0] == pytest.approx(model.decision_function(INPUTS), abs=1e-9)
    else:
        natural = numpy.exp(predicted) if family == "poisson" else predicted
        assert natural[:, 0] == pytest.approx(model.predict(INPUTS), rel=1e-9)


@pytest.mark.parametrize("family", ["gaussian", pytest.param("categorical", marks=pytest.mark.slow)])
def test_neither_the_number_of_threads_nor_an_earlier_fit_changes_a_prediction(family):
    for method in ("linear", "boosting"):
        with threadpool_limits(1):
            first = fitted(method, family).predict(INPUTS)
        with threadpool_limits(2, user_api="openmp"), threadpool_limits(1, user_api="blas"):
            second = fitted(method, family).predict(INPUTS)
        assert (first == second).all()


@pytest.mark.parametrize("family", OBSERVED)
@pytest.mark.parametrize("method", ["linear", "boosting"])
def test_without_validation_the_settings_are_fixed(method, family):
    found = fitted(method, family, val=slice(0))
    expected = {"linear": {"penalty": [1.0]}, "boosting": {"iterations": [100]}}[method]
    assert {key: values[:1] for key, values in found.settings.items()} == expected
    assert numpy.isfinite(found.predict(INPUTS)).all()


@pytest.mark.parametrize("method", ["linear", "boosting"])
def test_classes_that_training_lacks_have_the_probability_of_half_a_label(method):
    inputs = INPUTS[:40]
    train = Examples(inputs, numpy.where(inputs[:, 0] > 0, 3, 1))
    found = fit(method, "categorical", 5, train, Examples(inputs, numpy.arange(40) % 5))  # which has all five
    logits = found.predict(inputs)
    assert logits[:, [0, 2, 4]] == pytest.approx(numpy.log(0.5 / 40))
    assert numpy.exp(logits[:, [1, 3]]).sum(axis=1) == pytest.approx(1)
    assert (logits.argmax(axis=1) == train.observations).mean() > 0.8


@pytest.mark.parametrize(
    ("family", "observed", "expected"),
    [
        ("categorical", numpy.full(8, 1), numpy.log([1 / 16, 1, 1 / 16])),
        ("bernoulli", numpy.ones((8, 1)), [numpy.log(16)]),
        ("bernoulli", numpy.zeros((8, 1)), [-numpy.log(16)]),
        ("bernoulli", numpy.full((8, 1), numpy.nan), [0]),
        ("gaussian", numpy.full((8, 1), -2.5), [-2.5]),
        ("poisson", numpy.full((8, 1), 3.0), [numpy.log(3)]),
        ("poisson", numpy.zeros((8, 1)), [-numpy.log(16)]),
    ],
)
def test_what_is_always_the_same_is_predicted_by_a_constant(family, observed, expected):
    for method, key in [("linear", "penalty"), ("boosting", "iterations")]:
        found = fit(method, family, len(expected), Examples(INPUTS[:8], observed), Examples(INPUTS[:8], observed))
        assert found.predict(INPUTS[:3]) == pytest.approx(numpy.tile(expected, (3, 1)))
        assert found.settings == {key: [None]}


def test_the_estimate_grows_with_the_data_and_is_of_seconds_for_what_takes_seconds():
    """Of 20,000 rows and 20 columns boosting took 1 s, and of 200,000 rows 11 s; a linear model 0.03 and 0.4 s."""
    assert 0.3 < estimate_seconds("boosting", "bernoulli", 20_000, 20, 1) < 3
    assert 3 < estimate_seconds("boosting", "bernoulli", 200_000, 20, 1) < 33
    assert 0.01 < estimate_seconds("linear", "bernoulli", 20_000, 20, 1) < 0.3
    assert 0.1 < estimate_seconds("linear", "bernoulli", 200_000, 20, 1) < 4
    for method in ("linear", "boosting"):
        for family in OBSERVED:
            small = estimate_seconds(method, family, 1000, 10, 3)
            assert small < estimate_seconds(method, family, 2000, 10, 3)
            assert small < estimate_seconds(method, family, 1000, 20, 3)
            assert small < estimate_seconds(method, family, 1000, 10, 6)


# --------------------------------------------------------------------------------------------- columns of categories


def categories(num_train=400, num_categories=6):
    """Return inputs, a number and an index of a category beside each other, and what the category alone decides."""
    random = numpy.random.default_rng(2)
    index = random.integers(0, num_categories, num_train + 100)
    effect = random.permutation(num_categories) * 1.0
    columns = [InputColumn("x"), InputColumn("city", "category", num_categories + 3)]
    inputs = torch.from_numpy(numpy.stack([random.standard_normal(len(index)), index], axis=1)).float()
    splits = {"train": inputs[:num_train], "val": inputs[num_train:], "test": inputs[num_train:]}
    return columns, splits, effect[index][:, None], index


@pytest.mark.parametrize("method", ["linear", "boosting"])
def test_an_index_of_a_category_is_no_quantity(method):
    columns, splits, effect, _ = categories()
    encoded = encode(method, splits, columns)
    train, val = (
        Examples(encoded.select(split, numpy.arange(len(splits[split]))), rows, categories=encoded.categories)
        for split, rows in (("train", effect[:400]), ("val", effect[400:]))
    )
    predicted = fit(method, "gaussian", 1, train, val).predict(encoded.splits["test"])
    assert numpy.square(predicted - effect[400:]).mean() < 0.01
    as_numbers = fit("linear", "gaussian", 1, Examples(splits["train"].double().numpy(), effect[:400]), Examples(
        splits["val"].double().numpy(), effect[400:])).predict(splits["test"].double().numpy())  # fmt: skip
    assert numpy.square(as_numbers - effect[400:]).mean() > 0.5


def test_a_linear_model_of_categories_is_that_of_scikit_learns_one_hot():
    columns, splits, _, index = categories()
    y = (numpy.random.default_rng(3).random(500) < index / 6) * 1.0
    encoded = encode("linear", splits, columns)
    found = fit("linear", "bernoulli", 1, Examples(encoded.splits["train"], y[:400, None]), Examples(
        encoded.splits["val"], y[400:, None]))  # fmt: skip
    hot = OneHotEncoder(sparse_output=False).fit(index[:400, None])
    dense = {
        split: numpy.hstack([inputs[:, :1].double(), hot.transform(inputs[:, 1:].long())])
        for split, inputs in splits.items()
    }
    model = LogisticRegression(C=1 / found.settings["penalty"][0]).fit(dense["train"], y[:400])
    assert found.predict(encoded.splits["test"])[:, 0] == pytest.approx(
        model.decision_function(dense["test"]), abs=1e-3
    )


def test_rare_categories_of_training_and_those_that_it_lacks_are_one(monkeypatch):
    monkeypatch.setattr(inputs_module, "MOST_CATEGORIES", 2)
    column = torch.tensor([[5.0], [3], [3], [5], [5], [0], [1]])
    splits = {"train": column, "val": torch.tensor([[3.0], [9]]), "test": torch.tensor([[0.0], [5]])}
    columns = [InputColumn("city", "category", 10)]
    codes = encode("boosting", splits, columns)
    assert codes.categories == [0]
    assert codes.splits["train"][:, 0].tolist() == [1, 2, 2, 1, 1, 0, 0]
    assert codes.splits["val"][:, 0].tolist() == [2, 0]
    hot = encode("linear", splits, columns)
    assert hot.splits["train"].toarray().tolist() == [[1, 0], [0, 1], [0, 1], [1, 0], [1, 0], [0, 0], [0, 0]]
    assert hot.splits["test"].toarray().tolist() == [[0, 0], [1, 0]]
    assert column[:, 0].tolist() == [5, 3, 3, 5, 5, 0, 1]


def test_boosting_takes_as_many_categories_as_are_told_apart():
    random = numpy.random.default_rng(0)
    index = torch.from_numpy(random.permutation(1000) % 500).float()[:, None]
    encoded = encode("boosting", {"train": index}, [InputColumn("city", "category", 501)])
    train = Examples(encoded.splits["train"], random.standard_normal((1000, 1)), categories=encoded.categories)
    assert encoded.splits["train"].max() == MOST_CATEGORIES
    assert numpy.isfinite(fit("boosting", "gaussian", 1, train, train).predict(encoded.splits["train"])).all()
