"""Problems without data: the two functions of the plane, and the concave front."""

from math import log, tanh

import pytest
import torch
from helpers import read_record, run_folders

from mtlrun.datasets import SPLITS, NoData
from mtlrun.gradients import backward
from mtlrun.models.backbones.point import Point
from mtlrun.tasks import Objective
from mtlrun.tasks.objective import concave_front, toy2d
from mtlrun.weightings import MGDA, Equal, NashMTL

OBJECTIVES = ("first", "second")


def minimize(weighting, function, start, lr, steps):
    """Return the point at which Adam ends, and the values of both functions there."""
    backbone = Point((len(start),), start)
    (point,) = backbone.parameters()
    optimizer = torch.optim.Adam([point], lr)
    weighting.setup(2)
    inputs = torch.zeros(1, len(start))
    for _ in range(steps):
        optimizer.zero_grad()
        losses = [function(backbone(inputs), objective).mean() for objective in OBJECTIVES]
        backward(weighting, losses, [point], [[], []])
        optimizer.step()
    with torch.no_grad():
        return point.detach(), torch.cat([function(point[None], objective) for objective in OBJECTIVES])


def test_the_data_are_constant():
    dataset = NoData(size=3, tasks=["a", "b", "c"], num_train=5)
    splits = [dataset.split(name) for name in SPLITS]
    assert [len(split) for split in splits] == [5, 1, 1]
    assert dataset.task_names == ("a", "b", "c")
    inputs, targets = splits[0].batch([0, 4])
    assert inputs.tolist() == [[0.0] * 3] * 2
    assert {task: target.tolist() for task, target in targets.items()} == {task: [0, 0] for task in "abc"}


@pytest.mark.parametrize("argument", ["size", "num_train"])
def test_arguments_out_of_bounds_are_refused(argument):
    with pytest.raises(ValueError, match=f"{argument} must be >= 1, found 0"):
        NoData(**{argument: 0})


def test_a_point_is_its_parameter_whatever_the_input():
    backbone = Point((2,), [9.0, -1.5])
    assert backbone(torch.randn(3, 2)).tolist() == [[9.0, -1.5]] * 3
    assert backbone.feature_shape == (2,)
    backbone(torch.zeros(3, 2)).sum().backward()
    assert [parameter.grad.tolist() for parameter in backbone.parameters()] == [[3.0, 3.0]]


def test_a_point_without_a_start_follows_the_seed():
    torch.manual_seed(1)
    first, second = (Point((1000,))(torch.zeros(1, 1000)) for _ in range(2))
    torch.manual_seed(1)
    assert torch.equal(Point((1000,))(torch.zeros(1, 1000)), first)
    assert not torch.equal(first, second)
    assert (-0.5 <= first.min() < -0.45, 0.45 < first.max() <= 0.5) == (True, True)


def test_a_start_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"start must list 2 numbers, found \[1.0\]"):
        Point((2,), [1.0])


def test_the_minimum_of_the_mean_in_the_setting_of_cagrad_is_the_known_one():
    x = torch.tensor([[0.0, -8.355]])
    assert [toy2d(x, objective).item() for objective in OBJECTIVES] == pytest.approx([-15.09, -15.09], abs=0.01)
    around = x + 0.05 * torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    mean = sum(toy2d(torch.cat([x, around]), objective) for objective in OBJECTIVES) / 2
    assert mean.argmin() == 0


STARTS = [[-8.5, 7.5], [-8.5, -5.0], [0.0, 0.0], [9.0, 9.0], [10.0, -8.0], [-7.5, -0.5], [9.0, -1.0]]


