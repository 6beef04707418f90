"""`backward` on the modules that trunks are made of, against gradients taken task by task with plain autograd.

The reference runs on a copy of the network, with the same random numbers: so it also sees what a step leaves behind in
buffers, and whether all rows belong to one and the same forward pass.
"""

import copy
import weakref
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from helpers import slow_unless
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

from mtlrun.gradients import backward, gram_matrix
from mtlrun.models import HardSharing
from mtlrun.models.backbones import Backbone
from mtlrun.tasks import Regression
from mtlrun.weightings import MGDA, GradDrop, MoDo, PCGrad, Uncertainty

METHODS = {
    "uncertainty": Uncertainty,
    "pcgrad": PCGrad,
    "mgda": MGDA,
    "graddrop": GradDrop,
    "modo": lambda **options: MoDo(gamma=0.05, **options),
}
GRAM_METHODS = ("pcgrad", "mgda")
WEIGHTED_HEADS = ("uncertainty", "mgda")
NUM_PARTS = 3

methods = pytest.mark.parametrize("method", METHODS)
with_and_without = pytest.mark.parametrize("with_representation", [True, False], ids=["representation", "whole"])


# ------------------------------------------------------------------------------------------------------- networks


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, inputs):
        return self.function(inputs)


class LastState(nn.Module):
    """The last output of a recurrent network: a slice, not contiguous."""

    def __init__(self, kind):
        super().__init__()
        self.cells = kind(2, 3, num_layers=2, dropout=0.3, bidirectional=True, batch_first=True)

    def forward(self, inputs):
        return self.cells(inputs.unflatten(1, (3, 2)))[0][:, -1]


class Attention(nn.Module):
    """Self-attention with a residual connection, averaged over the sequence."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(2, 4)
        self.attend = nn.MultiheadAttention(4, 2, dropout=0.2, batch_first=True)

    def forward(self, inputs):
        tokens = self.embed(inputs.unflatten(1, (3, 2)))
        return (tokens + self.attend(tokens, tokens, tokens, need_weights=False)[0]).mean(dim=1)


class Tied(nn.Module):
    """One matrix used three times, once of these transposed."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.again = self.layer

    def forward(self, inputs):
        hidden = torch.tanh(self.again(torch.tanh(self.layer(inputs))))
        return functional.linear(hidden, self.layer.weight.T)


class Branches(nn.Module):
    """A common layer, then one branch for even and one for odd tasks, side by side in one tensor."""

    def __init__(self):
        super().__init__()
        self.common = nn.Linear(6, 6)
        self.even = nn.Linear(6, 4)
        self.odd = copy.deepcopy(self.even)

    def forward(self, inputs):
        hidden = torch.tanh(self.common(inputs))
        return torch.cat([self.even(hidden), self.odd(hidden)], dim=1)


def perceptron(*last):
    return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), *last)


def encoder():
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.2, batch_first=True)
    return nn.Sequential(nn.Unflatten(1, (3, 2)), nn.Linear(2, 4), layer, nn.Flatten())


def frozen_in_places():
    trunk = nn.Sequential(
        nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 5)
    )
    for position in (0, 3, 6):
        trunk[position].requires_grad_(False)
    trunk[5].bias.requires_grad_(False)
    return trunk


TRUNKS = {
    "batch norm": lambda: nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 5)),
    "batch norm of images": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten()
    ),
    "dropout": lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 6), nn.Dropout(0.3)),
    "lstm": lambda: LastState(nn.LSTM),
    "gru": lambda: LastState(nn.GRU),
    "attention": Attention,
    "transformer": encoder,
    "tied": Tied,
    "weight norm": lambda: nn.Sequential(weight_norm(nn.Linear(6, 6)), nn.Tanh(), nn.Linear(6, 5)),
    "frozen in places": frozen_in_places,
    "branches": Branches,
    "view": lambda: perceptron(nn.Unflatten(1, (2, 3))),
    "transposed": lambda: perceptron(Apply(lambda hidden: hidden.unflatten(1, (2, 3)).transpose(1, 2))),
    "expanded": lambda: perceptron(Apply(lambda hidden: hidden.unsqueeze(1).expand(-1, 2, -1))),
    "every second column": lambda: perceptron(Apply(lambda hidden: hidden[:, ::2])),
}


