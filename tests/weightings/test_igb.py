"""Improvable gap balancing."""

from math import exp

import pytest
import torch

from mtlrun.weightings import IGB, ScaleInvariant, combine


def make(num_tasks=2, base_epoch=0):
    weighting = IGB(base_epoch)
    weighting.setup(num_tasks)
    return weighting


def run_epoch(weighting, *batches):
    for losses in batches:
        weighting.objective(torch.tensor(losses, dtype=torch.float64))
    weighting.epoch_ended()


def weights(weighting, *losses):
    return combine(weighting, torch.eye(len(losses), dtype=torch.float64), torch.tensor(losses, dtype=torch.float64))


def expected_weights(losses, base):
    powers = [exp(loss / start) for loss, start in zip(losses, base, strict=True)]
    found = [len(losses) * power / sum(powers) / loss for power, loss in zip(powers, losses, strict=True)]
    return pytest.approx(found, rel=1e-6)


def test_it_is_scale_invariant_until_the_base_epoch_has_ended():
    weighting = make(base_epoch=1)
    for _ in range(2):
        assert weights(weighting, 4.0, 0.5).tolist() == pytest.approx(weights(ScaleInvariant(), 4.0, 0.5).tolist())
        weighting.epoch_ended()
    assert weights(weighting, 2.0, 0.1).tolist() != pytest.approx(weights(ScaleInvariant(), 2.0, 0.1).tolist())


def test_weights_follow_from_the_losses_relative_to_the_base():
    weighting = make()
    run_epoch(weighting, [4.0, 1.0])
    assert weights(weighting, 1.0, 0.8).tolist() == expected_weights([1.0, 0.8], [4.0, 1.0])
    assert weights(weighting, 3.0, 0.1).tolist() == expected_weights([3.0, 0.1], [4.0, 1.0])


def test_base_is_the_mean_over_the_base_epoch_only():
    weighting = make(base_epoch=1)
    run_epoch(weighting, [9.0, 9.0])
    run_epoch(weighting, [5.0, 1.0], [3.0, 2.0])
    run_epoch(weighting, [1.0, 1.0])
    assert weighting.base_losses.tolist() == [4.0, 1.5]
    assert weights(weighting, 1.0, 0.8).tolist() == expected_weights([1.0, 0.8], [4.0, 1.5])


def test_weights_of_the_logarithms_sum_to_the_number_of_tasks():
    weighting = make(4)
    run_epoch(weighting, [4.0, 1.0, 2.0, 3.0])
    losses = [1.0, 0.9, 0.2, 2.0]
    assert (weights(weighting, *losses) * torch.tensor(losses)).sum().item() == pytest.approx(4)


def test_objective_is_the_weighted_sum_of_the_logarithms():
    weighting = make()
    run_epoch(weighting, [2.0, 2.0])
    losses = torch.tensor([1.0, 3.0], dtype=torch.float64)
    shares = torch.softmax(losses / 2, dim=0)
    assert weighting.objective(losses).item() == pytest.approx((2 * shares * losses.log()).sum().item(), rel=1e-6)


def test_scales_of_losses_do_not_matter(take_step):
    one, other = make(), make()
    factors = torch.tensor([1e3, 1e-2], dtype=torch.float64)
    jacobian = torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float64)
    for losses in ([4.0, 1.0], [1.0, 0.8]):
        losses = torch.tensor(losses, dtype=torch.float64)
        expected = take_step(one, jacobian, losses)
        found = take_step(other, factors.unsqueeze(1) * jacobian, factors * losses)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
        one.epoch_ended()
        other.epoch_ended()


def test_task_without_a_label_in_the_base_epoch_counts_as_one_at_its_base(take_step):
    weighting = make()
    take_step(weighting, torch.eye(1), torch.tensor([4.0]), active=[0])
    weighting.epoch_ended()
    weighting.active = slice(None)
    assert weights(weighting, 2.0, 5.0).tolist() == expected_weights([2.0, 5.0], [4.0, 5.0])


def test_weights_are_shared_among_the_tasks_of_the_batch(take_step):
    weighting = make(3)
    run_epoch(weighting, [4.0, 1.0, 2.0])
    found = take_step(weighting, torch.eye(2), torch.tensor([1.0, 0.8]), active=[0, 2])
    assert found.tolist() == expected_weights([1.0, 0.8], [4.0, 2.0])


def test_losses_of_zero_give_finite_weights():
    weighting = make()
    run_epoch(weighting, [0.0, 1.0])
    assert weights(weighting, 0.0, 1.0).isfinite().all()
    assert weights(weighting, 1.0, 0.0).isfinite().all()


def test_base_epoch_below_zero_is_refused():
    with pytest.raises(ValueError, match="base_epoch must be >= 0, found -1"):
        IGB(base_epoch=-1)
