"""What must hold for every weighting method."""

import copy
import io

import pytest
import torch
from helpers import weighting_node

from mtlrun.cli.list import entries
from mtlrun.config.instantiate import build
from mtlrun.weightings import (
    IMTLL,
    Equal,
    GradNorm,
    Static,
    Uncertainty,
    Weighting,
    combine,
)
from mtlrun.weightings.capabilities import ObservesPerformance, RotatesRepresentation

TASK_WEIGHTS = [0.5, 1.0, 2.0]
METHODS = [entry.name for entry in entries("weighting")]
#: Where a method is not itself with what its file says, or would not be from the first epoch on.
CHANGES = {
    "excess_mtl": {"warmup_epochs": 1},
    "imtl_l": {"lr": 0.05},
    "modo": {"gamma": 0.05},
    "static": {"weights": TASK_WEIGHTS},
    "stch": {"warmup_epochs": 1},
    "uncertainty": {"lr": 0.05},
}
#: Short warm-ups, where files have long ones or refer to tasks.
WARM_UPS = {
    "excess_mtl": {"warmup_epochs": 2},
    "static": {"weights": TASK_WEIGHTS},
    "stch": {"warmup_epochs": 2},
}
STATEFUL = [
    "balancer",
    "bloop",
    "cov_weighting",
    "db_mtl",
    "dwa",
    "excess_mtl",
    "go4align",
    "graddrop",
    "gradnorm",
    "gradvac",
    "igb",
    "imtl_l",
    "lbtw",
    "metabalance",
    "moco",
    "modo",
    "pcgrad",
    "rlw",
    "rotograd",
    "stch",
    "uncertainty",
]
# Their equations give the direction a length that is not that of the gradients; it is at most max_norm or total_norm, 1
# here.
LENGTH_OF_ITS_OWN = {"balancer", "fairgrad", "nash_mtl"}
LOSSES = torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64)


def random_jacobian(seed=0):
    return torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def jacobians():
    random = random_jacobian()
    opposite = torch.stack([random[0], -random[0], random[1]])
    return {
        "random": random,
        "rank one": torch.outer(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), random[0]),
        "rank two": torch.stack([random[0], random[1], random[0] - 2 * random[1]]),
        "twice the same": torch.stack([random[0], random[0], random[1]]),
        "opposite": opposite,
        "conflicting": torch.tensor(
            [[1, 0, 0, 0.1, 0, 0], [-0.8, 1, 0, 0, 0.1, 0], [-0.8, -1, 1, 0, 0, 0.1]], dtype=torch.float64
        ),
        "huge": random * 1e8,
        "tiny": random * 1e-8,
        "huge and tiny": random * torch.tensor([[1e8], [1.0], [1e-8]], dtype=torch.float64),
        "one of them zero": random * torch.tensor([[1.0], [0.0], [1.0]], dtype=torch.float64),
    }


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


def configured(method, **changes):
    """Build `weighting=<method>`; it is not set up for a number of tasks."""
    return build(weighting_node(method) | CHANGES.get(method, {}) | changes, "weighting")


def set_up(weighting, num_tasks=3, seed=0):
    """Prepare for tasks that do half as well as they can, and for a representation of length 3."""
    weighting.setup(num_tasks, seed)
    for method in weighting.capable_of(ObservesPerformance):
        method.observe_performance(torch.full((num_tasks,), 0.5))
    for method in weighting.capable_of(RotatesRepresentation):
        method.attach_rotations(torch.eye(3, dtype=torch.float64).repeat(num_tasks, 1, 1))
    return weighting


def make(method, seed=0):
    return set_up(configured(method), seed=seed)


def drive(weighting, take_step, steps, start=0, width=6):
    """Make steps with losses that fall at different rates; every second one ends an epoch, as odd starts show.

    Parameters beyond the sixth, up to `width`, have no gradients.
    """
    directions = []
    for index in range(start, start + steps):
        losses = LOSSES * torch.tensor([0.95, 0.8, 0.6], dtype=torch.float64) ** index
        jacobian = torch.nn.functional.pad(random_jacobian(index), (0, width - 6))
        directions.append(take_step(weighting, jacobian, losses))
        if index % 2:
            weighting.epoch_ended()
    return torch.stack(directions)


@pytest.mark.parametrize("kind", jacobians())
def test_direction_is_finite_and_not_longer_than_the_gradients_allow(method, kind):
    jacobian = jacobians()[kind]
    direction = combine(make(method), jacobian, LOSSES)
    assert direction.shape == (6,)
    assert direction.isfinite().all()
    # Methods that divide by losses have larger weights: the largest there is comes from go4align. So does a logarithm.
    weighting = configured(method)
    largest = LOSSES.sum() / LOSSES.min() if weighting.needs_positive_losses else max(TASK_WEIGHTS)
    if weighting.loss_transform == "log":
        largest = largest / LOSSES.min()
    bound = 1 + 1e-9 if method in LENGTH_OF_ITS_OWN else largest * jacobian.norm(dim=1).sum()
    assert direction.norm() <= bound


