"""What every method does with losses below one and below zero, as they are and under `loss_transform=log`.

A combination is refused by the method's declaration, or the training works: finite, no step that climbs while it is far
from the optimum, and losses that end near their lowest values. Methods that compare losses see them as they are.
"""

import math

import pytest
import torch
from helpers import QUICK, read_lines, run_folders
from test_properties import METHODS, configured, random_jacobian, set_up

from mtlrun.weightings import (
    DWA,
    FAMO,
    IMTLL,
    MGDA,
    RLW,
    Equal,
    GradNorm,
    MoCo,
    PartsWeighting,
    ScaleInvariant,
    Static,
    Uncertainty,
    combine,
)

# The value that all losses of the problem fall to. They start about 2 above it.
FLOORS = {"above one": 1.5, "crossing one": 0.01, "crossing zero": -1.0}
BUILT = {
    **{method: (method, {}) for method in METHODS},
    "moco, normalized": ("moco", {"normalize": True}),
    "mgda by loss": ("mgda", {"normalization": "loss"}),
    "mgda by loss and length": ("mgda", {"normalization": "loss+"}),
    "lbtw, normalized": ("lbtw", {"normalize": True}),
    "famo from below": ("famo", {"min_losses": -2.0}),
    **{
        f"mgda over {inner.__name__}": ("mgda", {"losses": {"_target_": f"mtlrun.weightings.{inner.__name__}"}})
        for inner in (Uncertainty, IMTLL, ScaleInvariant, RLW, FAMO, DWA)
    },
}


def train(weighting, take_step, floor, steps=70):
    """Descend from a distance of 2 to the common optimum of three quadratic losses; return distances and cosines."""
    matrices = torch.eye(6, dtype=torch.float64) + 0.05 * torch.stack(
        [random_jacobian(seed).repeat(2, 1) for seed in range(3)]
    )
    point = torch.full((6,), 2 / 6**0.5, dtype=torch.float64)
    distances, cosines = [], []
    for step in range(steps):
        residuals = matrices @ point
        losses = floor + residuals.square().sum(dim=1) / 2
        jacobian = (matrices.mT @ residuals.unsqueeze(2)).squeeze(2)
        direction = take_step(weighting, jacobian, losses)
        move = 0.05 * direction / direction.norm().clamp_min(1e-12)  # NaN stays NaN
        for method in weighting.methods():
            if isinstance(method, FAMO):
                after = (matrices @ (point - move)).square().sum(dim=1) / 2 + floor
                method.observe_losses_after_step(after)
        point = point - move
        distances.append(point.norm().item())
        cosines.append(torch.cosine_similarity(direction, jacobian, dim=1).min().item())
        if step % 10 == 9:
            weighting.epoch_ended()
    return distances, cosines


def make(name, transform):
    method, changes = BUILT[name]
    return configured(method, loss_transform=transform, **changes)


def refused(weighting, floor):
    """Return True if the method's declaration keeps it from losses that fall to `floor`."""
    try:
        set_up(weighting)
    except ValueError as error:
        assert "loss_transform must be 'identity'" in str(error)  # noqa: PT017
        return True
    return floor < max(weighting.lowest_losses(3))


@pytest.mark.parametrize("transform", ["identity", "log"])
def test_a_combination_is_refused_or_trains(transform, take_step):
    failed, trained = [], 0
    for name in BUILT:
        for range_, floor in FLOORS.items():
            weighting = make(name, transform)
            if refused(weighting, floor):
                continue
            trained += 1
            distances, cosines = train(weighting, take_step, floor)
            # The three gradients have positive products with each other far from the optimum, so no method need climb.
            if not (distances[-1] < 0.4 and min(cosines[:30]) > 0):
                failed.append((name, range_, distances[-1], min(cosines[:30])))
    assert failed == []
    assert trained > len(BUILT)


