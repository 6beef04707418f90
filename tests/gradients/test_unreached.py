"""Parameters that no loss of a batch reaches have a `.grad` of None under every weighting: nothing moves them."""

import pytest
import torch
from helpers import weighting_node
from torch import nn

from mtlrun.cli.list import entries
from mtlrun.config.instantiate import build
from mtlrun.gradients import GradientStep, Sharing
from mtlrun.weightings import GradientWeighting, PartsWeighting, Weighting
from mtlrun.weightings.base import TaskGradientWeighting
from mtlrun.weightings.capabilities import ObservesPerformance, RotatesRepresentation

METHODS = [entry.name for entry in entries("weighting")]
CHANGES = {"static": {"weights": [0.5, 2.0]}}


class Problem:
    """A trunk with parameters that both losses reach, the first one only, a penalty only, or nothing."""

    def __init__(self):
        torch.manual_seed(0)
        make = lambda: nn.Parameter(torch.randn(3, 3, dtype=torch.float64))  # noqa: E731
        self.both, self.first, self.penalized, self.nothing = make(), make(), make(), make()
        self.heads = [nn.Parameter(torch.randn(3, dtype=torch.float64)) for _ in range(2)]
        self.unused_heads = [nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(2)]
        self.inputs = torch.randn(8, 3, dtype=torch.float64)
        self.shared = [self.both, self.first, self.penalized, self.nothing]

    def sharing(self):
        own = [list(pair) for pair in zip(self.heads, self.unused_heads, strict=True)]
        return Sharing(self.shared, own, [self.both])

    def losses(self, features, samples=slice(None)):
        """Return the two losses, of which the second one sees the first part of the features only."""
        return [((features @ self.heads[0])[samples] ** 2).mean(), (features @ self.heads[1])[samples].exp().mean()]

    def features(self, second=False):
        through = self.both if second else self.both + self.first
        return torch.tanh(self.inputs @ through)

    def split_losses(self, samples=slice(None)):
        """Return losses of which only the first one reaches `first`."""
        return [self.losses(self.features(), samples)[0], self.losses(self.features(second=True), samples)[1]]

    def step(self, weighting, *, micro_batches=1, at_representation=False, vmap=False):
        for parameter in [*self.shared, *self.heads, *self.unused_heads]:
            parameter.grad = None
        batch_losses = torch.stack(self.split_losses()).detach() if micro_batches > 1 else None
        step = GradientStep(
            weighting, self.sharing(), micro_batches=micro_batches > 1, batch_losses=batch_losses, vmap=vmap
        )
        for index in range(micro_batches):
            if at_representation:
                representation = self.features()
                losses = self.losses(representation)
            else:
                representation, losses = None, self.split_losses(slice(index, None, micro_batches))
            losses = [loss / micro_batches for loss in losses]
            parts = []
            if isinstance(weighting, PartsWeighting):
                samples = [slice(number, None, weighting.num_parts) for number in range(weighting.num_parts)]
                parts = [
                    self.losses(representation, each) if at_representation else self.split_losses(each)
                    for each in samples
                ]
            regularizer = self.penalized.square().sum() / micro_batches
            step.add(losses, representation=representation, regularizer=regularizer, parts=parts)
        step.finish()
        weighting.learn()


def make(method, **options):
    weighting: Weighting = build(weighting_node(method) | CHANGES.get(method, {}) | options, "weighting")
    weighting.setup(2)
    for observing in weighting.capable_of(ObservesPerformance):
        observing.observe_performance(torch.full((2,), 0.5))
    for rotating in weighting.capable_of(RotatesRepresentation):
        rotating.attach_rotations(torch.eye(3, dtype=torch.float64).repeat(2, 1, 1))
    return weighting


def ways(method):
    """Yield the ways in which a step can be made under a method: the weighting, and arguments of `Problem.step`."""
    weighting = make(method)
    if not isinstance(weighting, TaskGradientWeighting):
        yield weighting, {}
        yield make(method), {"micro_batches": 2}
        return
    sources = [source for source in ("shared", "representation", "last_layer") if accepts(method, source)]
    for source in sources:
        for vmap in (False, True):
            yield make(method, grad_wrt=source), {"at_representation": True, "vmap": vmap}
    if "shared" in sources:
        for vmap in (False, True):
            yield make(method, grad_wrt="shared"), {"vmap": vmap}
            if not isinstance(weighting, PartsWeighting):
                yield make(method, grad_wrt="shared"), {"micro_batches": 2, "vmap": vmap}
        yield make(method, grad_wrt="shared", losses={"_target_": "mtlrun.weightings.Uncertainty"}), {}
        if isinstance(weighting, GradientWeighting):
            for head_loss in ("weighted", "unweighted"):
                kept = {"grad_wrt": "shared", "update_weights_every": 2, "head_loss": head_loss}
                yield make(method, **kept), {"at_representation": True}
                yield make(method, **kept), {"micro_batches": 2}


def accepts(method, source):
    try:
        make(method, grad_wrt=source)
    except Exception:
        return False
    return True


@pytest.mark.parametrize("method", METHODS)
def test_only_what_a_loss_reaches_has_a_gradient(method):
    for weighting, options in ways(method):
        problem = Problem()
        for _ in range(2):  # in the second one, weights may be used again
            problem.step(weighting, **options)
            context = (weighting, options)
            assert problem.nothing.grad is None, context
            assert problem.both.grad.any(), context
            assert all(head.grad is not None for head in problem.heads), context
            assert all(head.grad is None for head in problem.unused_heads), context
            torch.testing.assert_close(problem.penalized.grad, 2 * problem.penalized)
            assert problem.first.grad.shape == problem.first.shape


def test_where_one_task_reaches_a_parameter_the_gradient_is_its_own():
    problem = Problem()
    (expected,) = torch.autograd.grad(problem.split_losses()[0], problem.first)
    for method in ("equal", "mgda", "moco", "graddrop"):
        problem.step(make(method))
        torch.testing.assert_close(problem.first.grad / problem.first.grad.norm(), expected / expected.norm())


@pytest.mark.parametrize("method", ["mgda", "pcgrad", "modo", "graddrop", "rotograd"])
def test_losses_that_reach_no_representation_give_the_shared_parameters_no_gradient(method):
    problem = Problem()
    for source in ("shared", "representation"):
        if not accepts(method, source):
            continue
        weighting = make(method, grad_wrt=source)
        features = problem.features()
        losses = [head.square().sum() for head in problem.heads]
        step = GradientStep(weighting, problem.sharing())
        parts = [losses] * weighting.num_parts if isinstance(weighting, PartsWeighting) else []
        step.add(losses, representation=features, parts=parts)
        step.finish()
        assert [parameter.grad for parameter in problem.shared] == [None] * 4
        assert all(head.grad is not None for head in problem.heads)
