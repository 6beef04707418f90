"""PCGrad, against the algorithm of the paper on the vectors themselves."""

import numpy
import pytest
import torch

from mtlrun.weightings import PCGrad, combine
from mtlrun.weightings.pcgrad import project_few, project_many


def random_jacobian(num_tasks, seed=0):
    return torch.randn(num_tasks, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make(num_tasks, seed=0, **options):
    weighting = PCGrad(**options)
    weighting.setup(num_tasks, seed)
    return weighting


def project_vectors(jacobian, orders):
    """Algorithm 1 of the paper; `orders` holds for each task the order of the others."""
    projected = []
    for task, order in enumerate(orders):
        gradient = jacobian[task].clone()
        for other in order:
            product = gradient @ jacobian[other]
            if other != task and product < 0:
                gradient = gradient - product / jacobian[other].square().sum() * jacobian[other]
        projected.append(gradient)
    return torch.stack(projected).sum(dim=0)


def test_direction_of_the_published_example():
    jacobian = torch.tensor([[-4.0, 1, 1], [6, 1, 1]], dtype=torch.float64)
    assert combine(PCGrad(), jacobian).tolist() == pytest.approx([0.5848, 3.8012, 3.8012], abs=5e-5)


@pytest.mark.parametrize("num_tasks", [2, 3, 6])
def test_direction_equals_the_projection_of_the_vectors_in_the_same_orders(num_tasks):
    weighting = make(num_tasks, seed=5)
    generator = torch.Generator().manual_seed(5)
    for step in range(10):
        jacobian = random_jacobian(num_tasks, step)
        orders = torch.rand(num_tasks, num_tasks, generator=generator).argsort(dim=1).tolist()
        torch.testing.assert_close(combine(weighting, jacobian), project_vectors(jacobian, orders))


def test_gradients_without_conflict_are_summed():
    jacobian = random_jacobian(3).abs()
    torch.testing.assert_close(combine(PCGrad(), jacobian), jacobian.sum(dim=0))


def test_mean_is_the_sum_divided_by_the_number_of_tasks():
    jacobian = random_jacobian(3, 1)
    torch.testing.assert_close(
        combine(make(3, reduction="mean"), jacobian), combine(make(3, reduction="sum"), jacobian) / 3
    )


def test_order_of_two_tasks_does_not_matter():
    jacobian = torch.tensor([[-4.0, 1, 1], [6, 1, 1]], dtype=torch.float64)
    torch.testing.assert_close(combine(PCGrad(), jacobian.flip(0)), combine(PCGrad(), jacobian))


def test_opposite_gradients_cancel():
    jacobian = torch.tensor([[1.0, 2], [-3, -6]], dtype=torch.float64)
    torch.testing.assert_close(combine(PCGrad(), jacobian), torch.zeros(2, dtype=torch.float64))


def test_projections_follow_the_seed_and_go_on_from_step_to_step():
    jacobian = torch.tensor([[1.0, 0, 0], [-1, 1, 0.2], [-1, -1, 0.3], [0.4, -1, -1]], dtype=torch.float64)

    def directions(seed):
        weighting = make(4, seed)
        return torch.stack([combine(weighting, jacobian) for _ in range(8)])

    assert torch.equal(directions(0), directions(0))
    assert not torch.equal(directions(0), directions(1))
    assert len(directions(0).unique(dim=0)) > 1


def test_gradients_of_two_of_three_tasks_are_projected_on_each_other(take_step):
    jacobian = torch.tensor([[-4.0, 1, 1], [6, 1, 1]], dtype=torch.float64)
    direction = take_step(make(3), jacobian, torch.ones(2), active=[0, 2])
    torch.testing.assert_close(direction, combine(PCGrad(), jacobian))


def test_few_gradients_are_projected_as_many_are():
    for seed in range(20):
        rng = numpy.random.default_rng(seed)
        num_tasks = 2 + seed % 7
        rows = rng.normal(size=(num_tasks, 5))
        rows[0] *= seed % 3  # zero in some cases
        orders = rng.permuted(numpy.tile(numpy.arange(num_tasks), (num_tasks, 1)), axis=1)
        gram = rows @ rows.T
        assert project_few(gram, orders) == pytest.approx(project_many(gram, orders), rel=1e-9)
