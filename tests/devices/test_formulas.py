"""Formulas that are other ones on a GPU than on the CPU, so that nothing is waited for."""

import pytest
import torch
from pretended import DEVICE, Accelerator
from torch import nn

from mtlrun.gradients import GradientStep, NonFiniteGradientError, Sharing
from mtlrun.weightings import ExcessMTL, GradDrop
from mtlrun.weightings.inner_products import inner_products, lengths
from mtlrun.weightings.rotograd import turn

DOUBLE = {"dtype": torch.float64}


@pytest.fixture
def accelerator():
    with Accelerator() as entered:
        yield entered


def sent(tensor):
    return tensor.to(DEVICE, non_blocking=True)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e25])
def test_lengths_and_products_of_gradients_of_any_size(scale, accelerator):
    exact = torch.randn(3, 50, **DOUBLE) * torch.tensor([[1.0], [1e-8], [1e8]], **DOUBLE) * scale
    gradients, others = exact.float(), exact.flip(0).float()
    for found, expected in (
        (lengths(sent(gradients)), gradients.double().norm(dim=1)),
        (inner_products(sent(gradients), sent(others)), gradients.double() @ others.double().T),
        (inner_products(sent(gradients), sent(gradients)), gradients.double() @ gradients.double().T),
    ):
        error = (found.held - expected).abs() / expected.abs().clamp_min(1e-300)
        assert error.max() < 1e-4
    assert not accelerator.waits


def test_products_with_a_gradient_of_zeros_are_zero(accelerator):
    gradients = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    device = sent(gradients)
    assert inner_products(device, device).held.tolist() == [[0, 0], [0, 25]]


@pytest.mark.parametrize("norm", [1e-5, 0.1, 10.0, 50.0])
def test_the_series_of_a_rotation_is_the_exponential(norm, accelerator):
    raw = torch.randn(2, 9, 9, **DOUBLE)
    skew = raw - raw.mT
    skew *= norm / torch.linalg.matrix_norm(skew, 2).max()
    start = torch.linalg.matrix_exp(torch.randn(2, 9, 9, **DOUBLE).triu(1))
    moved = start @ torch.linalg.matrix_exp(skew) - start
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 1e-5)):
        found = turn(sent(start.to(dtype)), sent(skew.to(dtype))).held - start.to(dtype)
        assert (found - moved).abs().max() < tolerance * start.abs().max() * max(1, moved.abs().max())


@pytest.mark.parametrize("weighting", [ExcessMTL(warmup_epochs=0), GradDrop()], ids=["excess_mtl", "graddrop"])
def test_a_gradient_that_is_not_finite_is_refused_or_leaves_no_finite_direction(weighting, accelerator):
    """GradDrop might drop the very entries that are not finite."""
    weighting.setup(2)
    weighting.to(DEVICE)
    weighting.generator = lambda device: torch.Generator()
    for guarded in (False, True):
        parameter = nn.Parameter(sent(torch.tensor([1.0, 2.0, 0.0])))
        losses = [parameter.sum(), parameter.sqrt().sum()]  # the slope of the root at 0 is infinite
        step = GradientStep(weighting, Sharing([parameter], [[], []]), guarded=guarded)
        step.add(losses)
        if guarded:
            accelerator.waits.clear()
            step.finish()
            assert parameter.grad.held.isnan().all()
            assert not accelerator.waits
        else:
            with pytest.raises(NonFiniteGradientError):
                step.finish()
