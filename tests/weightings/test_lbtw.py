"""Loss-balanced task weighting."""

import pytest
import torch

from mtlrun.weightings import LBTW, Equal, combine


def make(num_tasks=2, **options):
    weighting = LBTW(**options)
    weighting.setup(num_tasks)
    return weighting


def weights(weighting, *losses):
    return combine(weighting, torch.eye(len(losses), dtype=torch.float64), torch.tensor(losses, dtype=torch.float64))


def test_weights_are_one_on_the_first_batch_of_an_epoch():
    assert weights(make(), 4.0, 0.1).tolist() == [1, 1]


def test_weights_are_the_root_of_the_loss_relative_to_the_first_batch():
    weighting = make()
    weights(weighting, 4.0, 1.0)
    assert weights(weighting, 1.0, 0.81).tolist() == pytest.approx([0.5, 0.9])
    assert weights(weighting, 16.0, 0.25).tolist() == pytest.approx([2.0, 0.5])  # the first batch, not the last one


@pytest.mark.parametrize(("alpha", "expected"), [(0.0, [1, 1]), (1.0, [0.25, 0.9]), (2.0, [0.0625, 0.81])])
def test_alpha_is_the_exponent(alpha, expected):
    weighting = make(alpha=alpha)
    weights(weighting, 4.0, 1.0)
    assert weights(weighting, 1.0, 0.9).tolist() == pytest.approx(expected)


def test_alpha_of_zero_is_equal_weights():
    weighting = make(alpha=0.0)
    for losses in ([4.0, 1.0], [3.0, 0.2]):
        values = torch.tensor(losses)
        assert weighting.objective(values) == Equal().objective(values)


def test_each_epoch_has_its_own_first_batch():
    weighting = make()
    weights(weighting, 4.0, 1.0)
    weights(weighting, 1.0, 0.9)
    weighting.epoch_ended()
    assert weights(weighting, 1.0, 0.9).tolist() == [1, 1]
    assert weights(weighting, 0.25, 0.9).tolist() == pytest.approx([0.5, 1.0])


def test_weights_are_held_constant_in_the_objective():
    weighting = make(1)
    weights(weighting, 4.0)
    loss = torch.tensor([1.0], requires_grad=True)
    weighting.objective(loss).backward()
    assert loss.grad.item() == pytest.approx(0.5)  # not 0.5 * 1.5, the slope of L^1.5 / L(0)^0.5


def test_normalized_weights_sum_to_the_number_of_tasks():
    weighting = make(3, normalize=True)
    weights(weighting, 4.0, 1.0, 1.0)
    found = weights(weighting, 1.0, 1.0, 0.25)
    assert found.tolist() == pytest.approx([3 * 0.5 / 2, 3 * 1 / 2, 3 * 0.5 / 2])


def test_normalized_weights_sum_to_the_number_of_tasks_in_the_batch(take_step):
    weighting = make(3, normalize=True)
    weights(weighting, 4.0, 1.0, 1.0)
    found = take_step(weighting, torch.eye(2), torch.tensor([1.0, 1.0]), active=[0, 2])
    assert found.tolist() == pytest.approx([2 * 0.5 / 1.5, 2 * 1 / 1.5])


def test_first_batch_of_a_task_is_the_first_that_has_a_label_for_it(take_step):
    weighting = make()
    take_step(weighting, torch.eye(1), torch.tensor([4.0]), active=[0])
    assert take_step(weighting, torch.eye(2), torch.tensor([1.0, 5.0])).tolist() == pytest.approx([0.5, 1.0])
    assert take_step(weighting, torch.eye(2), torch.tensor([4.0, 1.25])).tolist() == pytest.approx([1.0, 0.5])


@pytest.mark.parametrize("normalize", [False, True])
def test_losses_of_zero_give_finite_weights(normalize):
    weighting = make(normalize=normalize)
    assert weights(weighting, 0.0, 1.0).tolist() == [1, 1]
    assert weights(weighting, 1.0, 1.0).tolist() == [1, 1]
    assert weights(weighting, 0.0, 0.0).isfinite().all()


def test_all_losses_of_zero_after_the_first_batch_give_finite_weights():
    weighting = make(normalize=True)
    weights(weighting, 1.0, 1.0)
    assert weights(weighting, 0.0, 0.0).tolist() == [1, 1]


@pytest.mark.parametrize("wrong", [-0.5, float("nan")])
def test_alpha_below_zero_is_refused(wrong):
    with pytest.raises(ValueError, match=f"alpha must be >= 0, found {wrong}"):
        LBTW(alpha=wrong)
