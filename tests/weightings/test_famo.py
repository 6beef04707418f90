"""FAMO against autograd and Adam written out."""

import pytest
import torch

from mtlrun.weightings import FAMO


def test_weights_and_their_updates_follow_the_paper():
    """A slow rendering with autograd for the Jacobian of softmax, and Adam with weight decay written out for xi."""
    weighting = FAMO(lr=0.1, weight_decay=0.01)
    weighting.setup(3)
    logits, first, second = (torch.zeros(3, dtype=torch.float64) for _ in range(3))
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 6):
        before, after = torch.rand(2, 3, generator=generator, dtype=torch.float64) + 0.3

        leaf = before.clone().requires_grad_()
        weighting.objective(leaf).backward()
        fractions = torch.softmax(logits, dim=0)
        torch.testing.assert_close(leaf.grad, fractions / before / (fractions / before).sum())

        weighting.observe_losses_after_step(after)
        weighting.learn()
        logits = logits.requires_grad_()
        (torch.softmax(logits, dim=0) * (before.log() - after.log())).sum().backward()
        gradient = logits.grad + 0.01 * logits.detach()
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        deviation = (second / (1 - 0.999**step)).sqrt()
        logits = logits.detach() - 0.1 * first / (1 - 0.9**step) / (deviation + 1e-8)
        torch.testing.assert_close(weighting.logits.detach(), logits)
    assert logits.abs().max() > 0.1


def test_weights_sum_to_one():
    weighting = FAMO()
    weighting.setup(3)
    leaf = torch.tensor([0.1, 1.0, 30.0], requires_grad=True)
    weighting.objective(leaf).backward()
    assert leaf.grad.sum().item() == pytest.approx(1.0)


def test_a_task_whose_loss_fell_less_gains_weight():
    weighting = FAMO()
    weighting.setup(2)
    weighting.objective(torch.tensor([1.0, 1.0]))
    weighting.observe_losses_after_step(torch.tensor([0.9, 0.5]))
    weighting.learn()
    assert weighting.logits[0] > weighting.logits[1]


def test_a_task_without_a_label_stays_out_of_the_update():
    weighting = FAMO(weight_decay=0.0)
    weighting.setup(3)
    weighting.active = torch.tensor([0, 2])
    weighting.objective(torch.tensor([1.0, 1.0]))
    weighting.observe_losses_after_step(torch.tensor([0.9, 0.5]))
    weighting.learn()
    assert weighting.logits[1] == 0
    assert weighting.logits[0] > 0 > weighting.logits[2]


@pytest.mark.parametrize(("argument", "value"), [("lr", 0), ("weight_decay", -1)])
def test_bounds_are_checked(argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be .* found {value}"):
        FAMO(**{argument: value})