class Network(nn.Module):
    """A trunk and a head per task, and a batch on which the tasks are at odds."""

    def __init__(self, trunk, num_tasks=3, dtype=torch.float64):
        super().__init__()
        self.trunk = TRUNKS[trunk]().to(dtype) if isinstance(trunk, str) else trunk
        generator = torch.Generator().manual_seed(5)
        self.inputs = torch.randn(8, 6, generator=generator, dtype=torch.float64).to(dtype)
        noise = torch.randn(num_tasks, 8, generator=generator, dtype=torch.float64).to(dtype)
        signs = torch.tensor([(-1.0) ** task * (1 + task % 3) for task in range(num_tasks)])
        self.targets = 2 * signs.to(dtype)[:, None] + noise
        self.num_tasks = num_tasks
        with torch.no_grad():
            self.eval()
            width = self.features(self.trunk(self.inputs), 0).shape[1]
            self.train()
        # Heads that begin alike, for targets of either sign.
        head = nn.Sequential(nn.Linear(width, 4), nn.Tanh(), nn.Linear(4, 1)).to(dtype)
        self.heads = nn.ModuleList(copy.deepcopy(head) for _ in range(num_tasks))
        for parameter in self.heads.parameters():
            parameter.data += 0.03 * torch.randn(parameter.shape, dtype=dtype)

    def features(self, representation, task):
        flat = representation.flatten(1)
        return flat.chunk(2, dim=1)[task % 2] if isinstance(self.trunk, Branches) else flat

    def graph(self, trunk=None):
        """Run the network, or `trunk` in the place of its own."""
        representation = (trunk or self.trunk)(self.inputs)
        errors = [
            (head(self.features(representation, task)).squeeze(1) - target).square()
            for task, (head, target) in enumerate(zip(self.heads, self.targets, strict=True))
        ]
        return SimpleNamespace(
            representation=representation,
            losses=[error.mean() for error in errors],
            parts=[[error[part::NUM_PARTS].mean() for error in errors] for part in range(NUM_PARTS)],
        )

    def shared(self):
        return [parameter for parameter in self.trunk.parameters() if parameter.requires_grad]

    def own(self):
        return [list(head.parameters()) for head in self.heads]


# ------------------------------------------------------------------------------------------------------ reference


def make(method, num_tasks=3, **options):
    """Make a weighting that is not the same as equal weights."""
    weighting = METHODS[method](**copy.deepcopy(options))
    weighting.setup(num_tasks, seed=4)
    if method == "uncertainty":
        weighting.log_variance.data = torch.linspace(-0.5, 0.5, num_tasks)
    return weighting


def run(network, weighting, method, graph, with_representation, **options):
    """Call what is tested."""
    return backward(
        weighting,
        graph.losses,
        network.shared(),
        network.own(),
        representation=graph.representation if with_representation else None,
        parts=graph.parts if method == "modo" else (),
        **options,
    )


def flat(tensors):
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def values(losses):
    return torch.stack(losses).detach()


def gradients(output, inputs):
    if not inputs:
        return ()
    return torch.autograd.grad(output, inputs, retain_graph=True, allow_unused=True, materialize_grads=True)


def jacobian_of(losses, inputs):
    return torch.stack([flat(gradients(loss, inputs)) for loss in losses])


