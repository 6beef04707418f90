"""Bloop."""

import pytest
import torch

from mtlrun.weightings import Bloop, combine

LOSSES = torch.ones(3, dtype=torch.float64)


def random_jacobian(seed=0):
    return torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make(primary=0, **options):
    weighting = Bloop(primary=primary, **options)
    weighting.setup(3)
    return weighting


@pytest.mark.parametrize(("primary", "auxiliary_weight", "beta"), [(0, 0.1, 0.1), (2, 3.0, 0.5), (1, 1.0, 1.0)])
def test_direction_equals_the_formula_written_out(primary, auxiliary_weight, beta):
    weighting = make(primary, auxiliary_weight=auxiliary_weight, beta=beta)
    mean = random_jacobian(0)[primary]  # the first gradient
    for step in range(6):
        jacobian = random_jacobian(step)
        mean = (1 - beta) * mean + beta * jacobian[primary]
        others = sum(jacobian[task] for task in range(3) if task != primary)
        orthogonal = others - (others @ mean) / (mean @ mean) * mean
        torch.testing.assert_close(combine(weighting, jacobian), jacobian[primary] + auxiliary_weight * orthogonal)


def test_the_part_of_the_others_is_orthogonal_to_the_mean():
    weighting = make(auxiliary_weight=5.0)
    for step in range(5):
        jacobian = random_jacobian(step)
        others = combine(weighting, jacobian) - jacobian[0]
        assert abs(others @ weighting.average.vectors[0]) < 1e-12
        assert others.norm() > 1


def test_with_the_gradient_of_the_step_itself_the_primary_loss_falls_as_it_would_alone():
    weighting = make(1, auxiliary_weight=10.0, beta=1.0)
    for step in range(5):
        jacobian = random_jacobian(step)
        assert combine(weighting, jacobian) @ jacobian[1] == pytest.approx((jacobian[1] @ jacobian[1]).item())


def test_equal_tasks_and_a_weight_of_zero_give_the_primary_gradient():
    row = random_jacobian()[1]
    torch.testing.assert_close(combine(make(auxiliary_weight=7.0), row.repeat(3, 1)), row)
    weighting = make(2, auxiliary_weight=0.0)
    for step in range(3):
        torch.testing.assert_close(combine(weighting, random_jacobian(step)), random_jacobian(step)[2])


def test_the_scale_of_the_primary_loss_changes_nothing_in_the_part_of_the_others():
    scale = torch.tensor([[1e6], [1.0], [1.0]], dtype=torch.float64)
    one, other = make(), make()
    for step in range(4):
        jacobian = random_jacobian(step)
        expected = combine(one, jacobian) - jacobian[0]
        found = combine(other, scale * jacobian) - 1e6 * jacobian[0]
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_the_primary_task_alone_has_its_plain_gradient(take_step):
    weighting = make(1)
    for step in range(3):
        row = random_jacobian(step)[[1]]
        torch.testing.assert_close(take_step(weighting, row, LOSSES[[1]], active=[1]), row[0])


def test_without_a_loss_of_the_primary_task_the_others_are_projected_off_the_mean_so_far(take_step):
    weighting, jacobian = make(1, auxiliary_weight=2.0), random_jacobian()
    others = jacobian[0] + jacobian[2]
    found = take_step(weighting, jacobian[[0, 2]], LOSSES[[0, 2]], active=[0, 2])
    torch.testing.assert_close(found, 2 * others)  # there is no mean yet
    take_step(weighting, jacobian, LOSSES)
    found = take_step(weighting, jacobian[[0, 2]], LOSSES[[0, 2]], active=[0, 2])
    mean = jacobian[1]
    torch.testing.assert_close(found, 2 * (others - (others @ mean) / (mean @ mean) * mean))
    torch.testing.assert_close(weighting.average.vectors, mean.unsqueeze(0))


def test_two_losses_end_where_the_primary_one_is_least_and_the_other_least_among_such_points(take_step):
    # The primary loss is x², least on the line x = 0; the other one is (x - 1)² + (y - 1)², least there at y = 1.
    weighting = Bloop(primary=0, auxiliary_weight=1.0)
    weighting.setup(2)
    point = torch.tensor([3.0, -2.0], dtype=torch.float64)
    for _ in range(300):
        x, y = point
        jacobian = torch.stack([torch.stack([2 * x, 0 * x]), torch.stack([2 * (x - 1), 2 * (y - 1)])])
        point = point - 0.05 * take_step(weighting, jacobian, LOSSES[:2])
    torch.testing.assert_close(point, torch.tensor([0.0, 1.0], dtype=torch.float64), rtol=0, atol=1e-6)


def test_arguments_are_checked():
    for options, message in (
        ({"auxiliary_weight": -0.1}, "auxiliary_weight must be >= 0"),
        ({"beta": 0.0}, r"beta must be in \(0, 1\]"),
        ({"grad_wrt": "representation"}, "grad_wrt must be 'shared'"),
    ):
        with pytest.raises(ValueError, match=message):
            Bloop(primary=0, **options)
