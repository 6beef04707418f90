"""What weightings learn: by an optimizer apart from the run's, task by task."""

import copy
import io

import pytest
import torch
from helpers import weighting_node
from torch import nn

from mtlrun.config.instantiate import build
from mtlrun.gradients import backward
from mtlrun.weightings import LossWeighting
from mtlrun.weightings.capabilities import LearnsWeights, LooksAhead, ObservesLossesAfterStep, RotatesRepresentation
from mtlrun.weightings.state.learner import Learner

DOUBLE = {"dtype": torch.float64}
LEARNING = {
    "auto_lambda": "task_weights",
    "famo": "logits",
    "gradnorm": "learned_weights",
    "imtl_l": "log_scale",
    "rotograd": "turns",
    "uncertainty": "log_variance",
}


def make(method, num_tasks=3, **options):
    weighting = build(weighting_node(method) | options, "weighting")
    weighting.setup(num_tasks)
    for rotating in weighting.capable_of(RotatesRepresentation):
        rotating.attach_rotations(torch.eye(3, **DOUBLE).repeat(num_tasks, 1, 1))
    return weighting


class Trial:
    """A lookahead at losses that grow along a vector."""

    lr = 0.1

    def __init__(self, slopes):
        self.parameters = [nn.Parameter(torch.ones(3, **DOUBLE))]
        self.slopes = slopes

    def losses(self, *, meta=False):
        return self.slopes @ self.parameters[0].exp()


def step(weighting, number, tasks, active=None):
    """Make a step whose losses and gradients depend on its number, of these tasks."""
    draws = torch.Generator().manual_seed(number)
    losses = torch.rand(3, generator=draws, **DOUBLE)[tasks] + 0.2
    jacobian = torch.randn(3, 6, generator=draws, **DOUBLE)[tasks]
    weighting.active = slice(None) if active is None else torch.tensor(active)
    for method in weighting.capable_of(LooksAhead):
        method.look_ahead(Trial(torch.rand(3, 3, generator=draws, **DOUBLE)[tasks]))
    parameter = nn.Parameter(torch.zeros(6, **DOUBLE))
    task_losses = [row @ parameter + loss for row, loss in zip(jacobian, losses, strict=True)]
    at_representation = getattr(weighting, "grad_wrt", "shared") == "representation"
    backward(
        weighting,
        task_losses,
        [parameter],
        [[] for _ in tasks],
        representation=parameter if at_representation else None,
    )
    for method in weighting.capable_of(ObservesLossesAfterStep):
        method.observe_losses_after_step(losses * torch.rand(3, generator=draws, **DOUBLE)[tasks])
    weighting.learn()


def learned(weighting, method):
    """Return what is learned [K, ...], and what the optimizer keeps of each task."""
    values = weighting.rotations if method == "rotograd" else getattr(weighting, LEARNING[method]).detach()
    state = weighting.get_extra_state()["learner"]["state"]
    return values.clone(), copy.deepcopy(state)


def assert_task_is_the_same(before, after, task, other_task=None):
    other_task = task if other_task is None else other_task
    assert torch.equal(before[0][task], after[0][other_task])
    assert before[1][task].keys() == after[1][other_task].keys()
    for key, value in before[1][task].items():
        assert torch.equal(value, after[1][other_task][key]), key


@pytest.mark.parametrize("method", LEARNING)
def test_a_task_without_a_label_keeps_its_weight_and_moments_and_the_others_learn_as_if_it_were_not_there(method):
    weighting = make(method)
    for number in range(5):
        step(weighting, number, [0, 1, 2])
    before = learned(weighting, method)
    for number in range(5, 45):
        step(weighting, number, [0, 2], active=[0, 2])
    after = learned(weighting, method)
    assert_task_is_the_same(before, after, 1)
    assert not torch.equal(before[0][[0, 2]], after[0][[0, 2]])
    if method == "gradnorm":
        assert after[0].sum().item() == pytest.approx(3)

    never, without = make(method), make(method, num_tasks=2)
    for number in range(40):
        step(never, number, [0, 2], active=[0, 2])
        step(without, number, [0, 2])
    assert 1 not in learned(never, method)[1]
    for task, other_task in ((0, 0), (2, 1)):
        assert_task_is_the_same(learned(never, method), learned(without, method), task, other_task)


