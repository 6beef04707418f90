"""`backward` and `gram_matrix` against gradients taken one by one with autograd, in float64."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mtlrun.gradients import NonFiniteGradientError, backward, gram_matrix
from mtlrun.gradients.assignment import clip_shared, weighted_sum
from mtlrun.gradients.task_gradients import _warn_of_refusal
from mtlrun.weightings import DWA, MGDA, Equal, GradDrop, GradNorm, PCGrad, Static, Uncertainty, Weighting, combine

TASK_WEIGHTS = [0.5, 1.0, 2.0]
LOSS_METHODS = {
    "equal": Equal,
    "mean": lambda: Equal("mean"),
    "static": lambda: Static(TASK_WEIGHTS),
    "uncertainty": Uncertainty,
    "dwa": DWA,
}
GRAM_METHODS = {"mgda": MGDA, "pcgrad": PCGrad, "gradnorm": GradNorm}
METHODS = LOSS_METHODS | GRAM_METHODS | {"graddrop": GradDrop}
SOURCES = ["shared", "representation", "last_layer"]


class Problem:
    """Three conflicting tasks on one trunk; each call of `graph` runs the network anew."""

    def __init__(self):
        generator = torch.Generator().manual_seed(3)

        def random(*shape):
            return torch.randn(*shape, dtype=torch.float64, generator=generator)

        self.inputs, self.targets = random(5, 4), 2 * random(3, 5)
        self.trunk = [nn.Parameter(random(4, 3)), nn.Parameter(random(3)), nn.Parameter(random(3))]
        self.last_layer = [nn.Parameter(random(3, 2)), nn.Parameter(random(2))]
        self.own = [[nn.Parameter(random(2)), nn.Parameter(random(1))] for _ in range(3)]
        self.own[1].clear()  # a task with nothing of its own
        self.partly = nn.Parameter(random(5))  # reached by the first two losses only, beside the representation
        self.shared = [*self.trunk, *self.last_layer]
        self.parameters = [*self.shared, *self.own[0], *self.own[2]]

    def graph(self, tasks=(0, 1, 2), with_partly=False):
        first, *biases = self.trunk
        hidden = torch.tanh(self.inputs @ first + biases[0] + biases[1])
        representation = hidden @ self.last_layer[0] + self.last_layer[1]
        losses = []
        for task in tasks:
            prediction = representation.sum(dim=1)
            if self.own[task]:
                prediction = representation @ self.own[task][0] + self.own[task][1]
            if with_partly and task < 2:
                prediction = prediction + self.partly
            losses.append((prediction - self.targets[task]).square().mean())
        return SimpleNamespace(losses=losses, representation=representation)


def gradients(output, inputs, grad_output=None):
    if not len(inputs):
        return ()
    return torch.autograd.grad(
        output, inputs, grad_output, retain_graph=True, allow_unused=True, materialize_grads=True
    )


def flat(tensors):
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def jacobian_of(losses, inputs):
    return torch.stack([flat(gradients(loss, inputs)) for loss in losses])


def values(losses):
    return torch.stack(losses).detach()


def grads(parameters):
    return flat([parameter.grad for parameter in parameters])


def make(method, num_tasks=3, **options):
    """Make a weighting in a state in which it is not the same as equal weights."""
    weighting = METHODS[method](**options)
    weighting.setup(num_tasks)
    if method == "gradnorm":
        weighting.learned_weights.data = torch.linspace(0.5, 1.5, num_tasks, dtype=torch.float64)
    if method == "uncertainty":
        weighting.log_variance.data = torch.linspace(-0.5, 0.5, num_tasks)
    if method == "dwa":
        for losses in (torch.ones(num_tasks), torch.linspace(0.2, 1, num_tasks)):
            weighting.objective(losses)
            weighting.epoch_ended()
    return weighting


def assert_own_gradients(problem, graph, factors, tasks=(0, 1, 2)):
    for task, loss, factor in zip(tasks, graph.losses, factors, strict=True):
        for parameter, expected in zip(problem.own[task], gradients(loss, problem.own[task]), strict=True):
            torch.testing.assert_close(parameter.grad, factor * expected)


@pytest.fixture
def problem():
    return Problem()


@pytest.mark.parametrize("with_representation", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_shared_parameters_get_the_combination_of_the_task_gradients(problem, method, with_representation):
    reference = problem.graph()
    expected = combine(make(method), jacobian_of(reference.losses, problem.shared), values(reference.losses))
    graph = problem.graph()
    backward(
        make(method),
        graph.losses,
        problem.shared,
        problem.own,
        representation=graph.representation if with_representation else None,
    )
    torch.testing.assert_close(grads(problem.shared), expected)


@pytest.mark.parametrize("method", LOSS_METHODS)
def test_loss_weightings_equal_a_backward_pass_of_their_objective(problem, method):
    expected = gradients(make(method).objective(torch.stack(problem.graph().losses)), problem.parameters)
    update = backward(make(method), problem.graph().losses, problem.shared, problem.own)
    torch.testing.assert_close(grads(problem.parameters), flat(expected))
    assert update.gram is None


def test_parameters_of_a_loss_weighting_get_their_gradient(problem):
    weighting, graph = make("uncertainty"), problem.graph()
    backward(weighting, graph.losses, problem.shared, problem.own)
    expected = 0.5 - 0.5 * torch.exp(-torch.tensor([-0.5, 0, 0.5])) * values(graph.losses).float()
    torch.testing.assert_close(weighting.log_variance.grad, expected)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("equal", [1, 1, 1]),
        ("mean", [1 / 3] * 3),
        ("static", TASK_WEIGHTS),
        ("uncertainty", [0.5 * math.exp(0.5), 0.5, 0.5 * math.exp(-0.5)]),
    ],
)
def test_weights_of_a_loss_weighting_are_the_gradient_of_its_objective(problem, method, expected):
    update = backward(make(method), problem.graph().losses, problem.shared, problem.own)
    assert update.weights.tolist() == pytest.approx(expected)
    assert not update.weights.requires_grad


@pytest.mark.parametrize("method", GRAM_METHODS)
def test_weights_and_gram_matrix_of_a_gradient_weighting_are_reported(problem, method):
    reference = problem.graph()
    rows = jacobian_of(reference.losses, problem.shared)
    update = backward(make(method), problem.graph().losses, problem.shared, problem.own)
    torch.testing.assert_close(update.gram, rows @ rows.T)
    torch.testing.assert_close(update.weights, make(method).task_weights(rows @ rows.T, values(reference.losses)))


def test_gram_matrix_of_a_jacobian_weighting_is_taken_when_asked_for(problem):
    rows = jacobian_of(problem.graph().losses, problem.shared)
    asked = backward(make("graddrop"), problem.graph().losses, problem.shared, problem.own, want_gram=True)
    torch.testing.assert_close(asked.gram, rows @ rows.T)
    unasked = backward(make("graddrop"), problem.graph().losses, problem.shared, problem.own)
    assert unasked.gram is None
    assert unasked.weights is None


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("heads", ["unweighted", "weighted"])
@pytest.mark.parametrize("method", GRAM_METHODS)
def test_gradients_are_compared_at_grad_wrt_and_weighted_everywhere(problem, method, heads, source):
    reference = problem.graph()
    compared_by = {
        "shared": problem.shared,
        "representation": [reference.representation],
        "last_layer": problem.last_layer,
    }[source]
    rows = jacobian_of(reference.losses, compared_by)
    weights = make(method).task_weights(rows @ rows.T, values(reference.losses))
    graph = problem.graph()
    update = backward(
        make(method, head_loss=heads, grad_wrt=source),
        graph.losses,
        problem.shared,
        problem.own,
        representation=graph.representation,
        last_layer=problem.last_layer,
    )
    torch.testing.assert_close(update.gram, rows @ rows.T)
    torch.testing.assert_close(grads(problem.shared), weights @ jacobian_of(reference.losses, problem.shared))
    assert_own_gradients(problem, reference, weights if heads == "weighted" else torch.ones(3))


def test_different_grad_wrt_lead_to_different_weights(problem):
    weights = []
    for source in SOURCES:
        graph = problem.graph()
        update = backward(
            make("mgda", grad_wrt=source),
            graph.losses,
            problem.shared,
            problem.own,
            representation=graph.representation,
            last_layer=problem.last_layer,
        )
        weights.append(update.weights)
    assert len(torch.stack(weights).round(decimals=6).unique(dim=0)) == 3


def test_direction_at_the_representation_is_sent_back_through_the_trunk(problem):
    reference = problem.graph()
    rows = jacobian_of(reference.losses, [reference.representation])
    direction = make("graddrop").combine(rows, values(reference.losses))
    expected = gradients(reference.representation, problem.shared, direction.view_as(reference.representation))
    graph = problem.graph()
    backward(
        make("graddrop", grad_wrt="representation"),
        graph.losses,
        problem.shared,
        problem.own,
        representation=graph.representation,
    )
    torch.testing.assert_close(grads(problem.shared), flat(expected))
    assert_own_gradients(problem, reference, [1, 1, 1])


@pytest.mark.parametrize("method", ["equal", "mgda", "pcgrad", "graddrop"])
def test_shared_parameters_that_some_losses_do_not_reach_count_as_zero_there(problem, method):
    shared = [*problem.shared, problem.partly]
    reference = problem.graph(with_partly=True)
    rows = jacobian_of(reference.losses, shared)
    assert rows[2, -5:].tolist() == [0] * 5
    expected = combine(make(method), rows, values(reference.losses))
    backward(make(method), problem.graph(with_partly=True).losses, shared, problem.own)
    torch.testing.assert_close(grads(shared), expected)


@pytest.mark.parametrize("with_representation", [True, False])
@pytest.mark.parametrize("method", ["equal", "static", "mgda", "pcgrad", "gradnorm", "graddrop"])
def test_regularizer_is_added_outside_the_weighting(problem, method, with_representation):
    def run(with_regularizer):
        for parameter in problem.parameters:
            parameter.grad = None
        graph = problem.graph()
        penalty = 0.3 * flat(problem.parameters).square().sum()
        update = backward(
            make(method),
            graph.losses,
            problem.shared,
            problem.own,
            representation=graph.representation if with_representation else None,
            regularizer=penalty if with_regularizer else None,
        )
        return grads(problem.parameters), update.weights

    without, weights_without = run(False)
    found, weights = run(True)
    torch.testing.assert_close(found, without + 0.6 * flat(problem.parameters).detach())
    assert weights is weights_without or torch.equal(weights, weights_without)


@pytest.mark.parametrize("with_representation", [True, False])
@pytest.mark.parametrize("method", ["equal", "pcgrad", "graddrop"])
def test_regularizer_may_be_made_of_the_features(problem, method, with_representation):
    reference = problem.graph()
    expected = combine(make(method), jacobian_of(reference.losses, problem.shared), values(reference.losses))
    expected = expected + flat(gradients(reference.representation.square().sum(), problem.shared))
    graph = problem.graph()
    backward(
        make(method),
        graph.losses,
        problem.shared,
        problem.own,
        representation=graph.representation if with_representation else None,
        regularizer=graph.representation.square().sum(),
    )
    torch.testing.assert_close(grads(problem.shared), expected)


@pytest.mark.parametrize("method", METHODS)
def test_task_without_a_loss_takes_no_part(problem, method):
    tasks = (0, 2)
    reference = problem.graph(tasks)
    weighting = make(method)
    weighting.active = torch.tensor(tasks)
    expected = combine(weighting, jacobian_of(reference.losses, problem.shared), values(reference.losses))
    problem.own[1].append(nn.Parameter(torch.ones(2, dtype=torch.float64)))
    weighting = make(method)
    weighting.active = torch.tensor(tasks)
    graph = problem.graph(tasks)
    backward(weighting, graph.losses, problem.shared, [problem.own[task] for task in tasks])
    torch.testing.assert_close(grads(problem.shared), expected)
    assert problem.own[1][0].grad is None


@pytest.mark.parametrize("method", METHODS)
def test_parameters_whose_gradients_are_one_tensor_are_updated_once_each(method):
    first, second = (nn.Parameter(torch.zeros(3, dtype=torch.float64)) for _ in range(2))
    factors = torch.tensor([[1.0, -2, 3], [-1, 1, 1], [2, 2, -5]], dtype=torch.float64)

    def losses():
        mixed = torch.ones(3, dtype=torch.float64) + first + second
        return [(row * mixed).sum() + 9 for row in factors]

    one, two = gradients(losses()[0], [first, second])
    assert one.data_ptr() == two.data_ptr()  # the case that this test is about
    expected = combine(make(method), factors.repeat(1, 2), values(losses()))
    backward(make(method), losses(), [first, second], [[], [], []])
    torch.testing.assert_close(grads([first, second]), expected)
    if method in ("equal", "pcgrad", "mgda"):
        torch.testing.assert_close(first.grad, second.grad)
    before = second.grad.clone()
    first.grad.mul_(7)
    assert torch.equal(second.grad, before)


@pytest.mark.parametrize("heads", ["unweighted", "weighted"])
def test_task_parameters_whose_gradients_are_one_tensor_are_scaled_once_each(heads):
    shared = nn.Parameter(torch.ones(2, dtype=torch.float64))
    first, second = (nn.Parameter(torch.zeros(2, dtype=torch.float64)) for _ in range(2))
    losses = [((shared + first + second) * torch.tensor([3.0, 1])).sum(), (2 * shared).sum()]
    update = backward(make("mgda", num_tasks=2, head_loss=heads), losses, [shared], [[first, second], []])
    factor = update.weights[0] if heads == "weighted" else 1.0
    expected = factor * torch.tensor([3.0, 1], dtype=torch.float64)
    torch.testing.assert_close(first.grad, expected)
    torch.testing.assert_close(second.grad, expected)
    first.grad.mul_(7)
    torch.testing.assert_close(second.grad, expected)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_that_autograd_expands_can_be_written_to(method):
    shared, own = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(3))

    def losses():
        return [shared.sum() + own.sum() + 1, -2 * shared.sum() + 3, 4 * shared.sum() + 1]

    assert gradients(losses()[0], shared)[0].stride() == (0,)  # the case that this test is about
    expected = combine(make(method), torch.tensor([[1.0], [-2], [4]]).expand(3, 4), values(losses()))
    backward(make(method), losses(), [shared], [[own], [], []])
    torch.testing.assert_close(shared.grad, expected)
    for parameter in (shared, own):
        before = parameter.grad.clone()
        parameter.grad[0] *= 3
        assert parameter.grad.tolist() == [3 * before[0], *before[1:]]


@pytest.mark.parametrize("shape", [(2, 3, 4), (), (1,)])
@pytest.mark.parametrize("method", ["pcgrad", "graddrop"])
def test_gradients_have_the_shape_of_their_parameters(method, shape):
    parameters = [nn.Parameter(torch.randn(shape)), nn.Parameter(torch.randn(5))]
    losses = [(factor * parameters[0]).sum() + parameters[1].square().sum() for factor in (1.0, -2.0, 3.0)]
    backward(make(method), losses, parameters, [[], [], []])
    assert [parameter.grad.shape for parameter in parameters] == [shape, (5,)]
    torch.testing.assert_close(parameters[1].grad / parameters[1].grad[0], (parameters[1] / parameters[1][0]).detach())


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("method", ["mgda", "pcgrad", "gradnorm", "graddrop"])
def test_gradient_that_is_not_finite_is_refused_with_its_position(method, value, position):
    parameter = nn.Parameter(torch.ones(2))
    factors = torch.tensor([[1.0, 2], [-1, 1], [3, -1]])
    factors[position, 1] = value
    losses = [(row * parameter).sum() for row in factors]
    with pytest.raises(NonFiniteGradientError, match=f"the gradient of loss {position} is not finite") as raised:
        backward(make(method), losses, [parameter], [[], [], []])
    assert raised.value.position == position
    assert parameter.grad is None


def test_of_several_gradients_that_are_not_finite_the_first_is_named():
    parameter = nn.Parameter(torch.ones(2))
    losses = [(factor * parameter).sum() for factor in (1.0, math.inf, math.nan)]
    with pytest.raises(NonFiniteGradientError) as raised:
        backward(make("pcgrad"), losses, [parameter], [[], [], []])
    assert raised.value.position == 1


@pytest.mark.parametrize("method", ["pcgrad", "graddrop"])
def test_grad_wrt_representation_needs_a_representation(problem, method):
    with pytest.raises(ValueError, match="grad_wrt=representation needs a model with a shared representation"):
        backward(make(method, grad_wrt="representation"), problem.graph().losses, problem.shared, problem.own)


def test_a_weighting_of_no_known_kind_is_refused(problem):
    class Odd(Weighting):
        pass

    with pytest.raises(TypeError, match="Odd is none of the three kinds"):
        backward(Odd(), problem.graph().losses, problem.shared, problem.own)


def test_gram_matrix_holds_the_inner_products_over_all_tensors():
    rows = [[torch.tensor([[1.0, 2]]), torch.tensor(3.0)], [torch.tensor([[-1.0, 1]]), torch.tensor(2.0)]]
    gram = gram_matrix(rows)
    assert gram.dtype == torch.float64
    assert gram.tolist() == [[14, 7], [7, 6]]


@pytest.mark.parametrize(
    "shapes", [[(512, 512, 3, 3)], [(64, 64, 3, 3)] * 40], ids=["a large layer", "many small layers"]
)
def test_gram_matrix_is_precise_to_two_parts_in_a_hundred_thousand(shapes):
    generator = torch.Generator().manual_seed(0)
    rows = [[torch.randn(shape, generator=generator) + 0.1 for shape in shapes] for _ in range(3)]
    exact = gram_matrix([[part.double() for part in row] for row in rows])
    norms = exact.diagonal().sqrt()
    error = ((gram_matrix(rows) - exact).abs() / torch.outer(norms, norms)).max().item()
    assert error < 2e-5


@pytest.mark.parametrize("sizes", [(1.0, 1e20, 1e-24), (1e38, 1e-38, 1.0), (1e-42, 1e20, 1e20), (1e-24, 0.0, 1.0)])
def test_gram_matrix_of_gradients_whose_squares_float32_cannot_hold(sizes):
    generator = torch.Generator().manual_seed(0)
    shapes = [(70, 70), (5,), (0,)]
    rows = [[size * (torch.rand(shape, generator=generator) - 0.4) for shape in shapes] for size in sizes]
    exact = gram_matrix([[part.double() for part in row] for row in rows])
    lengths = torch.tensor([torch.cat([part.double().flatten() for part in row]).norm() for row in rows]).double()
    torch.testing.assert_close(exact.diagonal().sqrt(), lengths)
    unit = torch.outer(lengths, lengths)
    assert ((gram_matrix(rows) - exact).abs() <= 2e-5 * unit).all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_told_from_one_that_is_only_large(value):
    parameter = nn.Parameter(torch.ones(2))
    factors = torch.tensor([[1e20, -2e20], [-1e-24, 1e-24], [3, value]])
    losses = [(row * parameter).sum() for row in factors]
    with pytest.raises(NonFiniteGradientError, match="the gradient of loss 2 is not finite"):
        backward(make("mgda"), losses, [parameter], [[], [], []])


@pytest.mark.parametrize("method", [PCGrad, GradDrop])
def test_a_gradient_method_without_shared_parameters_is_refused(method):
    weighting = method()
    weighting.setup(2)
    own = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    with pytest.raises(ValueError, match="needs shared parameters, found none"):
        backward(weighting, [parameter.sum() for parameter in own], [], [[parameter] for parameter in own])


@pytest.mark.parametrize(
    ("method", "source", "with_representation"),
    [
        *((method, source, True) for method in GRAM_METHODS for source in SOURCES),
        *((method, "shared", False) for method in (*GRAM_METHODS, "graddrop")),
        ("graddrop", "shared", True),
        ("graddrop", "representation", True),
    ],
)
def test_passes_in_one_call_give_the_same_update(problem, method, source, with_representation, monkeypatch):
    found, calls = [], []
    plain = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *a, **k: (calls.append(k.get("is_grads_batched", False)), plain(*a, **k))[1]
    )
    for batched in (False, True):
        graph = problem.graph()
        for parameter in problem.parameters:
            parameter.grad = None
        update = backward(
            make(method, grad_wrt=source),
            graph.losses,
            problem.shared,
            problem.own,
            representation=graph.representation if with_representation else None,
            last_layer=problem.last_layer,
            want_gram=True,
            vmap=batched,
        )
        found.append((grads(problem.parameters), update.gram))
        assert any(calls) == (batched and source != "representation")
    torch.testing.assert_close(found[1][0], found[0][0])
    torch.testing.assert_close(found[1][1], found[0][1])


class Cube(torch.autograd.Function):
    """x ** 3, for which vmap is given no rule."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return torch.from_numpy(3 * grad.numpy() * x.detach().numpy() ** 2)