def fill_by_hand(method, graph, shared, own, weighting, weights=None):
    """Do what `backward` is to do with K calls of autograd.grad and the method's formula.

    Returns:
        The weights [K], None for a method that has none, and the Gram matrix, None for a method of several parts.
    """
    losses, gram, factors = graph.losses, None, torch.ones(len(graph.losses))
    if method == "modo":
        rows = [jacobian_of(part, shared) for part in graph.parts]
        direction = weighting.combine_parts(rows, torch.stack([values(part) for part in graph.parts]))
        losses = [torch.stack(of_task).mean() for of_task in zip(*graph.parts, strict=True)]
    else:
        rows = jacobian_of(losses, shared)
        gram = rows.double() @ rows.double().T
    if method == "graddrop":
        direction = weighting.combine(rows, values(losses))
    if method in GRAM_METHODS and weights is None:
        weights = weighting.task_weights(gram, values(losses).double())
    if method == "uncertainty":
        log_variance = weighting.log_variance.detach()
        weighting.log_variance.grad = 0.5 - 0.5 * torch.exp(-log_variance) * values(losses).float()
        weights = 0.5 * torch.exp(-log_variance) if weights is None else weights
    if weights is not None:
        direction = weights.to(rows) @ rows
        factors = weights if method in WEIGHTED_HEADS else factors
    pieces = direction.split([parameter.numel() for parameter in shared])
    for parameter, piece in zip(shared, pieces, strict=True):
        parameter.grad = piece.view_as(parameter).to(parameter.dtype)
    for loss, parameters, factor in zip(losses, own, factors.tolist(), strict=True):
        for parameter, gradient in zip(parameters, gradients(loss, parameters), strict=True):
            parameter.grad = factor * gradient
    plain = jacobian_of(losses, shared).sum(dim=0)
    for sum_or_mean in (plain, plain / len(losses)):
        # Otherwise every method would pass for every other.
        assert (direction - sum_or_mean).norm() > 1e-3 * plain.norm()
    return weights, gram


def assert_same_gradients(network, twin, deviation=None):
    """Assert that `.grad` and buffers agree; to within `deviation` of the norm of the whole gradient where given."""
    expected = dict(twin.named_parameters())
    whole = flat([parameter.grad.double() for parameter in twin.parameters() if parameter.grad is not None]).norm()
    for name, parameter in network.named_parameters():
        wanted = expected[name].grad
        assert (parameter.grad is None) == (wanted is None), name
        assert (wanted is None) == (not parameter.requires_grad), name
        if wanted is None:
            continue
        if deviation is None:
            exact = {"rtol": 1e-9, "atol": 1e-11} if wanted.dtype == torch.float64 else {}
            torch.testing.assert_close(parameter.grad, wanted, msg=lambda text, of=name: f"{of}: {text}", **exact)
        else:
            assert (parameter.grad - wanted).norm() <= deviation * whole, name
    torch.testing.assert_close(dict(network.named_buffers()), dict(twin.named_buffers()))


def compare_with_reference(network, method, with_representation, *, trunk=None, context=nullcontext, deviation=None):
    """Make one step, and the same on a copy with plain autograd; `trunk` runs in the place of the network's own."""
    twin = copy.deepcopy(network)
    num_tasks = network.num_tasks
    weighting, by_hand = make(method, num_tasks), make(method, num_tasks)
    torch.manual_seed(11)
    with context():
        graph = network.graph(trunk)
    update = run(network, weighting, method, graph, with_representation)
    torch.manual_seed(11)
    with context():
        reference = twin.graph()
    weights, gram = fill_by_hand(method, reference, twin.shared(), twin.own(), by_hand)
    assert_same_gradients(network, twin, deviation)
    assert (update.weights is None) == (weights is None)
    if weights is not None:
        torch.testing.assert_close(update.weights.double(), weights.double(), rtol=1e-5, atol=1e-6)
    if method in GRAM_METHODS:
        torch.testing.assert_close(update.gram, gram, rtol=1e-5, atol=1e-7)
    for parameter, wanted in zip(weighting.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, wanted.grad)
    return graph


# ----------------------------------------------------------------------------------------------------- one step


@pytest.mark.parametrize("num_tasks", slow_unless(lambda number: number == 3, [(2,), (3,), (8,)]))
@with_and_without
@methods
@pytest.mark.parametrize("trunk", TRUNKS)
def test_gradients_are_those_of_the_plain_reference(trunk, method, with_representation, num_tasks):
    compare_with_reference(Network(trunk, num_tasks), method, with_representation)


@with_and_without
@methods
def test_running_statistics_are_updated_once_per_step(method, with_representation):
    network = Network("batch norm")
    seen = network.trunk[0](network.inputs).detach()
    run(network, make(method), method, network.graph(), with_representation)
    normalization = network.trunk[1]
    assert normalization.num_batches_tracked == 1
    torch.testing.assert_close(normalization.running_mean, 0.1 * seen.mean(dim=0))
    torch.testing.assert_close(normalization.running_var, 0.9 + 0.1 * seen.var(dim=0))


