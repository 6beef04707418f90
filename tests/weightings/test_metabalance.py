"""MetaBalance."""

import pytest
import torch
from torch import nn

from mtlrun.gradients import backward
from mtlrun.weightings import MetaBalance, combine

LOSSES = torch.ones(3, dtype=torch.float64)
SHAPES = [(2, 3), (4,), (1,)]  # of the parameter tensors


def random_tensors(seed=0):
    """Return the gradients of three tasks, a list of tensors each, of very different lengths."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.tensor([[1.0, 1e-3, 10.0], [1e4, 2.0, 1e-2], [0.1, 5.0, 3.0]], dtype=torch.float64)
    return [
        [scale * torch.randn(*shape, dtype=torch.float64, generator=generator) for scale, shape in zip(row, SHAPES)]  # noqa: B905
        for row in scales
    ]


def make(primary=0, num_tasks=3, **options):
    weighting = MetaBalance(primary=primary, **options)
    weighting.setup(num_tasks)
    return weighting


def step(weighting, gradients, active=None):
    """Return the gradients of the parameters after a step of losses that have the given ones."""
    weighting.active = slice(None) if active is None else torch.tensor(active)
    parameters = [nn.Parameter(torch.zeros(*shape, dtype=torch.float64)) for shape in SHAPES]
    losses = [
        1.0 + sum((parameter * part).sum() for parameter, part in zip(parameters, gradient, strict=True))
        for gradient in gradients
    ]
    backward(weighting, losses, parameters, [[] for _ in losses])
    return [parameter.grad for parameter in parameters]


@pytest.mark.parametrize(("primary", "relax_factor", "beta"), [(0, 0.7, 0.9), (2, 0.3, 0.0), (1, 1.0, 0.99)])
def test_direction_equals_the_algorithm_written_out(primary, relax_factor, beta):
    weighting = make(primary, relax_factor=relax_factor, beta=beta)
    means = [[0.0] * len(SHAPES) for _ in range(3)]
    for number in range(5):
        gradients = random_tensors(number)
        expected = []
        for part, shape in enumerate(SHAPES):
            for task in range(3):
                length = gradients[task][part].square().sum().sqrt().item()
                means[task][part] = beta * means[task][part] + (1 - beta) * length
            total = torch.zeros(*shape, dtype=torch.float64)
            for task in range(3):
                ratio = means[primary][part] / means[task][part]
                drawn = ratio * relax_factor + (1 - relax_factor) if task != primary else 1.0
                total += drawn * gradients[task][part]
            expected.append(total)
        torch.testing.assert_close(step(weighting, gradients), expected)


def test_in_the_first_step_a_relaxation_of_one_makes_auxiliary_gradients_as_long_as_the_primary_one():
    jacobian = torch.diag(torch.tensor([3.0, 1e-4, 1e6], dtype=torch.float64))
    assert combine(make(relax_factor=1.0), jacobian).tolist() == pytest.approx([3, 3, 3])
    assert combine(make(1, relax_factor=1.0), jacobian).tolist() == pytest.approx([1e-4] * 3)
    assert combine(make(relax_factor=0.0), jacobian).tolist() == pytest.approx([3, 1e-4, 1e6])


def test_equal_tasks_give_the_plain_sum():
    row = torch.cat([part.flatten() for part in random_tensors()[0]])
    for relax_factor in (0.0, 0.7, 1.0):
        torch.testing.assert_close(combine(make(relax_factor=relax_factor), row.repeat(3, 1)), 3 * row)


def test_scales_of_auxiliary_losses_matter_only_as_far_as_they_are_relaxed():
    scales = [1.0, 1e5, 1e-3]
    whole, other = make(relax_factor=1.0), make(relax_factor=1.0)
    for number in range(4):
        gradients = random_tensors(number)
        scaled = [[scale * part for part in gradient] for scale, gradient in zip(scales, gradients, strict=True)]
        torch.testing.assert_close(step(whole, gradients), step(other, scaled))


def test_the_primary_task_alone_has_its_plain_gradient():
    weighting = make(1)
    for number in range(3):
        gradients = random_tensors(number)
        torch.testing.assert_close(step(weighting, [gradients[1]], active=[1]), gradients[1])


def test_without_a_loss_of_the_primary_task_its_length_is_that_of_the_steps_before():
    weighting = make(0, relax_factor=1.0, beta=0.5)
    before, now = random_tensors(1), random_tensors(2)
    first = step(weighting, now[1:], active=[1, 2])  # there is no such length yet
    torch.testing.assert_close(first, [one + other for one, other in zip(*now[1:], strict=True)])
    weighting = make(0, relax_factor=1.0, beta=0.5)
    step(weighting, before)
    expected = []
    for part in range(len(SHAPES)):
        means = [(0.5 * before[task][part].norm() + now[task][part].norm()) / 1.5 for task in range(3)]
        primary = before[0][part].norm()
        expected.append(sum(primary / means[task] * now[task][part] for task in (1, 2)))
    torch.testing.assert_close(step(weighting, now[1:], active=[1, 2]), expected)


def test_a_tensor_that_the_primary_loss_does_not_reach_gets_the_relaxed_part_of_the_others():
    gradients = random_tensors()
    gradients[0][1].zero_()
    gradients[1][2].zero_()
    found = step(make(), gradients)
    torch.testing.assert_close(found[1], 0.3 * (gradients[1][1] + gradients[2][1]))
    ratio = gradients[0][2].norm() / gradients[2][2].norm()
    torch.testing.assert_close(found[2], gradients[0][2] + (0.7 * ratio + 0.3) * gradients[2][2])


@pytest.mark.parametrize(("argument", "wrong"), [("relax_factor", 1.1), ("beta", -0.1)])
def test_arguments_out_of_bounds_are_refused(argument, wrong):
    with pytest.raises(ValueError, match=rf"{argument} must be in \[0, 1\], found {wrong}"):
        MetaBalance(**{argument: wrong})