def plane_by_formula(x1, x2):
    """Return (L_1, L_2) and their gradients, by the formulas as printed and derived by hand."""
    c1, c2 = max(tanh(x2 / 2), 0), max(tanh(-x2 / 2), 0)
    slope = (1 - tanh(x2 / 2) ** 2) / 2
    d1, d2 = slope * (x2 >= 0), -slope * (x2 <= 0)
    values, gradients = [], []
    inner = [0.5 * (-x1 - 7) - tanh(-x2), 0.5 * (-x1 + 3) + tanh(-x2) + 2]
    for a, center, turn in zip(inner, (7, -7), (1, -1), strict=True):
        f, g = log(max(abs(a), 0.000005)) + 6, ((-x1 + center) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
        f_x1, f_x2 = -0.5 / a, turn * (1 - tanh(x2) ** 2) / a
        g_x1, g_x2 = (x1 - center) / 5, 0.1 * (x2 + 8) / 5
        values.append(c1 * f + c2 * g)
        gradients.append([c1 * f_x1 + c2 * g_x1, d1 * f + c1 * f_x2 + d2 * g + c2 * g_x2])
    return values, gradients


@pytest.mark.parametrize("start", STARTS)
def test_values_and_gradients_at_every_published_start_are_those_of_the_formula(start):
    point = torch.tensor([start], dtype=torch.float64, requires_grad=True)
    values, gradients = plane_by_formula(*start)
    for objective, value, gradient in zip(OBJECTIVES, values, gradients, strict=True):
        loss = toy2d(point, objective).sum()
        assert loss.item() == pytest.approx(value, rel=1e-12)
        assert torch.autograd.grad(loss, point)[0][0].tolist() == pytest.approx(gradient, rel=1e-12)
        assert gradient != [0, 0]
        # The derivative along x_1, and off the line x_2 = 0 that along x_2, is the limit of differences as well.
        for axis in (0, 1) if start[1] else (0,):
            step = 1e-6 * torch.eye(2, dtype=torch.float64)[axis]
            difference = (toy2d(point + step, objective) - toy2d(point - step, objective)).item() / 2e-6
            assert difference == pytest.approx(gradient[axis], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("weighting", [Equal, MGDA])
def test_points_move_down_from_every_published_start(weighting, start):
    before = sum(toy2d(torch.tensor([start]), objective).item() for objective in OBJECTIVES)
    point, losses = minimize(weighting(), toy2d, start, lr=0.02, steps=20)
    assert (point - torch.tensor(start)).norm() > 0.05
    assert losses.sum() < before


def in_the_setting_of_nash_mtl(points, objective):
    return toy2d(points, objective, scale=0.1 if objective == "first" else 1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weighting", "reaches"), [(Equal, False), (MGDA, True), (NashMTL, True)], ids=["equal", "mgda", "nash_mtl"]
)
def test_equal_weights_do_not_reach_the_pareto_set_of_the_plane_and_others_do(weighting, reaches):
    # Nash-MTL's setting and the hardest of its starts, at 20 times its learning rate.
    (x1, _), losses = minimize(weighting(), in_the_setting_of_nash_mtl, [9.0, 9.0], lr=0.02, steps=1000)
    # The set is the line x_2 = -8.36 with x_1 between -7 and 7.
    assert -7 <= x1 <= 7
    on_the_line = torch.tensor([[x1, -8.36]])
    front = torch.cat([in_the_setting_of_nash_mtl(on_the_line, objective) for objective in OBJECTIVES])
    if reaches:
        assert (losses < front + 0.1).all()
    else:
        assert (losses > front + 2).all()


@pytest.mark.parametrize("start", [[0.3, -0.2], [-0.3, -0.1]])
def test_equal_weights_end_at_an_end_of_the_concave_front_and_mgda_on_it(start):
    end = 0.5**0.5
    point, losses = minimize(Equal(), concave_front, start, lr=0.05, steps=200)
    assert point.abs().tolist() == pytest.approx([end, end], abs=0.05)
    assert losses.min() < 0.01
    point, losses = minimize(MGDA(), concave_front, start, lr=0.05, steps=200)
    assert point[0].item() == pytest.approx(point[1].item(), abs=1e-3)
    assert point.abs().max() < 0.5
    assert losses.min() > 0.1


@pytest.mark.parametrize(("name", "size"), [("toy2d", 2), ("concave_front", 20)])
def test_the_program_moves_the_point(name, size, mtlrun):
    code, _, err = mtlrun(f"dataset={name}", "trainer.epochs=2", "dataset.num_train=20", "weighting=mgda")
    assert code == 0, err
    record = read_record(run_folders()[0])
    assert record["parameters"] == {"shared": size}
    assert record["steps"] == 40
    assert record["val"].keys() == {"first", "second"}
    selected = torch.load(run_folders()[0] / "checkpoints" / "best.pt", weights_only=False)["model_states"]
    (x,) = selected[0].values()
    functions = {"toy2d": toy2d, "concave_front": concave_front}
    second = functions[name](x[None], "second").item()
    assert record["val"]["second"]["loss"] == pytest.approx(second, rel=1e-4)


def test_an_objective_asks_for_no_label():
    task = Objective(lambda points: points.square().sum(dim=1), size=3)
    assert task.output_size == 3
    assert task.labeled(torch.tensor([0.0, torch.nan])).tolist() == [True, True]
    assert task.loss(torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 1.0]]), torch.zeros(2)).item() == 3
    assert task.directions() == {"loss": "min"}
    meter = task.meter()
    meter.update(torch.ones(2, 3), torch.zeros(2))
    assert meter.compute() == {"loss": 3}
    with pytest.raises(ValueError, match="size must be >= 1, found 0"):
        Objective(torch.sum, size=0)
