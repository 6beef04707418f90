"""Dynamic weight average."""

from math import exp

import pytest
import torch

from mtlrun.weightings import DWA, combine


def weights(weighting, num_tasks=2):
    return combine(weighting, torch.eye(num_tasks), torch.ones(num_tasks))


def run_epoch(weighting, *batches):
    for losses in batches:
        weighting.objective(torch.tensor(losses))
    weighting.epoch_ended()


def make(num_tasks=2, temperature=2.0):
    weighting = DWA(temperature)
    weighting.setup(num_tasks)
    return weighting


def softmax_weights(ratios, temperature=2.0):
    powers = [exp(ratio / temperature) for ratio in ratios]
    return pytest.approx([len(ratios) * power / sum(powers) for power in powers], rel=1e-5)


def test_weights_are_one_in_the_first_two_epochs():
    weighting = make()
    assert weighting.objective(torch.tensor([4.0, 1.0])) == 5
    weighting.epoch_ended()
    assert weighting.objective(torch.tensor([2.0, 0.9])).item() == pytest.approx(2.9)


def test_weights_of_the_third_epoch_follow_from_the_means_of_the_first_two():
    weighting = make()
    run_epoch(weighting, [5.0, 1.0], [3.0, 1.0], [4.0, 1.0])
    run_epoch(weighting, [1.0, 0.8], [3.0, 1.0])
    assert weights(weighting).tolist() == softmax_weights([2.0 / 4.0, 0.9 / 1.0])


def test_weights_follow_the_last_two_epochs_only():
    weighting = make()
    for losses in ([9.0, 1.0], [4.0, 2.0], [1.0, 3.0]):
        run_epoch(weighting, losses)
    assert weights(weighting).tolist() == softmax_weights([1.0 / 4.0, 3.0 / 2.0])


def test_weights_stay_the_same_within_an_epoch():
    weighting = make()
    run_epoch(weighting, [4.0, 1.0])
    run_epoch(weighting, [1.0, 1.0])
    before = weights(weighting)
    weighting.objective(torch.tensor([100.0, 0.1]))
    assert torch.equal(weights(weighting), before)


def test_temperature_divides_the_ratios():
    weighting = make(temperature=0.5)
    run_epoch(weighting, [4.0, 1.0])
    run_epoch(weighting, [2.0, 0.9])
    assert weights(weighting).tolist() == softmax_weights([0.5, 0.9], temperature=0.5)


def test_weights_at_an_infinite_temperature_are_equal():
    weighting = make(temperature=1e9)
    run_epoch(weighting, [4.0, 1.0])
    run_epoch(weighting, [1.0, 1.0])
    assert weights(weighting).tolist() == pytest.approx([1, 1], abs=1e-6)


def test_weights_sum_to_the_number_of_tasks():
    weighting = make(num_tasks=4)
    run_epoch(weighting, [4.0, 1.0, 2.0, 3.0])
    run_epoch(weighting, [1.0, 1.0, 0.5, 2.9])
    assert weights(weighting, 4).sum().item() == pytest.approx(4)


def test_task_that_is_missing_from_some_batches_is_averaged_over_the_others(take_step):
    weighting = make()
    take_step(weighting, torch.eye(2), torch.tensor([4.0, 1.0]))
    take_step(weighting, torch.eye(2)[:1], torch.tensor([2.0]), active=[0])
    weighting.epoch_ended()
    take_step(weighting, torch.eye(2), torch.tensor([1.5, 0.5]))
    weighting.epoch_ended()
    weighting.active = slice(None)
    assert weights(weighting).tolist() == softmax_weights([1.5 / 3.0, 0.5 / 1.0])


def test_task_that_is_missing_for_an_epoch_counts_as_standing_still(take_step):
    weighting = make()
    run_epoch(weighting, [4.0, 1.0])
    take_step(weighting, torch.eye(2)[:1], torch.tensor([1.0]), active=[0])
    weighting.epoch_ended()
    weighting.active = slice(None)
    assert weights(weighting).tolist() == softmax_weights([0.25, 1.0])


def test_only_the_weights_of_tasks_with_a_loss_are_used(take_step):
    weighting = make(num_tasks=3)
    run_epoch(weighting, [4.0, 1.0, 1.0])
    run_epoch(weighting, [1.0, 1.0, 0.5])
    expected = weights(weighting, 3)
    found = take_step(weighting, torch.eye(2), torch.ones(2), active=[0, 2])
    assert torch.equal(found, expected[[0, 2]])


@pytest.mark.parametrize("wrong", [0.0, -1.0])
def test_temperature_that_is_not_positive_is_refused(wrong):
    with pytest.raises(ValueError, match=f"temperature must be > 0, found {wrong}"):
        DWA(wrong)