@pytest.mark.parametrize("with_representation", [True, False])
def test_passes_that_vmap_cannot_batch_run_one_after_the_other_with_one_warning(with_representation, caplog):
    _warn_of_refusal.cache_clear()
    shared, own = nn.Parameter(torch.ones(3)), [nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(-1.0))]
    for _ in range(2):
        shared.grad = own[0].grad = own[1].grad = None
        features = Cube.apply(shared)
        losses = [(factor * features).sum() for factor in own]
        weighting = METHODS["pcgrad"]()
        weighting.setup(2)
        backward(
            weighting,
            losses,
            [shared],
            [[factor] for factor in own],
            representation=features if with_representation else None,
            vmap=True,
        )
        assert [factor.grad.item() for factor in own] == [3, 3]
        torch.testing.assert_close(shared.grad, torch.zeros(3))  # 6 and -3, opposed
    assert len(caplog.messages) == 1
    assert "cannot be batched and are made one after the other" in caplog.messages[0]


def test_batched_passes_that_take_too_much_memory_are_not_made_one_after_the_other(monkeypatch):
    """The passes one by one would take as long once more, in each step."""
    take = torch.autograd.grad

    def fail(*arguments, is_grads_batched=False, **options):
        if is_grads_batched:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return take(*arguments, **options)

    monkeypatch.setattr(torch.autograd, "grad", fail)
    shared = nn.Parameter(torch.ones(3))
    weighting = METHODS["pcgrad"]()
    weighting.setup(2)
    with pytest.raises(torch.OutOfMemoryError):
        backward(weighting, [shared.sum(), -shared.sum()], [shared], [[], []], vmap=True)


@pytest.mark.parametrize("factor", [1e44, -1e44])
def test_weights_of_short_gradients_may_exceed_float32(factor):
    short, ordinary = [torch.full((3,), 1e-24)], [torch.ones(3)]
    expected = torch.full((3,), 1e-24).double() * factor + 2
    for gradients, weights in (([short, ordinary], [factor, 2.0]), ([ordinary, short], [2.0, factor])):
        torch.testing.assert_close(weighted_sum(gradients, weights)[0].double(), expected)


@pytest.mark.parametrize("size", [1e-24, 1.0, 1e20])
def test_the_shared_gradient_is_clipped_whatever_its_size(size):
    parameters = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad = torch.full((3,), size)
    expected = parameters[0].grad.double()
    clip_shared(parameters, 0.5)
    expected *= min(1.0, 0.5 / float(expected.norm()))
    torch.testing.assert_close(parameters[0].grad.double(), expected, rtol=1e-5, atol=0)
    assert parameters[1].grad is None
