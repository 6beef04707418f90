"""Fixed weights."""

import pytest
import torch

from mtlrun.weightings import Equal, Static, combine

JACOBIAN = torch.tensor([[-4.0, 1, 1], [6, 1, 1], [0, 2, 0]])


def test_direction_is_the_weighted_sum_of_the_gradients():
    assert combine(Static([0.5, 2, 3]), JACOBIAN).tolist() == [10, 8.5, 2.5]


def test_objective_is_the_weighted_sum_of_the_losses():
    weighting = Static([0.5, 2, 3])
    weighting.setup(3)
    assert weighting.objective(torch.tensor([2.0, 3.0, 5.0])) == 22


def test_weights_of_one_are_equal_weights():
    losses = torch.tensor([0.3, 1, 4])
    assert torch.equal(combine(Static([1, 1, 1]), JACOBIAN, losses), combine(Equal(), JACOBIAN, losses))


def test_tasks_keep_their_weights_when_another_has_no_loss(take_step):
    weighting = Static([0.5, 2, 3])
    weighting.setup(3)
    assert take_step(weighting, JACOBIAN[1:], torch.ones(2), active=[1, 2]).tolist() == [12, 8, 2]


def test_another_number_of_weights_than_tasks_is_refused():
    with pytest.raises(ValueError, match="weights must hold one number for each of the 3 tasks, found 2"):
        Static([1.0, 2.0]).setup(3)


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan")])
def test_weights_that_are_not_positive_are_refused(wrong):
    with pytest.raises(ValueError, match=rf"weights\[1\] must be > 0, or size, found {wrong}"):
        Static([1.0, wrong])
