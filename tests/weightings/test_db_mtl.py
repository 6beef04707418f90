"""DB-MTL."""

import pytest
import torch

from mtlrun.weightings import DBMTL, combine


def random_jacobian(seed=0):
    lengths = torch.tensor([[0.1], [1.0], [10.0]], dtype=torch.float64)
    return lengths * torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make(**options):
    weighting = DBMTL(**options)
    weighting.setup(3)
    return weighting


@pytest.mark.parametrize(("beta", "decay"), [(0.0, 0.0), (0.9, 0.0), (0.5, 0.5)])
def test_direction_is_the_sum_of_the_averages_at_the_length_of_the_longest(beta, decay):
    weighting, averages = make(beta=beta, decay=decay), torch.zeros(3, 5, dtype=torch.float64)
    for step in range(1, 6):
        share = beta / step**decay
        averages = share * averages + (1 - share) * random_jacobian(step)
        longest = max(row.norm() for row in averages)
        expected = sum(row * longest / row.norm() for row in averages)
        torch.testing.assert_close(combine(weighting, random_jacobian(step)), expected)


def test_in_the_first_step_all_gradients_get_the_length_of_the_longest():
    jacobian = torch.diag(torch.tensor([0.5, 4.0, 2.0], dtype=torch.float64))
    assert combine(make(beta=0.0), jacobian).tolist() == pytest.approx([4, 4, 4])


def test_gradients_are_those_of_the_logarithms_of_the_losses(take_step):
    # The gradients of the logarithms are (2, 0, 0), (0, 1, 0) and (0, 0, 3).
    losses = torch.tensor([0.5, 4.0, 1.0], dtype=torch.float64)
    jacobian = torch.diag(torch.tensor([1.0, 4.0, 3.0], dtype=torch.float64))
    assert take_step(make(beta=0.0), jacobian, losses).tolist() == pytest.approx([3, 3, 3])
    assert take_step(make(beta=0.0, loss_transform="identity"), jacobian, losses).tolist() == pytest.approx([4, 4, 4])


def test_scales_of_losses_do_not_matter(take_step):
    scales = torch.tensor([1e-3, 1.0, 1e3], dtype=torch.float64)
    losses = torch.ones(3, dtype=torch.float64)
    one, other = make(), make()
    for step in range(3):
        expected = take_step(one, random_jacobian(step), losses)
        direction = take_step(other, scales.unsqueeze(1) * random_jacobian(step), scales * losses)
        torch.testing.assert_close(direction, expected, rtol=1e-4, atol=1e-4)


def test_task_without_a_gradient_is_left_out():
    jacobian = random_jacobian()
    jacobian[1] = 0
    torch.testing.assert_close(
        combine(make(beta=0.0), jacobian), jacobian[2] + jacobian[0] * jacobian[2].norm() / jacobian[0].norm()
    )


def test_average_of_a_task_counts_the_steps_in_which_it_had_a_loss(take_step):
    weighting = make(beta=0.5, decay=1.0)
    losses = torch.ones(3, dtype=torch.float64)
    for _ in range(4):
        take_step(weighting, random_jacobian()[[0, 2]], losses[[0, 2]], active=[0, 2])
    take_step(weighting, random_jacobian(), losses)
    assert weighting.steps.tolist() == [5, 1, 5]
    torch.testing.assert_close(weighting.averages.vectors[1], 0.5 * random_jacobian()[1])


@pytest.mark.parametrize(("argument", "wrong"), [("beta", 1.0), ("beta", -0.1), ("decay", -0.5)])
def test_arguments_out_of_bounds_are_refused(argument, wrong):
    with pytest.raises(ValueError, match=f"{argument} must be .*, found {wrong}"):
        DBMTL(**{argument: wrong})
