"""Random loss weighting."""

import pytest
import torch
from scipy.stats import kstest

from mtlrun.weightings import RLW

DISTRIBUTIONS = ["normal", "dirichlet"]


def make(distribution="normal", num_tasks=3, seed=0):
    weighting = RLW(distribution)
    weighting.setup(num_tasks, seed)
    return weighting


def draw(weighting, num_tasks=3):
    losses = torch.ones(num_tasks, requires_grad=True)
    return torch.autograd.grad(weighting.objective(losses), losses)[0]


def draws(weighting, count=2000):
    return torch.stack([draw(weighting) for _ in range(count)])


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_weights_are_positive_and_sum_to_one(distribution):
    found = draws(make(distribution), 50)
    assert (found > 0).all()
    torch.testing.assert_close(found.sum(dim=1), torch.ones(50))


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_weights_differ_from_step_to_step_and_follow_the_seed(distribution):
    first = draws(make(distribution), 5)
    assert len(first.unique(dim=0)) == 5
    assert torch.equal(draws(make(distribution), 5), first)
    assert not torch.equal(draws(make(distribution, seed=1), 5), first)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_weights_do_not_depend_on_the_global_random_numbers(distribution):
    torch.manual_seed(1)
    first = draw(make(distribution))
    torch.manual_seed(2)
    assert torch.equal(draw(make(distribution)), first)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_no_task_is_preferred(distribution):
    assert draws(make(distribution)).mean(dim=0).tolist() == pytest.approx([1 / 3] * 3, abs=0.02)


def test_logarithms_of_normal_weights_differ_by_normal_numbers():
    found = draws(make("normal")).log()
    difference = (found[:, 0] - found[:, 1]) / 2**0.5
    assert kstest(difference.numpy(), "norm").pvalue > 0.01
    assert kstest((1.3 * difference).numpy(), "norm").pvalue < 0.01  # so the test can see


def test_each_dirichlet_weight_follows_a_beta_distribution():
    found = draws(make("dirichlet"))
    for task in range(3):
        assert kstest(found[:, task].numpy(), "beta", args=(1, 2)).pvalue > 0.01  # the margin of Dirichlet(1, 1, 1)
    assert kstest(draws(make("normal"))[:, 0].numpy(), "beta", args=(1, 2)).pvalue < 0.01


def test_draws_of_the_other_tasks_do_not_depend_on_a_task_without_a_loss():
    whole, part = make(), make()
    part.active = torch.tensor([0, 2])
    expected = draw(whole)[[0, 2]]
    torch.testing.assert_close(draw(part, 2), expected / expected.sum())
    part.active = slice(None)
    assert torch.equal(draw(part), draw(whole))  # and the next draw is the same again


def test_unknown_distribution_is_refused():
    with pytest.raises(ValueError, match="distribution must be one of 'normal', 'dirichlet', found 'bernoulli'"):
        RLW("bernoulli")
