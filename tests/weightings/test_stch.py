"""Smooth Tchebycheff scalarization."""

from math import exp, log

import pytest
import torch

from mtlrun.weightings import STCH, ScaleInvariant, combine

LOSSES = torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64)
REFERENCE = [0.6, 1.0, 2.0]


def make(*args, reference=REFERENCE, num_tasks=3, **options):
    """Return a weighting whose warm-up is over and has left `reference`."""
    weighting = STCH(*args, warmup_epochs=0, **options)
    weighting.setup(num_tasks)
    if reference is not None:
        weighting.objective(torch.tensor(reference, dtype=torch.float64))
        weighting.epoch_ended()
    return weighting


def weights(weighting, losses=LOSSES):
    return combine(weighting, torch.eye(len(losses), dtype=torch.float64), losses)


@pytest.mark.parametrize("mu", [0.1, 1.0, 3.0])
def test_objective_equals_the_formula_written_out(mu):
    powers = [exp((log(loss) - log(z)) / mu) for loss, z in zip([0.3, 1.0, 4.0], REFERENCE, strict=True)]
    assert make(mu).objective(LOSSES).item() == pytest.approx(3 * mu * log(sum(powers)), rel=1e-6)


def test_weights_at_mu_one_are_equal_relative_to_the_reference():
    # K sum of ratios: d/dL_k K log sum_j L_j / z_j = K / (z_k sum_j L_j / z_j)
    assert weights(make(1.0)).tolist() == pytest.approx([3 / (z * 3.5) for z in REFERENCE], rel=1e-6)


@pytest.mark.parametrize("mu", [0.1, 1.0, 3.0])
def test_weights_are_those_of_autograd_on_the_formula(mu):
    leaf, reference = LOSSES.clone().requires_grad_(), torch.tensor(REFERENCE, dtype=torch.float64)
    formula = 3 * mu * torch.log(torch.exp((leaf.log() - reference.log()) / mu).sum())
    torch.testing.assert_close(weights(make(mu)), torch.autograd.grad(formula, leaf)[0], rtol=1e-6, atol=0)


def test_only_the_worst_task_is_trained_at_a_small_mu():
    assert weights(make(1e-3)).tolist() == pytest.approx([0, 0, 3 / 4], abs=1e-6)


def test_a_large_mu_is_scale_invariant():
    torch.testing.assert_close(weights(make(1e6)), weights(ScaleInvariant()), rtol=1e-5, atol=0)


def test_preferences_scale_the_relative_losses():
    leaf, reference = LOSSES.clone().requires_grad_(), torch.tensor(REFERENCE, dtype=torch.float64)
    preferences = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    formula = 3 * 0.7 * torch.log(torch.exp(preferences * (leaf.log() - reference.log()) / 0.7).sum())
    found = weights(make(0.7, preferences=[0.5, 1.0, 2.0]))
    torch.testing.assert_close(found, torch.autograd.grad(formula, leaf)[0], rtol=1e-6, atol=0)


def test_preferences_of_one_are_no_preferences():
    assert torch.equal(weights(make(preferences=[1.0, 1.0, 1.0])), weights(make()))


def test_extreme_ratios_at_a_small_mu_stay_finite():
    losses = torch.tensor([1e-8, 1.0, 1e8], dtype=torch.float64)
    assert weights(make(0.01), losses).isfinite().all()


def test_warm_up_trains_the_sum_of_logarithms():
    weighting = STCH(warmup_epochs=2)
    weighting.setup(3)
    for _ in range(3):  # the two epochs, and the one that is measured
        torch.testing.assert_close(weights(weighting), weights(ScaleInvariant()))
        weighting.epoch_ended()
    assert not torch.allclose(weights(weighting, LOSSES**2), weights(ScaleInvariant(), LOSSES**2), rtol=0.1)


def test_reference_is_the_mean_of_the_epoch_after_the_warm_up():
    weighting = STCH(warmup_epochs=1)
    weighting.setup(2)
    for epoch in ([[9.0, 9.0]], [[1.0, 4.0], [3.0, 2.0]], [[7.0, 7.0]]):
        for losses in epoch:
            weighting.objective(torch.tensor(losses))
        weighting.epoch_ended()
    assert weighting.reference.tolist() == [2.0, 3.0]


def test_task_without_a_label_in_that_epoch_is_measured_by_its_first_loss_thereafter(take_step):
    weighting = make(num_tasks=2, reference=None)
    take_step(weighting, torch.eye(1), torch.tensor([2.0]), active=[0])
    weighting.epoch_ended()
    first = take_step(weighting, torch.eye(2, dtype=torch.float64), torch.tensor([2.0, 5.0], dtype=torch.float64))
    assert first.tolist() == pytest.approx([1 / 2, 1 / 5])
    take_step(weighting, torch.eye(2), torch.tensor([2.0, 9.0]))
    assert weighting.reference.tolist() == [2.0, 5.0]


def test_maximum_is_over_the_tasks_of_the_batch(take_step):
    weighting = make()
    found = take_step(weighting, torch.eye(2), torch.tensor([0.6, 2.0]), active=[0, 2])
    assert found.tolist() == pytest.approx([1 / 0.6, 1 / 2.0])  # both at their reference: 2 / (z_k * 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mu": 0.0}, "mu must be > 0, found 0.0"),
        ({"mu": float("nan")}, "mu must be > 0, found nan"),
        ({"warmup_epochs": -1}, "warmup_epochs must be >= 0, found -1"),
        ({"preferences": [1.0, 0.0]}, r"preferences\[1\] must be > 0, or size, found 0\.0"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        STCH(**options)


def test_another_number_of_preferences_than_tasks_is_refused():
    with pytest.raises(ValueError, match="preferences must hold one number for each of the 3 tasks, found 2"):
        STCH(preferences=[1.0, 2.0]).setup(3)
