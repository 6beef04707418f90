"""CoV-weighting."""

import numpy
import pytest
import torch

from mtlrun.weightings import CoVWeighting, combine

HISTORY = torch.rand(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1


def make(num_tasks=3):
    weighting = CoVWeighting()
    weighting.setup(num_tasks)
    return weighting


def weights(weighting, losses):
    return combine(weighting, torch.eye(len(losses), dtype=torch.float64), torch.as_tensor(losses, dtype=torch.float64))


def slow_weights(history):
    """Write out the weights that follow from all losses [steps, tasks] so far."""
    ratios = [numpy.ones(history.shape[1])]
    ratios += [history[step] / history[:step].mean(axis=0) for step in range(1, len(history))]
    variation = numpy.sqrt(numpy.var(ratios, axis=0) + 1e-8) / numpy.mean(ratios, axis=0)
    return variation / variation.sum()


def test_weights_are_equal_in_the_first_two_steps():
    weighting = make()
    for losses in HISTORY[:2]:
        assert weights(weighting, losses).tolist() == pytest.approx([1 / 3] * 3)


def test_weights_of_the_third_step_follow_from_the_first_two():
    weighting = make(2)
    weights(weighting, [4.0, 1.0])
    weights(weighting, [2.0, 2.0])
    # l = (1, 1/2) and (1, 2): standard deviations 1/4 and 1/2, means 3/4 and 3/2, so both vary by a third
    assert weights(weighting, [9.0, 9.0]).tolist() == pytest.approx([0.5, 0.5], rel=1e-6)


def test_weights_equal_those_of_the_whole_history_written_out():
    weighting = make()
    for step, losses in enumerate(HISTORY):
        found = weights(weighting, losses)
        if step >= 2:
            assert found.tolist() == pytest.approx(slow_weights(HISTORY[:step].numpy()).tolist(), rel=1e-9)


def test_the_loss_of_a_step_does_not_influence_its_own_weights():
    one, other = make(), make()
    for losses in HISTORY[:4]:
        weights(one, losses)
        weights(other, losses)
    assert torch.equal(weights(one, HISTORY[4]), weights(other, 100 * HISTORY[4]))


def test_scales_of_losses_do_not_matter():
    one, other = make(), make()
    factors = torch.tensor([1e3, 1.0, 1e-3], dtype=torch.float64)
    for losses in HISTORY:
        torch.testing.assert_close(weights(one, losses), weights(other, factors * losses))


def test_losses_that_do_not_change_are_weighed_equally():
    weighting = make()
    for _ in range(4):
        found = weights(weighting, [0.5, 1.0, 7.0])
    assert found.tolist() == pytest.approx([1 / 3] * 3)


def test_task_whose_loss_does_not_change_hardly_weighs():
    weighting = make(2)
    for loss in (1.0, 0.5, 1.0, 0.5):
        found = weights(weighting, [loss, 1.0])
    assert found[1] < 1e-3


def test_history_of_a_task_holds_the_batches_that_have_a_label_for_it(take_step):
    weighting = make()
    for step in range(6):
        if step % 2:
            take_step(weighting, torch.eye(2, dtype=torch.float64), HISTORY[step, [0, 2]], active=[0, 2])
        else:
            take_step(weighting, torch.eye(3, dtype=torch.float64), HISTORY[step])
    weighting.active = torch.tensor([1])
    assert weighting.count.tolist() == [6, 3, 6]
    whole = make(1)
    for step in (0, 2, 4):
        weights(whole, HISTORY[step, [1]])
    assert weighting.squares[1].item() == pytest.approx(whole.squares[0].item())
    assert weighting.mean_ratio[1].item() == pytest.approx(whole.mean_ratio[0].item())


def test_weights_are_equal_as_long_as_a_task_of_the_batch_is_new(take_step):
    weighting = make()
    for losses in HISTORY[:4]:
        take_step(weighting, torch.eye(2, dtype=torch.float64), losses[:2], active=[0, 1])
    for losses in HISTORY[4:6]:
        found = take_step(weighting, torch.eye(3, dtype=torch.float64), losses)
        assert found.tolist() == pytest.approx([1 / 3] * 3)
    found = take_step(weighting, torch.eye(2, dtype=torch.float64), HISTORY[6, :2], active=[0, 1])
    assert found.tolist() != pytest.approx([0.5, 0.5])


def test_losses_of_zero_give_finite_weights():
    weighting = make(2)
    for _ in range(4):
        assert weights(weighting, [0.0, 1.0]).isfinite().all()
