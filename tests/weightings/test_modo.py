"""MoDo: one projected step of the weights from two independent Jacobians, the direction from a third."""

import pytest
import torch
from helpers import read_record, run_folders

from mtlrun.weightings import MoDo, combine


def jacobians(num_tasks=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(num_tasks, 6, dtype=torch.float64, generator=generator) for _ in range(3)]


def make(num_tasks=3, **options):
    weighting = MoDo(**options)
    weighting.setup(num_tasks)
    return weighting


def nearest_on_simplex(point):
    """Return the projection by bisection on the threshold."""
    low, high = point.min() - 1, point.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (point - middle).clamp_min(0).sum() > 1 else (low, middle)
    return (point - low).clamp_min(0)


def test_weights_and_direction_follow_the_algorithm():
    weighting = make(gamma=0.1, rho=0.2)
    expected = torch.full((3,), 1 / 3, dtype=torch.float64)
    for seed in range(5):
        first, second, third = jacobians(seed=seed)
        direction = weighting.combine_parts([first, second, third], torch.ones(3, 3))
        expected = nearest_on_simplex(expected - 0.1 * (first @ second.T @ expected + 0.2 * expected))
        torch.testing.assert_close(weighting.simplex_weights.values, expected)
        torch.testing.assert_close(direction, expected @ third)


def test_without_a_step_size_the_direction_is_the_mean():
    jacobian = jacobians()[0]
    torch.testing.assert_close(combine(make(gamma=0.0), jacobian), jacobian.mean(dim=0))


def test_many_steps_on_the_same_gradients_lead_to_the_shortest_combination():
    jacobian = torch.tensor([[-4.0, 1, 1], [6, 1, 1]], dtype=torch.float64)
    weighting = make(2, gamma=0.01, rho=0.0)
    for _ in range(2000):
        direction = combine(weighting, jacobian)
    assert direction.tolist() == pytest.approx([0, 1, 1], abs=1e-6)


@pytest.mark.parametrize(("argument", "value"), [("gamma", -1), ("rho", -0.5)])
def test_bounds_are_checked(argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be >= 0, found {value}"):
        MoDo(**{argument: value})


def test_labels_that_are_left_out_are_counted_and_said(mtlrun, tmp_path):
    """Half of the labels of b are missing, and a batch has two samples in each of three parts."""
    rows = [f"{number / 7},{number % 5},{'' if number % 2 else number % 3}" for number in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["x,a,b", *rows]) + "\n")
    code, out, err = mtlrun(
        "dataset=csv", "dataset.path=t.csv", "+task@tasks.a=regression", "+task@tasks.b=regression", "weighting=modo",
        "trainer.batch_size=6", "trainer.epochs=2", "backbone.hidden=[4]",
    )  # fmt: skip
    assert code == 0, err
    record = read_record(run_folders()[0])
    assert list(record["left_out"]) == ["b"]
    assert 0 < record["left_out"]["b"] < record["steps"]
    assert " ".join(out.split()).count("the labels of b are left out, since the weighting needs one in each of 3") == 1
