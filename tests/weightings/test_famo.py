"""FAMO against autograd and PyTorch's Adam."""

import pytest
import torch

from mtlrun.weightings import FAMO


def test_weights_and_their_updates_follow_the_paper():
    """A slow rendering with autograd for the Jacobian of softmax and torch.optim.Adam for xi."""
    weighting = FAMO(lr=0.1, weight_decay=0.01)
    weighting.setup(3)
    logits = torch.zeros(3, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=0.1, weight_decay=0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        before, after = torch.rand(3, generator=generator) + 0.5, torch.rand(3, generator=generator) + 0.2

        leaf = before.clone().requires_grad_()
        weighting.objective(leaf).backward()
        shares = torch.softmax(logits, dim=0)
        torch.testing.assert_close(leaf.grad, (shares / before / (shares / before).sum()).detach())

        weighting.observe_losses_after_step(after)
        fall = before.log() - after.log()
        adam.zero_grad()
        (shares * fall).sum().backward()
        adam.step()
        torch.testing.assert_close(weighting.logits, logits.detach(), atol=1e-5, rtol=1e-4)
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
    assert weighting.logits[0] > weighting.logits[1]


def test_a_task_without_a_label_stays_out_of_the_update():
    weighting = FAMO(weight_decay=0.0)
    weighting.setup(3)
    weighting.active = torch.tensor([0, 2])
    weighting.objective(torch.tensor([1.0, 1.0]))
    weighting.observe_losses_after_step(torch.tensor([0.9, 0.5]))
    assert weighting.logits[1] == 0
    assert weighting.logits[0] > 0 > weighting.logits[2]


@pytest.mark.parametrize(("argument", "value"), [("lr", 0), ("weight_decay", -1)])
def test_bounds_are_checked(argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be .* found {value}"):
        FAMO(**{argument: value})