# The weights of modo make a step of fixed size along products of gradients, before the first direction.
@pytest.mark.parametrize("method", sorted(set(METHODS) - {"modo"}))
@pytest.mark.parametrize("scale", [1e8, 1e-8])
def test_direction_scales_with_the_gradients(method, scale):
    jacobian = jacobians()["conflicting"]
    direction = combine(make(method), jacobian, LOSSES)
    scaled = combine(make(method), scale * jacobian, LOSSES)
    if method in LENGTH_OF_ITS_OWN:
        scale = scaled.norm() / direction.norm()
    torch.testing.assert_close(scaled / scale, direction, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [1e20, 1e-24])
def test_float32_gradients_whose_squares_it_cannot_hold_are_combined_like_others(method, scale, take_step):
    jacobian, losses = jacobians()["conflicting"].float(), LOSSES.float()
    for run in (combine, take_step):
        direction = run(make(method), jacobian, losses).double()
        scaled = run(make(method), scale * jacobian, losses).double()
        assert scaled.isfinite().all()
        scaled, direction = scaled / scaled.norm(), direction / direction.norm()
        if method != "modo":  # its weights make a step of fixed size along products of gradients
            torch.testing.assert_close(scaled, direction, rtol=1e-4, atol=1e-5)


# Its weights compare each loss with that in the first step of the epoch; this is no warm-up.
@pytest.mark.parametrize("method", sorted(set(METHODS) - {"lbtw"}))
def test_first_epoch_is_the_first_whose_weights_are_not_those_of_the_warm_up(method, take_step):
    weighting, warming_up = (
        set_up(build(weighting_node(method) | WARM_UPS.get(method, {}), "weighting")) for _ in range(2)
    )
    differ = []
    for epoch in range(1, 7):
        for batch in range(2):
            losses = LOSSES * torch.tensor([0.95, 0.8, 0.6], dtype=torch.float64) ** (2 * epoch + batch)
            steps = [take_step(each, random_jacobian(epoch), losses) for each in (weighting, warming_up)]
            if not torch.equal(*steps):
                differ.append(epoch)
        weighting.epoch_ended()  # the other one stays in its first epoch
    first = weighting.first_epoch
    assert sorted(set(differ)) == (list(range(first, 7)) if first > 1 else [])


def test_zero_gradients_give_a_direction_of_zeros(method):
    assert torch.equal(combine(make(method), torch.zeros(3, 6)), torch.zeros(6))


def test_direction_has_the_precision_of_the_gradients(method):
    exact = combine(make(method), random_jacobian(), LOSSES)
    single = combine(make(method), random_jacobian().float(), LOSSES.float())
    assert single.dtype == torch.float32
    if method != "graddrop":  # its draws differ between the two
        torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=1e-4)


def test_a_single_task_gets_its_own_gradient_up_to_a_positive_factor():
    jacobian = random_jacobian()[:1]
    for method in METHODS:
        weighting = set_up(Static([2.0]) if method == "static" else configured(method), num_tasks=1)
        ratio = combine(weighting, jacobian) / jacobian[0]
        assert ratio[0] > 0, method
        torch.testing.assert_close(ratio, ratio[0].expand(6), msg=method)


# The orders of PCGrad and GradVac are drawn, as are RLW's weights; their own tests say what holds all the same.
@pytest.mark.parametrize("method", sorted(set(METHODS) - {"gradvac", "pcgrad", "rlw"}))
def test_order_of_the_tasks_does_not_matter(method, take_step):
    order = torch.tensor([2, 0, 1])
    weighting = make(method)
    changes = {"weights": [TASK_WEIGHTS[index] for index in order]} if method == "static" else {}
    if hasattr(weighting, "primary"):
        changes["primary"] = order.tolist().index(weighting.primary)
    permuted = set_up(configured(method, **changes))
    for step in range(6):
        jacobian, losses = random_jacobian(step), LOSSES * torch.tensor([0.9, 0.8, 0.5], dtype=torch.float64) ** step
        expected = take_step(weighting, jacobian, losses)
        torch.testing.assert_close(take_step(permuted, jacobian[order], losses[order]), expected)
        if step % 2:
            weighting.epoch_ended()
            permuted.epoch_ended()