@pytest.mark.parametrize("method", LEARNING)
def test_moments_are_in_the_state(method):
    weighting = make(method)
    for number in range(4):
        step(weighting, number, [0, 1, 2])
    file = io.BytesIO()
    torch.save(weighting.state_dict(), file)
    file.seek(0)
    fresh = make(method)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    if method == "rotograd":  # the model's
        fresh.rotations.copy_(weighting.rotations)
    for number in range(4, 8):
        step(weighting, number, [0, 1, 2])
        step(fresh, number, [0, 1, 2])
    for task in range(3):
        assert_task_is_the_same(learned(weighting, method), learned(fresh, method), task)


def test_with_all_tasks_the_optimizer_is_that_of_pytorch():
    generator = torch.Generator().manual_seed(0)
    for name, make_optimizer in {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}.items():
        ours, theirs = (nn.Parameter(torch.ones(3, 2, **DOUBLE)) for _ in range(2))
        learner = Learner([ours], 3, name, lr=0.1, weight_decay=0.01)
        optimizer = make_optimizer([theirs], lr=0.1, weight_decay=0.01)
        for _ in range(20):
            gradient = torch.randn(3, 2, generator=generator, **DOUBLE)
            ours.grad, theirs.grad = gradient.clone(), gradient.clone()
            learner.step(slice(None))
            optimizer.step()
            assert ours.grad is None
        torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=1e-14)


def test_a_parameter_that_is_not_of_the_tasks_is_learned_as_a_whole():
    matrix, scalar = nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(()))
    learner = Learner([matrix, scalar], 3, "sgd", lr=1.0)
    matrix.grad, scalar.grad = torch.ones(2, 3), torch.ones(())
    learner.step(torch.tensor([1]))
    assert matrix.tolist() == [[-1.0] * 3] * 2
    assert scalar.item() == -1


def test_an_absent_task_moves_where_its_gradient_has_another_cause():
    values = nn.Parameter(torch.zeros(2))
    learner = Learner([values], 2, "sgd", lr=1.0)
    values.grad = torch.tensor([1.0, 2.0])
    learner.step(torch.tensor([0]))
    assert values.tolist() == [-1.0, -2.0]


def test_a_weighting_of_ones_own_learns_whatever_it_registers():
    class Own(LossWeighting):
        def setup(self, num_tasks, seed=0):
            super().setup(num_tasks, seed)
            self.scales = nn.Parameter(torch.zeros(num_tasks))
            self.network = nn.Linear(1, 1)

        def objective(self, losses):
            return self.network((torch.exp(self.scales[self.active]) * losses).sum().view(1)).sum()

    weighting = Own()
    weighting.setup(3)
    before = copy.deepcopy(weighting.state_dict())
    weighting.active = torch.tensor([0, 2])
    weighting.scalarize(torch.ones(2)).backward()
    weighting.learn()
    after = weighting.state_dict()
    assert (before["scales"] == after["scales"]).tolist() == [False, True, False]
    for name in ("network.weight", "network.bias"):
        assert (after[name] - before[name]).abs().item() == pytest.approx(1e-3, rel=1e-3)
    assert weighting.learners().keys() == {"weighting"}


@pytest.mark.parametrize("method", LEARNING)
def test_shipped_methods_have_the_keys_of_their_optimizer(method):
    weighting = make(method, optimizer="sgd", lr=0.125)
    assert isinstance(weighting, LearnsWeights)
    assert (weighting.learner.lr, weighting.optimizer) == (0.125, "sgd")
    with pytest.raises(ValueError, match="optimizer must be one of"):
        type(weighting)(optimizer="adamw")
    with pytest.raises(ValueError, match=r"lr must be > 0, or null for optimizer\.lr, found 0"):
        type(weighting)(lr=0)


@pytest.mark.parametrize("method", LEARNING)
def test_a_method_that_learns_from_losses_alone_has_no_gradient_for_tasks_without_one(method, monkeypatch):
    """Nobody looks then whether there is one, for which a GPU would be waited for."""
    weighting = make(method)
    assert weighting.learns_from_losses_alone
    parameter, seen = getattr(weighting, LEARNING[method]), []
    move = Learner.step

    def look(self, *arguments):
        seen.append(parameter.grad.clone())
        move(self, *arguments)

    monkeypatch.setattr(Learner, "step", look)
    step(weighting, 0, [0, 2], active=[0, 2])
    (gradient,) = seen
    assert not gradient[1].any()
    assert gradient.any()
