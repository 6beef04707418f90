"""GradDrop."""

import pytest
import torch

from mtlrun.weightings import GradDrop, combine


def random_jacobian():
    return torch.randn(3, 200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def make(num_tasks, leak=0.0, seed=0):
    weighting = GradDrop(leak)
    weighting.setup(num_tasks, seed)
    return weighting


def parts(jacobian):
    return jacobian.clamp_min(0).sum(dim=0), jacobian.clamp_max(0).sum(dim=0)


def test_each_entry_is_the_sum_of_its_positive_or_of_its_negative_parts():
    positive, negative = parts(random_jacobian())
    direction = combine(make(3), random_jacobian())
    keeps_positive, keeps_negative = torch.isclose(direction, positive), torch.isclose(direction, negative)
    mixed = (positive != 0) & (negative != 0)
    assert (keeps_positive | keeps_negative).all()
    assert (keeps_positive & mixed).any()
    assert (keeps_negative & mixed).any()


def test_entries_on_which_all_tasks_agree_are_kept_whole():
    agreeing = random_jacobian().abs() * torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(100)
    torch.testing.assert_close(combine(make(3), agreeing), agreeing.sum(dim=0))


@pytest.mark.parametrize(("column", "share"), [([3.0, -1.0], 0.75), ([1.0, -9.0], 0.1), ([2.0, -1.0, -1.0], 0.5)])
def test_positive_parts_are_kept_in_proportion_to_their_size(column, share):
    jacobian = torch.tensor(column).unsqueeze(1).repeat(1, 40_000)
    direction = combine(make(len(column)), jacobian)
    assert set(direction.tolist()) == {column[0], sum(column[1:])}
    assert (direction > 0).float().mean().item() == pytest.approx(share, abs=0.01)


def test_entries_are_drawn_independently():
    jacobian = torch.tensor([[1.0], [-1.0]]).repeat(1, 40_000)
    kept = combine(make(2), jacobian)
    assert (kept[:-1] * kept[1:]).mean().item() == pytest.approx(0, abs=0.02)


def test_draws_differ_from_step_to_step_and_follow_the_seed():
    weighting = make(3)
    first, second = combine(weighting, random_jacobian()), combine(weighting, random_jacobian())
    assert not torch.equal(first, second)
    assert torch.equal(combine(make(3), random_jacobian()), first)
    assert not torch.equal(combine(make(3, seed=1), random_jacobian()), first)


def test_leak_of_one_is_the_plain_sum():
    torch.testing.assert_close(combine(make(3, leak=1.0), random_jacobian()), random_jacobian().sum(dim=0))


def test_leak_keeps_a_fraction_of_the_dropped_parts():
    positive, negative = parts(random_jacobian())
    kept = combine(make(3), random_jacobian())
    dropped = positive + negative - kept
    torch.testing.assert_close(combine(make(3, leak=0.3), random_jacobian()), kept + 0.3 * dropped)


@pytest.mark.parametrize("wrong", [-0.1, 1.5])
def test_leak_outside_0_and_1_is_refused(wrong):
    with pytest.raises(ValueError, match=rf"leak must be in \[0, 1\], found {wrong}"):
        GradDrop(wrong)
