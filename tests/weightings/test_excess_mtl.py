"""ExcessMTL, against its formulas written out."""

import pytest
import torch

from mtlrun.weightings import ExcessMTL, combine


def random_jacobian(seed=0):
    lengths = torch.tensor([[0.1], [1.0], [10.0]], dtype=torch.float64)
    return lengths * torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make(warmup_epochs=0, **options):
    weighting = ExcessMTL(warmup_epochs=warmup_epochs, **options)
    weighting.setup(3)
    return weighting


def excesses_of_the_paper(jacobians):
    """e of each step [steps, K], with the diagonal matrices written out."""
    squares, excesses = torch.zeros(3, 5, dtype=torch.float64), []
    for jacobian in jacobians:
        squares = squares + jacobian**2
        excesses.append(
            [row @ torch.diag(total.sqrt()).inverse() @ row for row, total in zip(jacobian, squares, strict=True)]
        )
    return torch.tensor(excesses, dtype=torch.float64)


@pytest.mark.parametrize("eta", [0.01, 1.0])
def test_weights_grow_with_the_excess_relative_to_the_first(eta):
    jacobians = [random_jacobian(step) for step in range(5)]
    excesses = excesses_of_the_paper(jacobians)
    weighting, weights = make(eta=eta), torch.full((3,), 1 / 3, dtype=torch.float64)
    for jacobian, excess in zip(jacobians, excesses, strict=True):
        weights = weights * torch.exp(eta * excess / excesses[0])
        weights = weights / weights.sum()
        torch.testing.assert_close(combine(weighting, jacobian), weights @ jacobian)
    assert weights.std() > 1e-4


def test_weights_stay_equal_during_the_warm_up_and_the_mean_excess_is_the_first():
    jacobians = [random_jacobian(step) for step in range(5)]
    excesses = excesses_of_the_paper(jacobians)
    weighting = make(warmup_epochs=2)
    for step in range(4):
        torch.testing.assert_close(combine(weighting, jacobians[step]), jacobians[step].mean(dim=0))
        if step % 2:
            weighting.epoch_ended()
    weights = torch.softmax(excesses[4] / excesses[:4].mean(dim=0), dim=0)
    torch.testing.assert_close(combine(weighting, jacobians[4]), weights @ jacobians[4])


def test_task_whose_gradient_stays_gains_on_one_whose_gradient_vanishes():
    weighting = make()
    for step in range(10):
        combine(weighting, torch.diag(torch.tensor([1.0, 0.5**step, 0.5**step], dtype=torch.float64)))
    weights = weighting.log_weights.softmax(dim=0)
    assert weights[0] > 0.9
    assert weights[1].item() == pytest.approx(weights[2].item())


def test_scales_of_the_gradients_do_not_matter():
    scales = torch.tensor([[1e-6], [1.0], [1e6]], dtype=torch.float64)
    one, other = make(), make()
    for step in range(4):
        combine(one, random_jacobian(step))
        combine(other, scales * random_jacobian(step))
    torch.testing.assert_close(other.log_weights, one.log_weights)


def test_sum_is_the_mean_times_the_number_of_tasks():
    mean, total = make(reduction="mean"), make(reduction="sum")
    for step in range(3):
        jacobian = random_jacobian(step)
        torch.testing.assert_close(combine(total, jacobian), 3 * combine(mean, jacobian))


def test_tasks_with_a_loss_share_out_their_part_of_the_weights(take_step):
    weighting = make()
    losses = torch.ones(3, dtype=torch.float64)
    for step in range(3):
        take_step(weighting, random_jacobian(step), losses)
    before = weighting.log_weights.exp()
    take_step(weighting, random_jacobian(3)[[0, 2]], losses[[0, 2]], active=[0, 2])
    after = weighting.log_weights.exp()
    assert after[1] == before[1]
    assert after[[0, 2]].sum().item() == pytest.approx(before[[0, 2]].sum().item())
    assert (after[0] - before[0]).abs() > 1e-3


def test_task_that_comes_after_the_warm_up_is_compared_with_its_own_first_excess(take_step):
    weighting = make()
    losses = torch.ones(3, dtype=torch.float64)
    take_step(weighting, random_jacobian()[[0, 2]], losses[[0, 2]], active=[0, 2])
    take_step(weighting, random_jacobian(1), losses)
    # With one gradient in the sum of squares, the excess is the sum of its sizes.
    assert weighting.initial_sum[1].item() == pytest.approx(random_jacobian(1)[1].abs().sum().item())
    assert weighting.initial_sum[0].item() == pytest.approx(random_jacobian()[0].abs().sum().item())


def test_task_without_a_gradient_at_first_gives_finite_weights():
    weighting = make()
    jacobian = random_jacobian()
    jacobian[1] = 0
    combine(weighting, jacobian)
    assert combine(weighting, random_jacobian(1)).isfinite().all()
    assert weighting.log_weights.isfinite().all()


def test_number_of_epochs_is_in_the_state():
    weighting = make(warmup_epochs=1)
    combine(weighting, random_jacobian())
    weighting.epoch_ended()
    fresh = make(warmup_epochs=1)
    fresh.load_state_dict(weighting.state_dict())
    assert torch.equal(combine(fresh, random_jacobian(1)), combine(weighting, random_jacobian(1)))
    assert fresh.log_weights.std() > 0


@pytest.mark.parametrize(("argument", "wrong"), [("eta", -1.0), ("warmup_epochs", -1), ("reduction", "max")])
def test_arguments_out_of_bounds_are_refused(argument, wrong):
    with pytest.raises(ValueError, match=f"{argument} must be .*, found"):
        ExcessMTL(**{argument: wrong})