@with_and_without
@methods
def test_all_tasks_see_the_same_dropout_mask(method, with_representation):
    network = Network(nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5)).double())
    twin = copy.deepcopy(network)
    graph = network.graph()
    kept = graph.representation != 0
    assert 0.2 < kept.double().mean() < 0.8
    run(network, make(method), method, graph, with_representation)
    reference = twin.graph(lambda inputs: 2 * kept * twin.trunk[0](inputs))
    fill_by_hand(method, reference, twin.shared(), twin.own(), make(method))
    assert_same_gradients(network, twin)


@methods
def test_parameters_that_only_some_tasks_reach_get_the_gradients_of_these(method):
    network = Network(perceptron().double())
    adapter = nn.Linear(6, 1).double()  # beside the representation, and of no concern to the last task
    twin, adapter_of_twin = copy.deepcopy(network), copy.deepcopy(adapter)

    def graph_of(network, adapter):
        graph = network.graph()
        extra = adapter(network.inputs).squeeze(1)
        for losses in (graph.losses, *graph.parts):
            losses[0] = losses[0] + (extra - 1).square().mean()
            losses[1] = losses[1] + (extra + 2).square().mean()
        return graph

    graph = graph_of(network, adapter)
    shared = [*network.shared(), *adapter.parameters()]
    parts = graph.parts if method == "modo" else ()
    backward(make(method), graph.losses, shared, network.own(), parts=parts)
    reference = graph_of(twin, adapter_of_twin)
    rows = jacobian_of(reference.losses, list(adapter_of_twin.parameters()))
    assert rows[:2].abs().min() > 0
    assert rows[2].tolist() == [0] * 7
    shared = [*twin.shared(), *adapter_of_twin.parameters()]
    fill_by_hand(method, reference, shared, twin.own(), make(method))
    assert_same_gradients(network, twin)
    assert_same_gradients(adapter, adapter_of_twin)


@with_and_without
@methods
def test_frozen_parameters_of_a_model_are_left_alone(method, with_representation):
    def backbone():
        return Backbone([frozen_in_places()], (6,))

    tasks = {name: Regression() for name in "abc"}
    model = HardSharing(tasks, backbone).double()
    model.heads["b"].requires_grad_(False)
    twin = copy.deepcopy(model)
    inputs, targets = torch.randn(8, 6, dtype=torch.float64), torch.randn(3, 8, 1, dtype=torch.float64)

    def graph_of(model):
        representation = model.encode(inputs)
        predictions = model.decode(representation)
        errors = [
            (predictions[name] - scale * target).square().squeeze(1)
            for name, scale, target in zip(tasks, (1, -2, 3), targets, strict=True)
        ]
        parts = [[error[part::3].mean() for error in errors] for part in range(3)]
        return SimpleNamespace(losses=[error.mean() for error in errors], parts=parts, representation=representation)

    graph = graph_of(model)
    backward(
        make(method),
        graph.losses,
        model.shared_parameters(),
        list(model.task_parameters().values()),
        representation=graph.representation if with_representation else None,
        parts=graph.parts if method == "modo" else (),
    )
    shared = [parameter for parameter in twin.trunk.parameters() if parameter.requires_grad]
    own = [list(twin.heads["a"].parameters()), [], list(twin.heads["c"].parameters())]
    reference = graph_of(twin)
    fill_by_hand(method, reference, shared, own, make(method))
    assert_same_gradients(model, twin)
    assert sum(parameter.grad is None for parameter in model.parameters()) == 7 + len(
        list(model.heads["b"].parameters())
    )


