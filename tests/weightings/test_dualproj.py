"""DualProj."""

import pytest
import torch
from scipy.optimize import nnls

from mtlrun.weightings import DualProj, UPGrad, combine


def random_jacobian(num_tasks, seed=0):
    return torch.randn(num_tasks, num_tasks + 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def conflicting_jacobian(num_tasks, seed=0):
    """With a mean gradient that conflicts with the first task's."""
    jacobian = random_jacobian(num_tasks, seed)
    jacobian[0] = jacobian[0] - 2 * jacobian[1:].sum(dim=0)
    jacobian[0] *= 0.5
    return jacobian


@pytest.mark.parametrize("num_tasks", [2, 3, 6])
def test_direction_is_the_mean_gradient_projected_on_the_dual_cone(num_tasks):
    for seed in range(5):
        jacobian = conflicting_jacobian(num_tasks, seed)
        mean = jacobian.mean(dim=0)
        added, _ = nnls(jacobian.T.numpy(), -mean.numpy())
        expected = mean + torch.from_numpy(added) @ jacobian
        torch.testing.assert_close(combine(DualProj(regularization=0), jacobian), expected)


def test_two_tasks_in_closed_form():
    first, second = jacobian = torch.tensor([[1.0, 0.0], [-3.0, 1.0]], dtype=torch.float64)
    mean = jacobian.mean(dim=0)
    # The mean (-1, 1/2) conflicts with the first task; without its part along that task's gradient it is (0, 1/2).
    expected = mean - (mean @ first) / first.square().sum() * first
    assert combine(DualProj(regularization=0), jacobian).tolist() == pytest.approx(expected.tolist())
    assert expected @ second > 0


def test_mean_that_conflicts_with_no_task_is_left_as_it_is_unlike_under_upgrad():
    jacobian = torch.tensor([[-4.0, 1, 1], [6, 1, 1]], dtype=torch.float64) + 4 * torch.tensor([0.0, 1, 1])
    jacobian[0, 0] = -5.2
    jacobian[1, 0] = 10.0
    assert jacobian[0] @ jacobian[1] < 0
    assert (jacobian @ jacobian.mean(dim=0)).min() > 0
    torch.testing.assert_close(combine(DualProj(), jacobian), jacobian.mean(dim=0))
    assert not torch.allclose(combine(UPGrad(), jacobian), jacobian.mean(dim=0), rtol=0.01)


@pytest.mark.parametrize("num_tasks", [2, 3, 6, 40])
def test_direction_conflicts_with_no_task(num_tasks):
    for seed in range(5):
        jacobian = conflicting_jacobian(num_tasks, seed)
        scale = jacobian.square().sum()
        assert (jacobian @ combine(DualProj(regularization=0), jacobian)).min() >= -1e-12 * scale
        assert (jacobian @ combine(DualProj(), jacobian)).min() >= -1e-4 * scale


def test_sum_is_the_mean_times_the_number_of_tasks():
    jacobian = conflicting_jacobian(3)
    torch.testing.assert_close(combine(DualProj(reduction="sum"), jacobian), 3 * combine(DualProj(), jacobian))


def test_a_projection_that_fails_is_counted(monkeypatch):
    monkeypatch.setattr("mtlrun.weightings.dualproj.project_on_dual_cone", lambda gram, start, _: (start, False))
    weighting = DualProj()
    combine(weighting, random_jacobian(3))
    assert weighting.fallbacks == 1


def test_regularization_below_zero_is_refused():
    with pytest.raises(ValueError, match=r"regularization must be >= 0, found -1"):
        DualProj(regularization=-1)
    with pytest.raises(ValueError, match=r"reduction must be one of .* found 'max'"):
        DualProj(reduction="max")