# auto_lambda learns by looking at another batch, which these steps have not: its own test is in test_composition.py.
@pytest.mark.parametrize("method", sorted(set(METHODS) - {"equal", "auto_lambda"}))
def test_direction_on_a_conflict_differs_from_that_of_equal_weights(method, take_step):
    weighting = make(method)
    drive(weighting, take_step, 7)  # into an epoch: lbtw has equal weights on the first batch of each
    conflict = torch.tensor([[-4.0, 1, 1], [6, 1, 1], [1, -3, 0.5]], dtype=torch.float64)
    conflict = torch.nn.functional.pad(conflict, (0, 3))
    direction = take_step(weighting, conflict, LOSSES)
    assert torch.cosine_similarity(direction, conflict.sum(dim=0), dim=0) < 0.999


def test_state_makes_a_fresh_instance_continue_as_the_first(method, take_step):
    weighting = make(method, seed=1)
    drive(weighting, take_step, 7)
    file = io.BytesIO()
    torch.save(weighting.state_dict(), file)
    file.seek(0)
    fresh = make(method, seed=2)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(drive(fresh, take_step, 7, start=7), drive(weighting, take_step, 7, start=7))


@pytest.mark.parametrize("method", STATEFUL)
def test_without_its_state_a_fresh_instance_continues_otherwise(method, take_step):
    weighting = make(method, seed=1)
    drive(weighting, take_step, 7)
    fresh = make(method, seed=2)
    assert not torch.equal(drive(fresh, take_step, 7, start=7), drive(weighting, take_step, 7, start=7))


def test_global_random_numbers_do_not_depend_on_the_method(method):
    before = torch.random.get_rng_state()
    combine(make(method), random_jacobian(), LOSSES)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_given_gradients_and_losses_are_left_as_they_are(method):
    jacobian, losses = random_jacobian(), LOSSES.clone()
    combine(make(method), jacobian, losses)
    assert torch.equal(jacobian, random_jacobian())
    assert torch.equal(losses, LOSSES)


def test_a_task_without_a_loss_does_not_influence_the_step(method, take_step):
    weighting = make(method)
    drive(weighting, take_step, 4, width=9)
    jacobian = torch.cat([random_jacobian(), torch.eye(3, dtype=torch.float64)], dim=1)
    direction = take_step(weighting, jacobian[[0, 2]], LOSSES[[0, 2]], active=[0, 2])
    assert direction.isfinite().all()
    assert (direction[[6, 8]] != 0).any()
    assert direction[7] == 0


def test_a_task_without_a_loss_keeps_its_state(method, take_step):
    weighting = make(method)
    drive(weighting, take_step, 3)

    def state_of_middle_task():
        state = {name: value for name, value in weighting.state_dict().items() if torch.is_tensor(value)}
        # The last dimension is that of tasks, except where each task, or the primary one, has a vector of parameters.
        dims = {name: 0 if name.endswith("vectors") else -1 for name in state}
        of_tasks = {name: value for name, value in state.items() if value.dim() and value.shape[dims[name]] == 3}
        return {name: value.select(dims[name], 1).clone() for name, value in of_tasks.items()}

    before = state_of_middle_task()
    take_step(weighting, random_jacobian()[[0, 2]], LOSSES[[0, 2]], active=[0, 2])
    after = state_of_middle_task()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=0, equal_nan=True, msg=name)


def test_all_tasks_are_weighed_again_after_a_step_without_one(method, take_step):
    weighting = make(method)
    take_step(weighting, random_jacobian()[[1]], LOSSES[[1]], active=[1])
    weighting.epoch_ended()
    assert drive(weighting, take_step, 5).isfinite().all()


def test_a_copy_shares_no_state(method, take_step):
    weighting = make(method)
    drive(weighting, take_step, 3)
    before = copy.deepcopy(weighting.state_dict())
    drive(copy.deepcopy(weighting), take_step, 3)
    for name, value in weighting.state_dict().items():
        if torch.is_tensor(value):
            torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"jacobian must be \[num_tasks, num_parameters\], found shape \(3,\)"):
        combine(Equal(), torch.ones(3))
    with pytest.raises(ValueError, match="3 task gradients need as many losses, found 2"):
        combine(Equal(), torch.ones(3, 4), torch.ones(2))


def test_a_weighting_of_no_known_kind_is_refused():
    class Odd(Weighting):
        pass

    with pytest.raises(TypeError, match="Odd is none of the three kinds"):
        combine(Odd(), torch.ones(2, 3))


@pytest.mark.parametrize("cls", [GradNorm, IMTLL, Uncertainty])
def test_learning_rate_that_is_not_positive_is_refused(cls):
    with pytest.raises(ValueError, match=r"lr must be > 0.* found 0"):
        cls(lr=0)
