"""Nash-MTL, against its closed form for two tasks and the bargaining problem itself."""

import numpy
import pytest
import torch
from scipy.optimize import minimize

from mtlrun.weightings import IMTLG, NashMTL, combine


def random_jacobian(num_tasks, seed=0):
    return torch.randn(num_tasks, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unit(vector):
    return vector / vector.norm()


@pytest.mark.parametrize("seed", range(5))
def test_direction_for_two_tasks_is_that_of_the_sum_of_the_unit_gradients(seed):
    first, second = jacobian = random_jacobian(2, seed) * torch.tensor([[1.0], [300.0]], dtype=torch.float64)
    torch.testing.assert_close(combine(NashMTL(), jacobian), unit(unit(first) + unit(second)), rtol=1e-5, atol=0)


def test_direction_for_two_tasks_is_that_of_imtl_g():
    jacobian = torch.tensor([[-4.0, 1, 1], [6, 1, 1]], dtype=torch.float64)
    torch.testing.assert_close(combine(NashMTL(), jacobian), unit(combine(IMTLG(), jacobian)), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("num_tasks", [2, 3, 6])
def test_direction_maximizes_the_product_of_the_gains(num_tasks):
    jacobian = random_jacobian(num_tasks)
    direction = combine(NashMTL(), jacobian).numpy()
    rows = jacobian.numpy()
    assert (rows @ direction > 0).all()

    def lost(vector):
        gains = rows @ vector / numpy.linalg.norm(vector)
        return -numpy.log(numpy.maximum(gains, 1e-12)).sum()

    reference = minimize(lost, direction + 0.05, method="BFGS", options={"gtol": 1e-8})
    found = reference.x / numpy.linalg.norm(reference.x)
    numpy.testing.assert_allclose(direction, found, atol=1e-5)


@pytest.mark.parametrize("num_tasks", [1, 2, 3, 6])
def test_norm_is_the_root_of_the_number_of_tasks_and_limited(num_tasks):
    jacobian = random_jacobian(num_tasks)
    root = num_tasks**0.5
    assert combine(NashMTL(max_norm=None), jacobian).norm().item() == pytest.approx(root, rel=1e-5)
    assert combine(NashMTL(max_norm=10.0), jacobian).norm().item() == pytest.approx(root, rel=1e-5)
    assert combine(NashMTL(), jacobian).norm().item() == pytest.approx(1, rel=1e-5)
    assert combine(NashMTL(max_norm=0.2), jacobian).norm().item() == pytest.approx(0.2, rel=1e-5)


def test_lengths_of_the_gradients_do_not_matter():
    jacobian, lengths = random_jacobian(3), torch.tensor([[1e-8], [3.0], [1e8]], dtype=torch.float64)
    torch.testing.assert_close(combine(NashMTL(), lengths * jacobian), combine(NashMTL(), jacobian))


def test_opposed_gradients_give_hardly_a_direction():
    jacobian = torch.tensor([[1.0, 2], [-3, -6]], dtype=torch.float64)
    weighting = NashMTL()
    assert combine(weighting, jacobian).norm() < 1e-3
    assert weighting.fallbacks == 0


def test_a_fallback_is_counted_where_the_solver_does_not_end(monkeypatch):
    monkeypatch.setattr("mtlrun.weightings.nash_mtl.fair_weights", lambda gram, alpha: (numpy.ones(len(gram)), False))
    weighting = NashMTL()
    combine(weighting, random_jacobian(3))
    assert weighting.fallbacks == 1


def test_heads_are_trained_by_their_weighted_losses():
    assert NashMTL().head_loss == "weighted"


@pytest.mark.parametrize("max_norm", [0, -1.0])
def test_max_norm_that_is_not_positive_is_refused(max_norm):
    with pytest.raises(ValueError, match=f"max_norm must be > 0.* found {max_norm}"):
        NashMTL(max_norm=max_norm)
