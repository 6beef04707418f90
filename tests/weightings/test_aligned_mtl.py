"""Aligned-MTL, against the singular value decomposition of the gradients themselves."""

import pytest
import torch

from mtlrun.weightings import AlignedMTL, combine


def random_jacobian(num_tasks, num_parameters=8, seed=0):
    return torch.randn(
        num_tasks, num_parameters, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    ) * torch.tensor([0.1, 1, 10, 3, 0.5, 2, 7], dtype=torch.float64)[:num_tasks].unsqueeze(1)


def align(jacobian, scale="min"):
    """The nearest matrix with orthogonal rows of one length: U V^T of the decomposition, times a singular value."""
    left, values, right = torch.linalg.svd(jacobian, full_matrices=False)
    rank = int((values > 1e-9 * values[0]).sum())
    values = values[:rank]
    length = {"min": values[-1], "median": values.median(), "rmse": values.square().mean().sqrt()}[scale]
    return length * left[:, :rank] @ right[:rank]


def test_direction_of_the_published_example():
    jacobian = torch.tensor([[-4.0, 1, 1], [6, 1, 1]], dtype=torch.float64)
    assert combine(AlignedMTL(), jacobian).tolist() == pytest.approx([0.2133, 0.9673, 0.9673], abs=5e-5)


@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
@pytest.mark.parametrize("num_tasks", [1, 2, 3, 7])
def test_direction_is_the_mean_of_the_aligned_gradients(scale, num_tasks):
    for seed in range(5):
        jacobian = random_jacobian(num_tasks, seed=seed)
        torch.testing.assert_close(combine(AlignedMTL(scale), jacobian), align(jacobian, scale).mean(dim=0))


@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
def test_dependent_gradients_are_aligned_in_what_they_span(scale):
    jacobian = random_jacobian(4)
    jacobian[2] = jacobian[0] - 2 * jacobian[1]
    torch.testing.assert_close(combine(AlignedMTL(scale), jacobian), align(jacobian, scale).mean(dim=0))


def test_gradients_of_float32_that_depend_on_each_other_are_not_taken_for_independent_ones():
    exact = random_jacobian(3, num_parameters=300)
    exact[2] = exact[0] - 2 * exact[1]
    rounded = exact.float()
    weights = AlignedMTL().task_weights((rounded @ rounded.T).double(), torch.ones(3))
    torch.testing.assert_close(weights @ exact, align(exact).mean(dim=0), rtol=1e-3, atol=1e-3)


def test_orthogonal_gradients_get_the_length_of_the_shortest():
    jacobian = torch.diag(torch.tensor([4.0, 1.0, 9.0], dtype=torch.float64))
    assert combine(AlignedMTL(), jacobian).tolist() == pytest.approx([1 / 3] * 3)
    assert combine(AlignedMTL("median"), jacobian).tolist() == pytest.approx([4 / 3] * 3)
    assert combine(AlignedMTL("rmse"), jacobian).tolist() == pytest.approx([(98 / 3) ** 0.5 / 3] * 3)


def test_short_gradient_counts_as_an_independent_direction():
    jacobian = torch.diag(torch.tensor([1.0, 1e-5], dtype=torch.float64))
    assert combine(AlignedMTL(), jacobian).tolist() == pytest.approx([5e-6, 5e-6])


def test_sum_is_the_mean_times_the_number_of_tasks():
    jacobian = random_jacobian(3)
    torch.testing.assert_close(
        combine(AlignedMTL(reduction="sum"), jacobian), 3 * combine(AlignedMTL(reduction="mean"), jacobian)
    )


def test_opposite_gradients_cancel():
    jacobian = torch.tensor([[1.0, 2], [-1, -2]], dtype=torch.float64)
    assert combine(AlignedMTL(), jacobian).abs().max() < 1e-12


def test_task_without_a_gradient_only_enters_the_mean():
    jacobian = random_jacobian(2)
    with_zero = torch.cat([jacobian, torch.zeros(1, 8)])
    torch.testing.assert_close(combine(AlignedMTL(), with_zero), combine(AlignedMTL(), jacobian) * 2 / 3)


@pytest.mark.parametrize("argument", ["scale", "reduction"])
def test_unknown_words_are_refused(argument):
    with pytest.raises(ValueError, match=f"{argument} must be one of .* found 'max'"):
        AlignedMTL(**{argument: "max"})