def test_which_methods_are_refused_for_which_losses():
    by_scalar = {
        "uncertainty", "uncertainty_so", "imtl_l", "dwa", "lbtw", "lbtw, normalized", "gls", "scale_invariant", "stch",
        "cov_weighting", "igb", "famo", "go4align",
    }  # fmt: skip
    by_comparison = {"gradnorm", "mgda_ub", "moco, normalized", "mgda by loss", "mgda by loss and length"}
    inside = {"imtl"} | {f"mgda over {inner}" for inner in ("Uncertainty", "IMTLL", "ScaleInvariant", "FAMO", "DWA")}
    assert {name for name in BUILT if refused(make(name, "identity"), -1.0)} == (by_scalar | by_comparison | inside)
    assert {name for name in BUILT if refused(make(name, "log"), 0.01)} == by_scalar | {"famo from below"}
    assert {name for name in BUILT if not refused(make(name, "log"), -1.0)} == set()
    assert [name for name in BUILT if refused(make(name, "identity"), 0.0)] == []


def test_gradnorm_compares_the_losses_before_the_logarithm():
    def rates(transform):
        weighting = GradNorm(alpha=1.0, loss_transform=transform)
        weighting.setup(2)
        combine(weighting, torch.eye(2, dtype=torch.float64), torch.tensor([2.0, 4.0]))
        # The first loss has fallen by less, so that its weight is to grow. Its logarithm would have fallen by more.
        losses = torch.tensor([0.9, 1.5], dtype=torch.float64)
        lengths = losses if transform == "log" else torch.ones(2)  # log L then has a gradient of length one
        combine(weighting, lengths.diag().double(), losses)
        return weighting.learned_weights.grad.sign().tolist()

    assert rates("log") == rates("identity") == [-1, 1]


def test_mgda_divides_by_the_losses_before_the_logarithm():
    jacobian, losses = random_jacobian(), torch.tensor([0.2, 0.9, 3.0], dtype=torch.float64)
    weights = combine(MGDA(normalization="loss", loss_transform="log"), torch.eye(3).double() * losses, losses)
    # Gradients of the logarithms of length one, divided by L: min sum_k w_k² / L_k² has w proportional to L².
    torch.testing.assert_close(weights, losses**2 / (losses**2).sum(), rtol=1e-3, atol=1e-4)
    assert combine(MGDA(normalization="loss", loss_transform="log"), jacobian, losses).isfinite().all()


def test_moco_normalized_gives_gradients_of_logarithms_the_length_of_the_losses():
    losses = torch.tensor([0.2, 0.9, 3.0], dtype=torch.float64)
    first, second = MoCo(normalize=True), MoCo(normalize=True, loss_transform="log")
    for seed in range(5):
        jacobian = random_jacobian(seed)
        torch.testing.assert_close(combine(second, jacobian, losses), combine(first, jacobian, losses))


class Seen(PartsWeighting):
    def combine_parts(self, jacobians, losses):
        self.seen = losses
        return jacobians[0].sum(dim=0)


def test_losses_are_seen_times_the_inner_scale_and_gradients_times_the_slope():
    weighting, losses = Seen(losses=Static([3.0, 0.1]), loss_transform="log"), torch.tensor([0.5, 4.0])
    direction = combine(weighting, torch.eye(2), losses)
    torch.testing.assert_close(weighting.seen, torch.tensor([1.5, 0.4]).expand(2, 2))
    torch.testing.assert_close(direction, torch.tensor([3.0 / 0.5, 0.1 / 4.0]))


def test_the_lowest_losses_are_those_of_method_transform_and_inner_weighting():
    none, zero = [-math.inf] * 2, [0.0, 0.0]
    assert Equal().lowest_losses(2) == none
    assert Equal(loss_transform="log").lowest_losses(2) == zero
    assert FAMO(min_losses=[0.0, -3.0]).lowest_losses(2) == [0.0, -3.0]
    assert FAMO(min_losses=-3.0).lowest_losses(2) == [-3.0, -3.0]
    assert FAMO(min_losses=-3.0, loss_transform="log").lowest_losses(2) == pytest.approx([math.exp(-3.0)] * 2)
    assert MGDA(losses=Equal(loss_transform="log")).lowest_losses(2) == zero
    assert MGDA(losses=FAMO(min_losses=[0.0, -3.0])).lowest_losses(2) == [0.0, -3.0]
    assert FAMO(min_losses=[]).lowest_losses(2) == []
    assert MoCo().lowest_losses(2) == none
    with pytest.raises(
        ValueError, match=r"^losses\.loss_transform must be 'identity' for a method that needs positive"
    ):
        MGDA(losses=Uncertainty(loss_transform="log")).setup(2)


