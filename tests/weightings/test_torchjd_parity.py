"""The methods that TorchJD has too, against TorchJD: an implementation by others, from the same papers.

Where the two differ in scale or defaults, a comment says how, and the test pins it.
"""

import pytest
import torch

from mtlrun.weightings import (
    IMTLG,
    MGDA,
    AlignedMTL,
    CAGrad,
    ConFIG,
    DualProj,
    Equal,
    ExcessMTL,
    FairGrad,
    GradDrop,
    GradVac,
    NashMTL,
    PCGrad,
    Static,
    UPGrad,
    combine,
)

# Its Nash-MTL has cvxpy say each time that the programme could be stated to be solved faster.
pytestmark = pytest.mark.filterwarnings("ignore:You are solving a parameterized problem that is not DPP:UserWarning")

torchjd = pytest.importorskip("torchjd.aggregation")


def random_jacobian(num_tasks, num_parameters, seed=0):
    return torch.randn(num_tasks, num_parameters, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def independent():
    jacobians = {f"{num_tasks} tasks": random_jacobian(num_tasks, 8, num_tasks) for num_tasks in (2, 3, 5)}
    jacobians["published example"] = torch.tensor([[-4.0, 1, 1], [6, 1, 1]], dtype=torch.float64)
    jacobians["conflicting"] = torch.tensor([[1, 0, 0, 0.1], [-0.8, 1, 0, 0], [-0.8, -1, 1, 0]], dtype=torch.float64)
    jacobians["of different lengths"] = random_jacobian(3, 8) * torch.tensor([[0.05], [1.0], [20.0]])
    return jacobians


def dependent():
    random = random_jacobian(3, 8)
    return {
        "more tasks than parameters": random_jacobian(5, 3),
        "a combination of others": torch.stack([random[0], random[1], random[0] - 2 * random[1]]),
        "opposite": torch.stack([random[0], -random[0], random[1]]),
        "twice the same": torch.stack([random[0], random[0], random[1]]),
    }


def assert_same(found, expected, share=1e-6):
    torch.testing.assert_close(found, expected, rtol=0, atol=share * max(1e-3, expected.norm().item()))


# Ours and theirs, where both give the same on any gradients.
SAME = {
    "equal, mean": (lambda: Equal(reduction="mean"), torchjd.Mean),
    "equal, sum": (lambda: Equal(), torchjd.Sum),
    "aligned_mtl, min": (lambda: AlignedMTL("min"), lambda: torchjd.AlignedMTL(scale_mode="min")),
    "aligned_mtl, median": (lambda: AlignedMTL("median"), lambda: torchjd.AlignedMTL(scale_mode="median")),
    "aligned_mtl, rmse": (lambda: AlignedMTL("rmse"), lambda: torchjd.AlignedMTL(scale_mode="rmse")),
    "config": (ConFIG, torchjd.ConFIG),
    "dualproj": (DualProj, torchjd.DualProj),
    "upgrad": (UPGrad, torchjd.UPGrad),
}


@pytest.mark.parametrize("method", SAME)
@pytest.mark.parametrize("kind", [*independent(), *dependent()])
def test_direction_is_that_of_torchjd(method, kind):
    jacobian = (independent() | dependent())[kind]
    ours, theirs = SAME[method]
    assert_same(combine(ours(), jacobian), theirs()(jacobian))


def test_weights_that_are_given_are_used_alike():
    weights = [0.5, 1.0, 2.0]
    jacobian = random_jacobian(3, 8)
    assert_same(combine(Static(weights), jacobian), torchjd.Constant(torch.tensor(weights).double())(jacobian))


@pytest.mark.parametrize("kind", [*independent(), *dependent()])
def test_mgda_is_the_same_when_both_are_solved_well(kind):
    # By default theirs stops after 100 iterations or at a step below 1e-3; ours is exact.
    jacobian = (independent() | dependent())[kind]
    found = combine(MGDA(), jacobian)
    expected = torchjd.MGDA(epsilon=1e-7, max_iters=3000)(jacobian)
    assert (found - expected).norm() <= 2e-2 * jacobian.norm()
    assert found.norm() <= expected.norm() + 1e-6 * jacobian.norm()


@pytest.mark.parametrize("kind", [*independent(), *dependent()])
def test_pcgrad_is_the_same_in_the_same_orders(kind, monkeypatch):
    # Theirs draws an order of all tasks for each task with torch.randperm; here it is handed ours.
    jacobian = (independent() | dependent())[kind]
    weighting, theirs = PCGrad(), torchjd.PCGrad()
    weighting.setup(len(jacobian), seed=3)
    generator = torch.Generator().manual_seed(3)
    for _ in range(4):
        orders = iter(torch.rand(len(jacobian), len(jacobian), generator=generator).argsort(dim=1))
        monkeypatch.setattr(torch, "randperm", lambda *_, orders=orders, **__: next(orders))
        expected = theirs(jacobian)
        assert next(orders, None) is None
        assert_same(combine(weighting, jacobian), expected)


def test_gradvac_of_two_tasks_is_the_same():
    # With more tasks the orders differ: theirs permute the others, ours all tasks. Theirs adds 1e-8 to denominators.
    weighting, theirs = GradVac(), torchjd.GradVac()
    for step in range(10):
        jacobian = random_jacobian(2, 8, step)
        assert_same(combine(weighting, jacobian), theirs(jacobian))


def test_graddrop_keeps_each_sign_as_often():
    # The draws differ, so the means of many entries with the same gradients are compared.
    jacobian = random_jacobian(3, 6).repeat_interleave(20_000, dim=1)
    found = combine(GradDrop(), jacobian).view(6, -1).mean(dim=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = torchjd.GradDrop()(jacobian).view(6, -1).mean(dim=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("kind", independent())
def test_imtl_g_is_the_same_where_its_weights_can_sum_to_one(kind):
    jacobian = independent()[kind]
    weighting = IMTLG()
    found, expected = combine(weighting, jacobian), torchjd.IMTLG()(jacobian)
    # Where their weights sum to one only after a change of all signs, they increase all losses; ours do not, and count
    # it as a fallback.
    if weighting.fallbacks:
        assert (jacobian @ expected).max() < 0
        assert (jacobian @ found).min() > 0
    else:
        # Ours is regularized by 1e-8, theirs is a pseudo-inverse.
        assert_same(found, expected, share=1e-4)


@pytest.mark.parametrize("c", [0.0, 0.4, 2.0])
@pytest.mark.parametrize("kind", [*independent(), *dependent()])
def test_cagrad_is_that_of_torchjd_times_the_number_of_tasks(c, kind):
    # Theirs is the direction of the paper; ours is by default divided by 1 + c² and multiplied by K, as in the paper's
    # code. Theirs is solved to about 1e-4.
    jacobian = (independent() | dependent())[kind]
    expected = len(jacobian) * torchjd.CAGrad(c)(jacobian)
    if kind == "opposite" and c > 1:
        # The shares of the gradients cancel: theirs takes that for the end, ours goes where the third task gains.
        assert (expected == 0).all()
        assert (jacobian @ combine(CAGrad(c), jacobian)).min() > -1e-2
        assert jacobian[2] @ combine(CAGrad(c), jacobian) > 0.1
        return
    assert_same(combine(CAGrad(c, rescale=0), jacobian), expected, share=5e-3)
    assert_same(combine(CAGrad(c), jacobian), expected / (1 + c**2), share=5e-3)


@pytest.mark.parametrize("kind", sorted(independent().keys() - {"of different lengths"}))
def test_nash_mtl_is_the_same(kind):
    # Theirs is the paper's sequence of convex programmes, which ends at an error of 1e-3.
    jacobian = independent()[kind]
    assert_same(combine(NashMTL(), jacobian), torchjd.NashMTL(n_tasks=len(jacobian))(jacobian), share=2e-2)


def test_nash_mtl_is_solved_for_gradients_of_different_lengths_unlike_in_torchjd():
    # Theirs works on the gradients as they are and stops before its end where one is 400 times as long as another.
    jacobian = independent()["of different lengths"]

    def largest_error(direction):
        """Of a_k (g_k . d) = 1, up to the scale of d."""
        weights = torch.linalg.lstsq(jacobian.T, direction.unsqueeze(1)).solution.squeeze(1)
        agreed = weights * (jacobian @ direction)
        return (agreed / agreed.mean() - 1).abs().max().item()

    assert largest_error(combine(NashMTL(), jacobian)) < 1e-6
    assert largest_error(torchjd.NashMTL(n_tasks=3)(jacobian)) > 0.1


@pytest.mark.parametrize("alpha", [1.0, 2.0])
@pytest.mark.parametrize("kind", independent())
def test_fairgrad_is_the_same_without_a_limit_on_the_norm(alpha, kind):
    # Theirs has no limit on the norm; ours has by default that of the paper's code.
    jacobian = independent()[kind]
    assert_same(combine(FairGrad(alpha, max_norm=None), jacobian), torchjd.FairGrad(alpha)(jacobian), share=1e-3)


def test_excess_mtl_is_the_same_after_the_same_warm_up():
    # Theirs counts the warm-up in steps, ours in epochs, here of two steps.
    weighting, theirs = ExcessMTL(warmup_epochs=1), torchjd.ExcessMTL(n_warmup_steps=2)
    for step in range(8):
        jacobian = random_jacobian(3, 8, step)
        assert_same(combine(weighting, jacobian), theirs(jacobian), share=1e-5)
        if step % 2:
            weighting.epoch_ended()


def test_excess_mtl_without_a_warm_up_starts_with_equal_weights_unlike_in_torchjd():
    # Theirs moves the weights in the first step by excesses that are not relative to anything yet.
    jacobian = random_jacobian(3, 8)
    assert_same(combine(ExcessMTL(warmup_epochs=0), jacobian), jacobian.mean(dim=0))
    assert not torch.allclose(torchjd.ExcessMTL()(jacobian), jacobian.mean(dim=0), rtol=0.01)
