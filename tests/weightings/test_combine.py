"""`combine`: any weighting on a given Jacobian, with everything that training applies before the method."""

import re
from pathlib import Path

import pytest
import torch

import mtlrun
from mtlrun.weightings import DWA, MGDA, Equal, GradDrop, PCGrad, Static, Uncertainty, combine
from mtlrun.weightings.inner_products import NonFiniteGradientError

JACOBIAN = torch.tensor([[2.0, 1.0, -1.0], [-1.0, 3.0, 0.5]], dtype=torch.float64)
LOSSES = torch.tensor([0.5, 4.0], dtype=torch.float64)


def test_combine_applies_the_loss_transform():
    assert combine(Equal(loss_transform="log"), torch.eye(2), torch.tensor([0.5, 4.0])).tolist() == pytest.approx(
        [2, 0.25]
    )


@pytest.mark.parametrize("method", [MGDA, PCGrad, GradDrop])
@pytest.mark.parametrize("transform", ["identity", "log"])
def test_combine_scales_the_task_gradients_by_transform_and_inner_weighting(method, transform):
    """A method sees the gradients of the transformed losses: those of log L are the gradients divided by L."""
    scales = torch.tensor([3.0, 0.1], dtype=torch.float64)
    slopes = scales / LOSSES if transform == "log" else scales
    seen = scales * (LOSSES.log() if transform == "log" else LOSSES)
    expected = combine(method(), slopes.unsqueeze(1) * JACOBIAN, seen)
    direction = combine(method(losses=Static([3.0, 0.1]), loss_transform=transform), JACOBIAN, LOSSES)
    torch.testing.assert_close(direction, expected, rtol=1e-6, atol=1e-9)


def test_combine_lets_the_inner_weighting_learn():
    weighting = MGDA(losses=Uncertainty())
    combine(weighting, JACOBIAN, LOSSES)
    assert weighting.losses.log_variance.grad.abs().min() > 0


def test_scalarize_is_the_objective_of_the_transformed_losses():
    for weighting in (Equal(loss_transform="log"), Static([0.5, 2.0], loss_transform="log"), DWA()):
        weighting.setup(2)
        assert weighting.scalarize(LOSSES) == weighting.objective(weighting.transform(LOSSES))


def test_scalarize_is_the_only_caller_of_objective():
    """Who calls `objective` itself forgets the transform."""
    source = Path(mtlrun.__file__).parent
    calls = [
        f"{path.relative_to(source)}: {line.strip()}"
        for path in source.rglob("*.py")
        for line in path.read_text().splitlines()
        if re.search(r"\.objective\(", line)
    ]
    assert [call for call in calls if not call.startswith("weightings/base.py: return self.objective(")] == []


@pytest.mark.parametrize("weighting", [MGDA(), GradDrop()])
def test_a_gradient_that_is_not_finite_is_refused_as_in_training(weighting):
    with pytest.raises(NonFiniteGradientError, match="the gradient of loss 1 is not finite"):
        combine(weighting, torch.tensor([[1.0, 2.0], [3.0, float("nan")]]))