# ------------------------------------------------------------------------------------------------- in whole runs

NEGATIVE = """
from mtlrun.tasks import Classification

class Shifted(Classification):
    nonnegative_loss = False

    def loss(self, prediction, target):
        return super().loss(prediction, target) - 3.0

class Wrong(Shifted):
    nonnegative_loss = True
"""


@pytest.fixture
def negative(tmp_path, monkeypatch):
    """Return overrides that give one of two tasks a loss that is negative."""
    (tmp_path / "negative_losses.py").write_text(NEGATIVE)
    monkeypatch.syspath_prepend(tmp_path)
    return [*QUICK, "tasks.right._target_=negative_losses.Shifted"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["weighting=uncertainty"], "weighting=uncertainty needs"),
        (["weighting=imtl"], "weighting.losses (IMTLL) needs"),
        (["weighting=moco", "weighting.normalize=true"], "weighting=moco needs"),
        (["weighting=mgda", "weighting.normalization=loss"], "weighting=mgda needs"),
        (["weighting=equal", "weighting.loss_transform=log"], "weighting.loss_transform=log needs"),
        (["weighting=pcgrad", "weighting/losses=equal", "weighting.losses.loss_transform=log"],
         "weighting.losses.loss_transform=log needs"),
    ],
)  # fmt: skip
def test_a_task_whose_loss_may_be_negative_is_refused_before_the_run(words, reason, negative, mtlrun):
    code, _, err = mtlrun(*negative, *words)
    assert (code, err.count("\n"), run_folders()) == (2, 1, [])
    assert f"tasks.right: {reason} losses that are never negative, and Shifted does not declare" in err


@pytest.mark.parametrize("method", ["uncertainty", "gls", "famo", "lbtw"])
def test_a_logarithm_that_may_be_negative_is_refused_before_the_run(method, mtlrun):
    code, _, err = mtlrun(*QUICK, f"weighting={method}", "weighting.loss_transform=log")
    assert (code, err.count("\n"), run_folders()) == (2, 1, [])
    assert "weighting.loss_transform must be 'identity' for a method that needs positive losses" in err


def test_gradnorm_of_logarithms_passes_a_loss_of_one(quick):
    folder = quick("weighting=gradnorm", "weighting.loss_transform=log", "optimizer.lr=0.02", "trainer.epochs=15")
    losses = [line["train/left/loss"] for line in read_lines(folder, "train")]
    assert losses[0] > 1 > losses[-1]


def test_famo_takes_negative_losses_where_a_lower_bound_is_given(negative, mtlrun):
    code, _, err = mtlrun(*negative, "weighting=famo")
    assert code == 2
    assert "tasks.right: weighting=famo needs" in err
    assert "give a lower bound as weighting.min_losses" in err
    code, _, err = mtlrun(*negative, "weighting=famo", "weighting.min_losses=[0,-3]", "trainer.log_every=1")
    assert code == 0, err
    (folder,) = run_folders()
    lines = read_lines(folder, "train")
    assert lines[0]["train/right/loss"] < 0
    assert all(line["weight/left"] > 0 and line["weight/right"] > 0 for line in lines)
    code, _, err = mtlrun(*negative, "weighting=famo", "weighting.min_losses=[0,-3,-3]")
    assert code == 2
    assert "weighting.min_losses must be one number, or one for each of the 2 tasks, found 3" in err


@pytest.mark.parametrize(
    ("words", "bound"),
    [(["weighting=famo", "weighting.min_losses=[0,-0.1]"], "-0.1"), (["weighting=dwa"], "0"),
     (["weighting=gradnorm", "tasks.right._target_=negative_losses.Wrong"], "0")],
)  # fmt: skip
def test_a_loss_below_what_was_declared_ends_the_run_in_one_line(words, bound, negative, mtlrun):
    code, _, err = mtlrun(*negative, "tasks.right._target_=negative_losses.Wrong", *words)
    assert code == 3
    assert "step 1: the loss of task right is -" in err
    assert f"the weighting works with losses of {bound} or more" in err
