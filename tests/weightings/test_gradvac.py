"""GradVac, against the algorithm of the paper on the vectors themselves."""

import pytest
import torch

from mtlrun.weightings import GradVac, PCGrad, combine


def random_jacobian(num_tasks, seed=0):
    return torch.randn(num_tasks, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make(num_tasks, seed=0, **options):
    weighting = GradVac(**options)
    weighting.setup(num_tasks, seed)
    return weighting


def turn_vectors(jacobian, orders, rho, beta):
    """The algorithm of the paper; changes `rho`; `orders` holds for each task the order of the others."""
    turned = []
    for task, order in enumerate(orders):
        gradient = jacobian[task].clone()
        for other in order:
            if other == task:
                continue
            cosine = torch.cosine_similarity(gradient, jacobian[other], dim=0)
            target = rho[task, other].clone()
            if cosine < target:
                rise = target * (1 - cosine**2).sqrt() - cosine * (1 - target**2).sqrt()
                length = jacobian[other].norm() * (1 - target**2).sqrt()
                gradient = gradient + gradient.norm() * rise / length * jacobian[other]
            rho[task, other] = (1 - beta) * target + beta * cosine
        turned.append(gradient)
    return torch.stack(turned)


@pytest.mark.parametrize("num_tasks", [2, 3, 6])
def test_directions_equal_those_of_the_vectors_in_the_same_orders(num_tasks):
    weighting, generator = make(num_tasks, seed=5, beta=0.3), torch.Generator().manual_seed(5)
    rho = torch.zeros(num_tasks, num_tasks, dtype=torch.float64)
    for step in range(10):
        jacobian = random_jacobian(num_tasks, step)
        orders = torch.rand(num_tasks, num_tasks, generator=generator).argsort(dim=1).tolist()
        expected = turn_vectors(jacobian, orders, rho, 0.3)
        torch.testing.assert_close(combine(weighting, jacobian), expected.sum(dim=0))
        torch.testing.assert_close(weighting.rho, rho)
    assert (rho != 0).any()


def test_gradient_is_turned_until_the_cosine_is_the_average():
    weighting = make(2)
    weighting.rho[:] = torch.tensor([[0.0, 0.8], [-1.0, 0.0]])
    jacobian = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    direction = combine(weighting, jacobian)
    turned = direction - jacobian[1]  # the second task's cosine, 0, is above its average, -1
    assert turned.tolist() == pytest.approx([1, 4 / 3])
    assert torch.cosine_similarity(turned, jacobian[1], dim=0).item() == pytest.approx(0.8)


def test_first_step_is_that_of_pcgrad():
    for seed in range(5):
        jacobian = random_jacobian(4, seed)
        expected = combine(PCGrad(), jacobian)
        torch.testing.assert_close(combine(GradVac(), jacobian), expected)


def test_average_also_rises():
    weighting = make(2, beta=0.5)
    jacobian = torch.tensor([[1.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    for expected in (0.3, 0.45, 0.525):
        combine(weighting, jacobian)
        assert weighting.rho[0, 1].item() == pytest.approx(expected)
        assert weighting.rho[1, 0].item() == pytest.approx(expected)


def test_average_of_parallel_gradients_does_not_lead_to_infinite_weights():
    weighting = make(2, beta=1.0)
    combine(weighting, torch.tensor([[1.0, 1.0], [2.0, 2.0]], dtype=torch.float64))
    assert weighting.rho[0, 1].item() == pytest.approx(1)
    direction = combine(weighting, torch.eye(2, dtype=torch.float64))
    assert direction.isfinite().all()
    assert direction.max() < 2000


def test_tasks_without_a_gradient_keep_their_averages():
    weighting = make(3)
    weighting.rho.fill_(0.25)
    jacobian = random_jacobian(3)
    jacobian[1] = 0
    combine(weighting, jacobian)
    assert (weighting.rho[1, [0, 2]] == 0.25).all()
    assert (weighting.rho[[0, 2], 1] == 0.25).all()
    assert (weighting.rho[0, 2] != 0.25).all()


def test_averages_of_the_tasks_with_a_loss_are_used_and_no_others_change(take_step):
    weighting = make(3)
    weighting.rho[:] = torch.tensor([[0.0, 0.1, 0.8], [0.2, 0.0, 0.3], [-1.0, 0.4, 0.0]])
    before = weighting.rho.clone()
    jacobian = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    direction = take_step(weighting, jacobian, torch.ones(2), active=[0, 2])
    assert direction.tolist() == pytest.approx([1, 4 / 3 + 2])
    assert weighting.rho[0, 2].item() == pytest.approx(0.4)
    before[[0, 2], [2, 0]] = weighting.rho[[0, 2], [2, 0]]
    assert torch.equal(weighting.rho, before)


def test_mean_is_the_sum_divided_by_the_number_of_tasks():
    jacobian = random_jacobian(3, 1)
    torch.testing.assert_close(
        combine(make(3, reduction="mean"), jacobian), combine(make(3, reduction="sum"), jacobian) / 3
    )


def test_orders_follow_the_seed_and_nothing_else():
    jacobian = torch.tensor([[1.0, 0, 0], [-1, 1, 0.2], [-1, -1, 0.3], [0.4, -1, -1]], dtype=torch.float64)

    def directions(seed, global_seed):
        torch.manual_seed(global_seed)
        weighting = make(4, seed)
        return torch.stack([combine(weighting, jacobian) for _ in range(8)])

    assert torch.equal(directions(0, 0), directions(0, 1))
    assert not torch.equal(directions(0, 0), directions(1, 0))


@pytest.mark.parametrize("wrong", [-0.1, 1.5])
def test_beta_outside_0_and_1_is_refused(wrong):
    with pytest.raises(ValueError, match=rf"beta must be in \[0, 1\], found {wrong}"):
        GradVac(wrong)
    with pytest.raises(ValueError, match=r"reduction must be one of .* found 'max'"):
        GradVac(reduction="max")