class TwoPrecisions(nn.Module):
    """A layer in float32 before one in float64."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 5).double()

    def forward(self, inputs):
        return self.second(torch.tanh(self.first(inputs.float())).double())


@with_and_without
@methods
def test_parameters_of_one_trunk_may_differ_in_precision(method, with_representation):
    network = Network(TwoPrecisions())
    compare_with_reference(network, method, with_representation)
    assert network.trunk.first.weight.grad.dtype == torch.float32
    assert network.trunk.second.weight.grad.dtype == torch.float64


# -------------------------------------------------------------------------------------------- how the trunk is run


@with_and_without
@methods
@pytest.mark.parametrize("trunk", ["dropout", "gru", "transformer"])
def test_a_checkpointed_trunk_gives_what_the_plain_trunk_gives(trunk, method, with_representation):
    network = Network(trunk)

    def checkpointed(inputs):
        return checkpoint(network.trunk, inputs, use_reentrant=False)

    compare_with_reference(network, method, with_representation, trunk=checkpointed)


@pytest.mark.parametrize(
    ("method", "options", "passes"),
    [
        ("uncertainty", {}, 1),
        ("pcgrad", {}, 3),
        ("graddrop", {}, 3),
        ("modo", {}, 9),
        ("pcgrad", {"grad_wrt": "representation"}, 1),
        ("graddrop", {"grad_wrt": "representation"}, 1),
    ],
)
def test_a_checkpointed_trunk_is_run_again_once_for_each_pass(method, options, passes):
    network = Network("dropout")
    calls = []
    network.trunk.register_forward_pre_hook(lambda *_: calls.append(1))
    graph = network.graph(lambda inputs: checkpoint(network.trunk, inputs, use_reentrant=False))
    assert len(calls) == 1
    run(network, make(method, **options), method, graph, with_representation=True)
    assert len(calls) - 1 == passes


def bfloat16():
    return torch.autocast("cpu", dtype=torch.bfloat16)


@with_and_without
@methods
@pytest.mark.parametrize("trunk", ["batch norm", "transformer", "tied"])
def test_under_autocast_gradients_are_those_of_the_reference_under_autocast(trunk, method, with_representation):
    network = Network(trunk, dtype=torch.float32)
    # These send sums of losses through the trunk or the heads, and the reference each loss alone.
    deviation = 0.02 if method in ("uncertainty", "modo") else 1e-5
    graph = compare_with_reference(network, method, with_representation, context=bfloat16, deviation=deviation)
    assert graph.representation.dtype == torch.bfloat16
    assert {parameter.grad.dtype for parameter in network.parameters()} == {torch.float32}


@with_and_without
# Not graddrop: a rounded entry may change its sign.
@pytest.mark.parametrize("method", ["uncertainty", "pcgrad", "mgda", "modo"])
def test_under_autocast_gradients_are_near_those_in_double_precision(method, with_representation):
    network = Network(perceptron(), dtype=torch.float32)
    exact = copy.deepcopy(network).double()
    exact.inputs, exact.targets = network.inputs.double(), network.targets.double()
    with bfloat16():
        graph = network.graph()
    update = run(network, make(method), method, graph, with_representation)
    fill_by_hand(method, exact.graph(), exact.shared(), exact.own(), make(method), update.weights)
    for ours, theirs in zip([network.shared(), *network.own()], [exact.shared(), *exact.own()], strict=True):
        found, expected = flat([p.grad for p in ours]).double(), flat([p.grad for p in theirs])
        assert (found - expected).norm() <= 0.05 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [50, 9000])
def test_gram_matrix_of_rows_in_half_precision_loses_nothing_more(dtype, size):
    # Rows at the representation under autocast. Squares beyond 65504 do not fit into float16.
    rows = [[(100 * torch.randn(size)).to(dtype)] for _ in range(3)]
    exact = gram_matrix([[part.double() for part in row] for row in rows])
    norms = exact.diagonal().sqrt()
    error = ((gram_matrix(rows) - exact).abs() / torch.outer(norms, norms)).max().item()
    assert error < 2e-5


@pytest.fixture
def _compiler():
    yield
    torch.compiler.reset()


@pytest.mark.exhaustive  # tests/training/test_compiled.py has a sample, by `trainer.compile`
@pytest.mark.usefixtures("_compiler")
@with_and_without
@methods
def test_a_compiled_trunk_gives_what_the_plain_trunk_gives(method, with_representation):
    network = Network(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh(), Attention()).double())
    network.trunk[3].attend.dropout = 0.0  # the compiler draws other random numbers
    compiled = torch.compile(network.trunk, backend="aot_eager", fullgraph=True)
    graph = compare_with_reference(network, method, with_representation, trunk=compiled)
    assert "Compiled" in type(graph.representation.grad_fn).__name__


@pytest.mark.slow
@pytest.mark.usefixtures("_compiler")
@methods
def test_a_model_that_is_compiled_whole_gives_what_the_plain_model_gives(method):
    network = Network("batch norm")
    twin = copy.deepcopy(network)

    def losses_and_parts():
        graph = network.graph()
        return graph.losses, graph.parts

    losses, parts = torch.compile(losses_and_parts, backend="aot_eager")()
    graph = SimpleNamespace(losses=losses, parts=parts)
    assert "Compiled" in type(graph.losses[0].grad_fn).__name__
    run(network, make(method), method, graph, with_representation=False)
    fill_by_hand(method, twin.graph(), twin.shared(), twin.own(), make(method))
    assert_same_gradients(network, twin)


# --------------------------------------------------------------------------------------------- several whole steps


def everything():
    return nn.Sequential(
        nn.Unflatten(1, (3, 2)), nn.Linear(2, 4), nn.TransformerEncoderLayer(4, 2, 8, dropout=0.2, batch_first=True),
        nn.Flatten(), nn.Linear(12, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.2), Tied(),
    )  # fmt: skip


@with_and_without
@methods
def test_steps_of_training_lead_where_a_plain_loop_leads(method, with_representation):
    network = Network(everything().double())
    twin = copy.deepcopy(network)
    before = flat(network.parameters()).detach().clone()
    weighting, by_hand = make(method), make(method)

    def optimizer_of(network, weighting):
        return torch.optim.SGD([*network.parameters(), *weighting.parameters()], lr=0.02, momentum=0.9)

    optimizer, plain_optimizer = optimizer_of(network, weighting), optimizer_of(twin, by_hand)
    for number in range(4):
        torch.manual_seed(number)
        optimizer.zero_grad()
        update = run(network, weighting, method, network.graph(), with_representation)
        optimizer.step()
        torch.manual_seed(number)
        plain_optimizer.zero_grad()
        weights, _ = fill_by_hand(method, twin.graph(), twin.shared(), twin.own(), by_hand)
        plain_optimizer.step()
        if weights is not None:
            torch.testing.assert_close(update.weights.double(), weights.double(), rtol=1e-5, atol=1e-6)
    # The weights of uncertainty are kept in single precision.
    torch.testing.assert_close(dict(network.state_dict()), dict(twin.state_dict()), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(dict(weighting.named_parameters()), dict(by_hand.named_parameters()))
    torch.testing.assert_close(dict(weighting.named_buffers()), dict(by_hand.named_buffers()))
    assert network.trunk[5].num_batches_tracked == 4
    assert (flat(network.parameters()) - before).norm() > 0.05 * before.norm()


# ----------------------------------------------------------------------------------------- what is kept of the graph


class Saved:
    """What autograd keeps of a forward pass, so that its end can be seen."""

    def __init__(self, tensor):
        self.tensor = tensor


class Watch:
    """Counts the tensors that autograd has saved and not yet let go of."""

    def __init__(self):
        self.alive = weakref.WeakSet()

    def __call__(self):
        def pack(tensor):
            saved = Saved(tensor.detach())  # a graph that held its own output would never end
            self.alive.add(saved)
            return saved

        return torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor)


STEPS = {
    "uncertainty": ("uncertainty", {}, True),
    "uncertainty, whole": ("uncertainty", {}, False),
    "pcgrad": ("pcgrad", {}, True),
    "pcgrad, whole": ("pcgrad", {}, False),
    "pcgrad of a weighting": ("pcgrad", {"losses": Uncertainty()}, True),
    "pcgrad at the representation": ("pcgrad", {"grad_wrt": "representation"}, True),
    "mgda": ("mgda", {}, True),
    "mgda, whole": ("mgda", {}, False),
    "mgda of logarithms": ("mgda", {"loss_transform": "log"}, True),
    "graddrop": ("graddrop", {}, True),
    "graddrop, whole": ("graddrop", {}, False),
    "graddrop at the representation": ("graddrop", {"grad_wrt": "representation"}, True),
    "modo": ("modo", {}, True),
    "modo, whole": ("modo", {}, False),
    "modo at the representation": ("modo", {"grad_wrt": "representation"}, True),
}
steps = pytest.mark.parametrize("step", STEPS)


def assert_graph_is_freed(network, graph, method):
    """Assert that neither a loss nor the representation can be sent through the trunk once more."""
    shared = network.shared()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(graph.representation.sum(), shared)
    for loss in [*graph.losses, *(loss for part in graph.parts for loss in part if method == "modo")]:
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            torch.autograd.grad(loss, shared, allow_unused=True)


@steps
def test_the_graph_is_freed_by_the_step(step):
    method, options, with_representation = STEPS[step]
    network = Network(perceptron().double())
    graph = network.graph()
    jacobian_of(graph.losses, network.shared())  # not freed before
    run(network, make(method, **options), method, graph, with_representation)
    assert_graph_is_freed(network, graph, method)


@pytest.mark.parametrize("method", ["uncertainty", "graddrop"])
@with_and_without
def test_the_graph_is_freed_when_the_gram_matrix_is_wanted_for_the_log(method, with_representation):
    network = Network(perceptron().double())
    graph = network.graph()
    update = run(network, make(method), method, graph, with_representation, want_gram=True)
    assert update.gram is not None
    assert_graph_is_freed(network, graph, method)


@with_and_without
@pytest.mark.parametrize("method", ["pcgrad", "graddrop"])
def test_the_graph_is_freed_if_a_regularizer_uses_the_features(method, with_representation):
    network = Network(perceptron().double())
    graph = network.graph()
    penalty = graph.representation.square().sum()
    run(network, make(method), method, graph, with_representation, regularizer=penalty)
    assert_graph_is_freed(network, graph, method)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(penalty, network.shared())


@with_and_without
def test_the_graph_is_freed_with_gradients_with_respect_to_the_last_layer(with_representation):
    network = Network(perceptron().double())
    graph = network.graph()
    weighting = make("pcgrad", grad_wrt="last_layer" if with_representation else "shared")
    last_layer = list(network.trunk[2].parameters())
    run(network, weighting, "pcgrad", graph, with_representation, last_layer=last_layer)
    assert_graph_is_freed(network, graph, "pcgrad")


@pytest.mark.parametrize("heads", ["unweighted", "weighted"])
@with_and_without
def test_the_graph_is_freed_by_a_step_with_weights_of_an_earlier_one(heads, with_representation):
    network = Network(perceptron().double())
    weighting = make("pcgrad", update_weights_every=2, head_loss=heads)
    assert run(network, weighting, "pcgrad", network.graph(), with_representation).gram is not None
    network.zero_grad()
    graph = network.graph()
    assert run(network, weighting, "pcgrad", graph, with_representation).gram is None
    assert_graph_is_freed(network, graph, "pcgrad")


@steps
def test_activations_of_the_trunk_are_let_go_while_the_losses_are_still_held(step):
    method, options, with_representation = STEPS[step]
    network, watch = Network(everything().double()), Watch()

    def watched(inputs):
        with watch():
            return network.trunk(inputs)

    graph = network.graph(watched)
    assert len(watch.alive) > 20
    run(network, make(method, **options), method, graph, with_representation)
    assert len(watch.alive) == 0
    assert all(loss.grad_fn is not None for loss in graph.losses)


@steps
def test_no_activation_outlives_the_losses(step):
    method, options, with_representation = STEPS[step]
    network, watch = Network(everything().double()), Watch()
    hidden = []
    network.trunk[4].register_forward_hook(lambda module, inputs, output: hidden.append(weakref.ref(output)))
    with watch():
        graph = network.graph()
    weighting = make(method, **options)
    update = run(network, weighting, method, graph, with_representation)
    del graph
    assert len(watch.alive) == 0
    assert hidden[0]() is None
    gradients_left = [parameter.grad for parameter in (*network.parameters(), *weighting.parameters())]
    kept = [update.weights, update.gram, *gradients_left, *weighting.buffers()]
    assert not any(tensor.requires_grad for tensor in kept if tensor is not None)


@methods
def test_activations_are_held_as_long_as_the_losses_where_no_step_is_made(method):
    network, watch = Network(everything().double()), Watch()
    with watch():
        graph = network.graph()
    jacobian_of(graph.losses, network.shared())
    assert len(watch.alive) > 20  # so that the tests above see something end
    del graph
    assert len(watch.alive) == 0
