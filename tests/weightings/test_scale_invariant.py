"""Scale-invariant sum of losses."""

from math import log

import pytest
import torch

from mtlrun.weightings import Equal, ScaleInvariant, combine

JACOBIAN = torch.tensor([[-4.0, 1, 1], [6, 1, 1], [0, 2, 0]], dtype=torch.float64)
LOSSES = torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64)


def test_objective_is_the_sum_of_the_logarithms():
    assert ScaleInvariant().objective(LOSSES).item() == pytest.approx(log(0.3) + log(4))


def test_weights_are_one_over_the_losses():
    found = combine(ScaleInvariant(), torch.eye(3, dtype=torch.float64), LOSSES)
    assert found.tolist() == pytest.approx([1 / 0.3, 1, 0.25], rel=1e-6)


@pytest.mark.parametrize("factors", [[1e3, 1e-3, 1.0], [7.0, 7.0, 7.0]])
def test_a_task_in_other_units_changes_nothing(factors):
    factors = torch.tensor(factors, dtype=torch.float64)
    scaled = combine(ScaleInvariant(), factors.unsqueeze(1) * JACOBIAN, factors * LOSSES)
    torch.testing.assert_close(scaled, combine(ScaleInvariant(), JACOBIAN, LOSSES), rtol=1e-4, atol=0)


def test_it_is_the_sum_of_log_transformed_losses(take_step):
    logarithms = Equal(loss_transform="log")
    logarithms.setup(3)
    weighting = ScaleInvariant()
    weighting.setup(3)
    assert torch.equal(take_step(weighting, JACOBIAN, LOSSES), take_step(logarithms, JACOBIAN, LOSSES))


def test_a_loss_of_zero_gives_a_finite_direction():
    assert combine(ScaleInvariant(), JACOBIAN, torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)).isfinite().all()


def test_scale_invariant_needs_positive_losses():
    assert ScaleInvariant().needs_positive_losses
