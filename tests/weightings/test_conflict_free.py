"""ConFIG, against the formula of the paper on the vectors themselves."""

import pytest
import torch

from mtlrun.weightings import ConFIG, combine


def random_jacobian(num_tasks, num_parameters=8, seed=0):
    return torch.randn(
        num_tasks, num_parameters, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    ) * torch.tensor([0.1, 1, 10, 3, 0.5, 2, 7], dtype=torch.float64)[:num_tasks].unsqueeze(1)


def direction_of_the_paper(jacobian):
    units = jacobian / jacobian.norm(dim=1, keepdim=True)
    along = torch.linalg.pinv(units, rtol=1e-6) @ torch.ones(len(jacobian), dtype=torch.float64)
    along = along / along.norm()
    return (jacobian @ along).sum() * along


def test_direction_of_the_published_example():
    jacobian = torch.tensor([[-4.0, 1, 1], [6, 1, 1]], dtype=torch.float64)
    assert combine(ConFIG(), jacobian).tolist() == pytest.approx([0.1588, 2.0706, 2.0706], abs=5e-5)


@pytest.mark.parametrize("num_tasks", [1, 2, 3, 7])
def test_direction_is_that_of_the_pseudo_inverse(num_tasks):
    for seed in range(5):
        jacobian = random_jacobian(num_tasks, seed=seed)
        torch.testing.assert_close(combine(ConFIG(), jacobian), direction_of_the_paper(jacobian))


def test_direction_of_more_tasks_than_parameters_is_that_of_the_pseudo_inverse():
    for seed in range(5):
        jacobian = random_jacobian(7, num_parameters=4, seed=seed)
        torch.testing.assert_close(combine(ConFIG(), jacobian), direction_of_the_paper(jacobian))


def test_direction_has_one_positive_cosine_with_all_tasks():
    jacobian = random_jacobian(5)
    cosines = torch.cosine_similarity(jacobian, combine(ConFIG(), jacobian).unsqueeze(0), dim=1)
    assert cosines[0] > 0
    torch.testing.assert_close(cosines, cosines[0].expand(5))


def test_rounding_of_dependent_gradients_does_not_make_a_direction():
    exact = random_jacobian(3, num_parameters=300)
    exact[2] = exact[0] - 2 * exact[1]
    rounded = exact.float()
    weights = ConFIG().task_weights((rounded @ rounded.T).double(), torch.ones(3))
    torch.testing.assert_close(weights @ exact, direction_of_the_paper(exact), rtol=1e-3, atol=1e-3)


def test_opposite_gradients_give_a_direction_of_zeros():
    jacobian = torch.tensor([[1.0, 2], [-3, -6]], dtype=torch.float64)
    assert combine(ConFIG(), jacobian).abs().max() < 1e-12


def test_task_without_a_gradient_changes_nothing():
    jacobian = random_jacobian(3)
    with_zero = torch.cat([jacobian[:1], torch.zeros(1, 8), jacobian[1:]])
    torch.testing.assert_close(combine(ConFIG(), with_zero), combine(ConFIG(), jacobian))


def test_direction_turns_continuously_as_a_gradient_becomes_short():
    jacobian = random_jacobian(3)
    short = jacobian * torch.tensor([[1.0], [1e-7], [1.0]], dtype=torch.float64)
    direction, expected = combine(ConFIG(), short), combine(ConFIG(), jacobian)
    # Lengths change how far to go, and not where.
    assert torch.cosine_similarity(direction, expected, dim=0) > 1 - 1e-9
