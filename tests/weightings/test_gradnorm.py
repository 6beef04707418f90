"""GradNorm."""

import pytest
import torch

from mtlrun.weightings import GradNorm

NORMS = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)
FIRST = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)


def make(**options):
    weighting = GradNorm(**options)
    weighting.setup(3)
    return weighting


def weigh(weighting, norms=NORMS, losses=FIRST):
    with torch.no_grad():
        return weighting.task_weights(torch.diag(norms**2), losses)


def gradient_of_the_paper(weights, norms, losses, initial, alpha):
    """The gradient of equation 2 by the weights, the target held constant."""
    weights = weights.clone().requires_grad_()
    weighted_norms = weights * norms
    progress = losses / initial
    target = (weighted_norms.mean() * (progress / progress.mean()) ** alpha).detach()
    (weighted_norms - target).abs().sum().backward()
    return weights.grad


def test_weights_are_one_in_the_first_step():
    assert weigh(make()).tolist() == [1, 1, 1]


@pytest.mark.parametrize("alpha", [0.0, 0.12, 1.5])
def test_gradient_of_the_weights_is_that_of_the_papers_loss(alpha):
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        weights, norms, first, later = torch.rand(4, 3, dtype=torch.float64, generator=generator) + 0.1
        weighting = make(alpha=alpha)
        weigh(weighting, norms, first)
        weighting.learned_weights.data = weights * 3 / weights.sum()
        found = weigh(weighting, norms, later)
        expected = gradient_of_the_paper(found, norms, later, first, alpha)
        torch.testing.assert_close(weighting.learned_weights.grad, expected)


def test_gradient_pulls_norms_towards_their_mean_when_all_tasks_train_alike():
    weighting = make()
    weigh(weighting)
    # The mean norm is 11/6: the first task is below it, the others above.
    assert weighting.learned_weights.grad.tolist() == [-0.5, 2.0, 3.0]


def test_task_that_trains_slowly_gains_weight():
    weighting = make()
    equal_norms = torch.ones(3, dtype=torch.float64)
    weigh(weighting, equal_norms)
    weigh(weighting, equal_norms, torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64))
    # Progress is 1, 1/2 and 1/2; relative to the mean 3/2, 3/4 and 3/4.
    assert weighting.learned_weights.grad.tolist() == [-1, 1, 1]


def test_losses_of_the_first_step_are_remembered():
    weighting = make()
    weigh(weighting)
    weigh(weighting, losses=FIRST / 2)
    assert torch.equal(weighting.initial_losses, FIRST)


def moved(weighting, change):
    """Return the weights after a step that adds `change` to them, before they are scaled."""
    weighting.learned_weights.grad = -torch.tensor(change, dtype=torch.float64)
    weighting.learn()
    return weighting.learned_weights.detach()


def test_weights_sum_to_the_number_of_tasks_after_each_step():
    weights = moved(make(optimizer="sgd", lr=1.0), [2.0, 0.0, 3.0])
    assert weights.tolist() == pytest.approx([9 / 8, 3 / 8, 12 / 8])


def test_weight_that_falls_below_zero_is_held_at_a_thousandth_of_the_mean():
    weights = moved(make(optimizer="sgd", lr=1.0), [-3.0, 0.0, 2.0])
    torch.testing.assert_close(weights, torch.tensor([0.002, 1.0, 3.0], dtype=torch.float64) * 3 / 4.002)


def test_weights_of_the_tasks_with_a_loss_keep_their_sum():
    weighting = make(optimizer="sgd", lr=1.0)
    moved(weighting, [2.0, 0.0, 3.0])
    weighting.active = torch.tensor([0, 2])
    weights = moved(weighting, [9 / 8, 0.0, 0.0])  # to 18 / 8 and 12 / 8, and back to their sum
    assert weights.tolist() == pytest.approx([18 / 30 * 21 / 8, 3 / 8, 12 / 30 * 21 / 8])
    assert weights[1] == 3 / 8


def test_a_step_moves_each_weight_by_about_the_learning_rate():
    weighting = make()
    weigh(weighting, losses=FIRST)
    weighting.learn()
    steps = (weighting.learned_weights.detach() - 1).abs()
    assert steps.min() > 0.01
    assert steps.max() < 0.04


def test_weights_level_out_the_norms_when_all_tasks_train_alike(take_step):
    weighting = make(lr=1e-3)
    jacobian = torch.diag(torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64))
    for _ in range(3000):
        direction = take_step(weighting, jacobian, FIRST)
    torch.testing.assert_close(direction, direction.mean().expand(3), rtol=0.02, atol=0)


def test_task_that_comes_later_starts_from_its_own_first_loss(take_step):
    weighting = make()
    take_step(weighting, torch.eye(2), torch.tensor([1.0, 4.0]), active=[0, 2])
    assert weighting.initial_losses[[0, 2]].tolist() == [1, 4]
    assert weighting.initial_losses[1].isnan()
    assert weighting.learned_weights[1] == 1
    take_step(weighting, torch.eye(3), torch.tensor([0.5, 7.0, 1.0]))
    assert weighting.initial_losses.tolist() == [1, 7, 4]


def test_weights_of_tasks_with_a_loss_are_given_in_their_order():
    weighting = make()
    weighting.learned_weights.data = torch.tensor([0.5, 1.5, 1.0], dtype=torch.float64)
    weighting.active = torch.tensor([1, 2])
    assert weigh(weighting, NORMS[1:], FIRST[1:]).tolist() == pytest.approx([1.5, 1.0])


def test_task_whose_first_loss_is_zero_does_not_stop_the_others_from_being_balanced():
    weighting = make()
    weigh(weighting, losses=torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64))
    assert weighting.learned_weights.grad.isfinite().all()
    assert (weighting.learned_weights.grad[1:] != 0).all()


def test_defaults_are_the_papers():
    weighting = GradNorm()
    assert (weighting.alpha, weighting.lr, weighting.head_loss) == (1.5, 0.025, "weighted")


def test_negative_alpha_is_refused():
    with pytest.raises(ValueError, match=r"alpha must be >= 0, found -0\.1"):
        GradNorm(alpha=-0.1)
