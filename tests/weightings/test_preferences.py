"""Preferences between tasks: the formulas by independent computations, and the keys that they come from."""

import numpy
import pytest
import torch
from helpers import QUICK, run_folders
from scipy.optimize import nnls

from mtlrun.weightings import STCH, AlignedMTL, ConFIG, DualProj, UPGrad, combine

METHODS = {
    "upgrad": lambda **options: UPGrad(regularization=0, **options),
    "dualproj": lambda **options: DualProj(regularization=0, **options),
    "config": ConFIG,
    "aligned_mtl": AlignedMTL,
}
PREFERENCES = [0.5, 3.0, 1.5]


def random_jacobian(seed, num_tasks=3, size=6):
    random = numpy.random.default_rng(seed)
    return torch.tensor(random.normal(size=(num_tasks, size)) * 10 ** random.random((num_tasks, 1)))


def projected(rows, vector):
    """The nearest vector that conflicts with no row: the vector and what a cone of the rows adds to it."""
    added, _ = nnls(rows.T, -vector)
    return vector + rows.T @ added


def by_formula(method, rows, preferences):
    weights = numpy.array(preferences) / sum(preferences)
    match method:
        case "upgrad":
            return sum(weight * projected(rows, row) for weight, row in zip(weights, rows, strict=True))
        case "dualproj":
            return projected(rows, weights @ rows)
        case "config":
            units = rows / numpy.linalg.norm(rows, axis=1, keepdims=True)
            direction = numpy.linalg.pinv(units) @ weights
            direction /= numpy.linalg.norm(direction)
            return (rows @ direction).sum() * direction
        case "aligned_mtl":
            left, singular, right = numpy.linalg.svd(rows, full_matrices=False)
            return singular.min() * weights @ left @ right


@pytest.mark.parametrize("method", METHODS)
def test_direction_is_that_of_the_formula(method):
    for seed in range(10):
        jacobian = random_jacobian(seed)
        found = combine(METHODS[method](preferences=PREFERENCES), jacobian)
        numpy.testing.assert_allclose(found, by_formula(method, jacobian.numpy(), PREFERENCES), atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_direction_is_that_of_torchjd(method):
    torchjd = pytest.importorskip("torchjd.aggregation")
    theirs = {"upgrad": "UPGrad", "dualproj": "DualProj", "config": "ConFIG", "aligned_mtl": "AlignedMTL"}[method]
    preferences = torch.tensor(PREFERENCES, dtype=torch.float64)
    for seed in range(5):
        jacobian = random_jacobian(seed)
        ours = type(METHODS[method]())(preferences=PREFERENCES)  # with the same regularization
        expected = getattr(torchjd, theirs)(pref_vector=preferences / preferences.sum())(jacobian)
        torch.testing.assert_close(combine(ours, jacobian), expected, rtol=0, atol=1e-5 * expected.norm().item())


@pytest.mark.parametrize("method", METHODS)
def test_only_the_ratios_of_preferences_matter_and_equal_ones_change_nothing(method):
    jacobian, make = random_jacobian(0), METHODS[method]
    assert torch.equal(combine(make(preferences=[1.0] * 3), jacobian), combine(make(), jacobian))
    torch.testing.assert_close(combine(make(preferences=[0.3] * 3), jacobian), combine(make(), jacobian))
    twice = [2e3 * number for number in PREFERENCES]
    found, expected = (combine(make(preferences=numbers), jacobian) for numbers in (twice, PREFERENCES))
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, combine(make(), jacobian), rtol=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_more_of_a_task_is_made_where_it_counts_more(method):
    # Orthogonal gradients: the direction is a sum of parts, one for each task.
    parts = combine(METHODS[method](preferences=[1.0, 4.0]), torch.diag(torch.tensor([1.0, 1.0]).double()))
    assert (parts[1] / parts[0]).item() == pytest.approx(4)


@pytest.mark.parametrize("method", ["upgrad", "dualproj"])
def test_direction_conflicts_with_no_task_whatever_the_preferences(method):
    random = numpy.random.default_rng(0)
    for seed in range(50):
        jacobian = random_jacobian(seed, num_tasks=5, size=int(random.integers(3, 9)))
        direction = combine(METHODS[method](preferences=list(10 ** (4 * random.random(5)))), jacobian)
        assert (jacobian @ direction).min() >= -1e-8 * (jacobian.norm(dim=1).max() ** 2)


@pytest.mark.parametrize("method", METHODS)
def test_preferences_of_tasks_without_a_loss_do_not_count(method):
    jacobian = random_jacobian(1)
    weighting = METHODS[method](preferences=PREFERENCES)
    weighting.setup(3)
    weighting.active = torch.tensor([0, 2])
    expected = combine(METHODS[method](preferences=[PREFERENCES[0], PREFERENCES[2]]), jacobian[[0, 2]])
    torch.testing.assert_close(combine(weighting, jacobian[[0, 2]]), expected)


@pytest.mark.parametrize("make", [*METHODS.values(), STCH])
def test_preferences_that_are_none_are_refused(make):
    for wrong in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=r"preferences\[1\] must be > 0( and finite)?, or size, found"):
            make(preferences=[1.0, wrong])
    with pytest.raises(ValueError, match="preferences must hold one number for each of the 2 tasks, found 1"):
        make(preferences=[2.0]).setup(2)
    weighting = make(preferences=[1.0, "size"], **({"warmup_epochs": 0} if make is STCH else {}))
    weighting.setup(2)
    weighting.epoch_ended()
    with pytest.raises(ValueError, match="preferences must be numbers, found"):
        combine(weighting, random_jacobian(0, num_tasks=2))


@pytest.mark.parametrize("method", METHODS)
def test_weights_of_tasks_are_the_preferences(mtlrun, method):
    code, _, err = mtlrun(*QUICK, "trainer.epochs=1", f"weighting={method}", "tasks.right.weight=3")
    assert code == 0, err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["weighting=mgda"], "tasks.right.weight=3.0 has no effect with weighting=mgda; use weighting=static"),
        (
            ["weighting=upgrad", "weighting.preferences=null"],
            "tasks.right.weight=3.0 has no effect with weighting=upgrad",
        ),
        (
            ["weighting=upgrad", "weighting/losses=static"],
            "tasks.right.weight=3.0 would count twice, in weighting=upgrad and weighting.losses",
        ),
    ],
)
def test_a_weight_that_counts_never_or_twice_is_refused(mtlrun, overrides, message):
    code, _, err = mtlrun(*QUICK, *overrides, "tasks.right.weight=3.0")
    assert code == 2
    assert message in err
    assert not run_folders()
