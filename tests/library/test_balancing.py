"""`mtlrun.weighting`: in a loop of one's own, a weighting makes the update that the engine makes of the same losses."""

import io

import pytest
import torch
from helpers import weighting_node
from small import NEEDS, REFUSED, TASKS, WEIGHTS, Network, assert_same_grads, batch, grads, losses_of, part
from torch import nn
from torch.utils.checkpoint import checkpoint

import mtlrun
from mtlrun import gradients
from mtlrun.config.instantiate import build
from mtlrun.config.nodes import load_option
from mtlrun.config.options import shipped
from mtlrun.errors import ConfigError, DivergedError
from mtlrun.weightings import MGDA, PCGrad, Weighting

STEPS_PER_EPOCH = 2
METHODS = [name for name in shipped("weighting") if name not in REFUSED]


def make(name, **options):
    """Return the balancer of a shipped weighting, with what it needs from the start."""
    if NEEDS.get(name) == "steps_per_epoch":
        options["steps_per_epoch"] = STEPS_PER_EPOCH
    if NEEDS.get(name) == "weights":
        options["weights"] = WEIGHTS
    if NEEDS.get(name) == "primary":
        options["primary"] = TASKS[1]
    return mtlrun.weighting(name, **options)


def step(balance, network, data, tasks=TASKS, **options):
    """Make a training step with all that the weighting needs."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    features, losses = losses_of(network, data, tasks)
    need = NEEDS.get(balance.name)
    if need == "representation":
        options["representation"] = features
    if need == "parts":
        options["parts"] = [losses_of(network, part(data, number, 3), tasks)[1] for number in range(3)]
    if need == "performances":
        options["performances"] = dict.fromkeys(tasks, 0.3)
    if balance.name == "graddrop":  # draws a number for each entry of the gradient, in the order of the parameters
        options["shared"] = network.trunk.parameters()
    optimizer.zero_grad()
    update = balance.backward(losses, **options)
    optimizer.step()
    if need == "after_step":
        balance.after_step(losses_of(network, data, tasks)[1])
    return update


def engine_step(weighting, number, network, data, tasks=TASKS):
    """Make the same step with the engine, whose caller knows all parameters."""
    need = NEEDS.get(weighting.name_in_test)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    features, losses = losses_of(network, data, tasks)
    weighting.active = slice(None) if tasks is TASKS else torch.tensor([TASKS.index(name) for name in tasks])
    parts = [losses_of(network, part(data, number, 3), tasks)[1] for number in range(3)] if need == "parts" else []
    if need == "performances":
        weighting.observe_performance(torch.full((len(tasks),), 0.3))
    optimizer.zero_grad()
    weighting.zero_grad()
    gradients.backward(
        weighting,
        list(losses.values()),
        list(network.trunk.parameters()),
        [list(network.heads[name].parameters()) for name in tasks],
        representation=features if need == "representation" else None,
        parts=[list(each.values()) for each in parts],
    )
    optimizer.step()
    if need == "after_step":
        weighting.observe_losses_after_step(torch.stack(list(losses_of(network, data, tasks)[1].values())).detach())
    weighting.learn()
    if number % STEPS_PER_EPOCH == STEPS_PER_EPOCH - 1:
        weighting.epoch_ended()


def test_a_shipped_option_is_read_as_hydra_composes_it():
    for name in shipped("weighting"):
        read = set(load_option("weighting", name)) - {"variant", "variants"}
        assert read == weighting_node(name).keys(), name


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_every_weighting_trains_as_with_the_engine():
    """Five steps, in the third of which a task has no label; epochs are of two steps."""
    for name in METHODS:
        node = weighting_node(name)
        node |= {"weights": list(WEIGHTS.values())} if name == "static" else {}
        node |= {"primary": 1} if "primary" in node else {}
        weighting = build(node, "weighting", Weighting)
        weighting.setup(len(TASKS), seed=3)
        weighting.name_in_test = name
        balance, network, expected = make(name, seed=3), Network(), Network()
        for number in range(5):
            tasks = ["seg", "normals"] if number == 2 else TASKS
            step(balance, network, batch(number), tasks)
            engine_step(weighting, number, expected, batch(number), tasks)
            assert balance.step == number + 1
            for here, there in zip(network.parameters(), expected.parameters(), strict=True):
                torch.testing.assert_close(
                    here, there, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
                )


def test_micro_batches_give_the_update_of_the_whole_batch():
    """Two steps of three micro-batches; what needs the whole batch at once is refused before anything is done."""
    for name in METHODS:
        balance, whole, network, expected = make(name), make(name), Network(), Network()
        for number in range(2):
            data = batch(number)
            step(whole, expected, data)
            network.zero_grad()
            if NEEDS.get(name) in ("parts", "performances", "representation"):
                with pytest.raises(ConfigError, match="needs the whole batch of a step at once"):
                    balance.backward(losses_of(network, data)[1], last=False)
                assert all(gradient is None for gradient in grads(network).values())
                break
            for piece in range(3):
                _, losses = losses_of(network, part(data, piece, 3))
                thirds = {task: loss / 3 for task, loss in losses.items()}
                balance.backward(thirds, shared=network.trunk.parameters(), last=piece == 2)
            # The losses differ from those at once in their last digits.
            torch.optim.SGD(network.parameters(), lr=0.05).step()
            if NEEDS.get(name) == "after_step":
                balance.after_step(losses_of(network, data)[1])
            for here, there in zip(network.parameters(), expected.parameters(), strict=True):
                torch.testing.assert_close(
                    here, there, rtol=2e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
                )


def test_a_balancer_that_is_loaded_goes_on_as_if_it_had_never_stopped():
    for name in METHODS:
        network, balance = Network(), make(name)
        for number in range(2):
            step(balance, network, batch(number))
        file = io.BytesIO()
        torch.save({"network": network.state_dict(), "balance": balance.state_dict()}, file)
        file.seek(0)
        saved = torch.load(file, weights_only=True)
        again, later = Network(seed=1), make(name)
        again.load_state_dict(saved["network"])
        later.load_state_dict(saved["balance"])
        for number in range(2, 4):
            step(balance, network, batch(number))
            step(later, again, batch(number))
        for here, there in zip(network.parameters(), again.parameters(), strict=True):
            assert torch.equal(here, there), name
        assert later.step == 4


def test_what_is_named_and_what_is_found_give_the_same_update():
    """Shared parameters and the representation may be given; frozen ones are left out."""
    ways = {
        "found": lambda network, features: {},
        "named": lambda network, features: {"shared": network.trunk.parameters()},
        "representation": lambda network, features: {"representation": features},
        "both": lambda network, features: {"shared": network.trunk.parameters(), "representation": features},
    }
    for frozen in (False, True):
        networks = []
        for arguments in ways.values():
            network = Network()
            network.trunk[0].requires_grad_(not frozen)
            features, losses = losses_of(network, batch(0))
            mtlrun.weighting("upgrad").backward(losses, **arguments(network, features))
            networks.append(network)
        for network in networks[1:]:
            assert_same_grads(network, networks[0])
        assert (networks[0].trunk[0].weight.grad is None) == frozen


def test_a_division_of_the_parameters_that_would_lose_gradients_is_refused():
    network = Network()
    features, losses = losses_of(network, batch(0))

    def refused(text, losses=losses, tasks=None, **arguments):
        with pytest.raises(ConfigError, match=text):
            mtlrun.weighting("mgda", normalization="none", tasks=tasks).backward(losses, **arguments)
        assert all(gradient is None for gradient in grads(network).values())

    refused(
        "shared: several losses reach 2 parameters of shape .* that are not among them",
        shared=network.trunk[0].parameters(),
    )
    refused(
        "shared: several losses reach 2 parameters of shape .* that are not among them",
        shared=network.trunk[0].parameters(),
        representation=features,
    )
    refused("none of the losses depends on this tensor", representation=features.clone())
    refused("none of the losses depends on this tensor", representation=features.detach())
    around = losses | {"depth": losses["depth"] + network.trunk[0].weight.square().sum()}
    refused("the loss of depth also reaches 1 parameter of shape .* around it", around, representation=features)
    bias = {"seg": losses["seg"], "depth": losses["depth"] + network.heads["seg"].bias.sum()}
    refused("the losses of seg and depth reach 1 parameter of shape .* around it", bias, representation=features)
    refused("the first one lacks normals", {"seg": losses["seg"], "depth": losses["depth"]}, tasks=TASKS)
    apart = {name: head.bias.square().sum() for name, head in network.heads.items()}
    refused("needs parameters that several losses reach, and there are none", apart)
    hidden = network.heads["seg"](checkpoint(network.trunk, batch(0)[0].requires_grad_(), use_reentrant=True)).sum()
    refused("use_reentrant=False", {"seg": hidden, "depth": losses["depth"]})


def test_later_batches_keep_the_division_of_the_first():
    network, balance = Network(), mtlrun.weighting("pcgrad")
    balance.backward(losses_of(network, batch(0))[1])
    network.zero_grad()
    balance.backward(losses_of(network, batch(1), ["depth"])[1])  # a single loss: nothing is shared by it alone
    expected = Network()
    losses_of(expected, batch(1), ["depth"])[1]["depth"].backward()
    assert_same_grads(network, expected)
    _, losses = losses_of(network, batch(2))
    with pytest.raises(ConfigError, match="is reached by other losses than in the first batch"):
        balance.backward(losses | {"seg": losses["seg"] + network.heads["depth"].weight.sum()})
    with pytest.raises(ConfigError, match="losses: segg is none of the tasks; did you mean 'seg'"):
        balance.backward({"segg": losses["seg"]})


def test_inputs_that_require_gradients_are_no_shared_parameters():
    """A residual of a differential equation: derivatives of the network by its inputs, which both losses reach."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
    points = torch.linspace(0, 1, 5).unsqueeze(1).requires_grad_()
    values = network(points)
    (slopes,) = torch.autograd.grad(values.sum(), points, create_graph=True)
    losses = {"data": (values - 1).square().mean(), "physics": (slopes + values).square().mean()}
    mtlrun.weighting("mgda", normalization="none").backward(losses)
    found = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    values = network(points)
    (slopes,) = torch.autograd.grad(values.sum(), points, create_graph=True)
    losses = [(values - 1).square().mean(), (slopes + values).square().mean()]
    method = MGDA("none")
    method.setup(2)
    gradients.backward(method, losses, list(network.parameters()), [[], []])
    for here, parameter in zip(found, network.parameters(), strict=True):
        torch.testing.assert_close(here, parameter.grad)
    assert points.grad is None


def test_autocast_and_activation_checkpointing_give_about_the_same_update():
    plain, network = Network(), Network()
    mtlrun.weighting("cagrad").backward(losses_of(plain, batch(0))[1])
    trunk = network.trunk.forward
    network.trunk.forward = lambda inputs: checkpoint(trunk, inputs, use_reentrant=False)
    with torch.autocast("cpu", torch.bfloat16):
        _, losses = losses_of(network, batch(0))
        assert network.trunk(batch(0)[0]).dtype == torch.bfloat16
    mtlrun.weighting("cagrad").backward(losses)
    assert_same_grads(network, plain, rtol=0.1, atol=0.1)
    assert network.trunk[0].weight.grad.dtype == torch.float32


def test_a_penalty_joins_outside_of_the_weighting():
    plain, network = Network(), Network()
    mtlrun.weighting("mgda", normalization="none").backward(losses_of(plain, batch(0))[1])
    _, losses = losses_of(network, batch(0))
    mtlrun.weighting("mgda", normalization="none").backward(losses, regularizer=3 * network.trunk[0].weight.sum())
    torch.testing.assert_close(network.trunk[0].weight.grad, plain.trunk[0].weight.grad + 3)


def test_values_that_no_update_can_be_made_of_change_nothing():
    network, balance = Network(), mtlrun.weighting("uncertainty", tasks=TASKS)
    _, losses = losses_of(network, batch(0))
    before = balance.state_dict()["method"]["log_variance"].clone()
    for bad, text in ((float("nan"), "is not finite"), (-1e6, "works with losses of 0 or more")):
        with pytest.raises(DivergedError, match=f"step 1: the loss of task depth .*{text}") as caught:
            balance.backward(losses | {"depth": losses["depth"] + bad})
        assert (caught.value.task, caught.value.step) == ("depth", 1)
    root = network.trunk[0].weight[0, 0]
    infinite = losses | {"seg": losses["seg"] + (root - root.detach()).sqrt()}
    with pytest.raises(DivergedError, match="step 1: the gradient of task seg is not finite"):
        mtlrun.weighting("pcgrad").backward(infinite)
    assert all(gradient is None for gradient in grads(network).values())
    assert torch.equal(balance.method.log_variance, before)


def test_an_empty_batch_is_no_step():
    balance = mtlrun.weighting("pcgrad", tasks=TASKS)
    balance.backward({})
    assert balance.step == 0


def test_keys_are_those_of_the_command_line_with_their_defaults_and_bounds():
    assert mtlrun.weighting("CAGrad").method.c == 0.4
    assert mtlrun.weighting("gradnorm", variant="paper").method.grad_wrt == "last_layer"
    assert mtlrun.weighting("mgda", losses={"name": "imtl_l", "lr": 0.5}).method.losses.lr == 0.5
    balance = mtlrun.weighting("config", preferences={"seg": 1.0, "depth": 2.0})
    assert (balance.tasks, balance.method.preferences.tolist()) == (["seg", "depth"], [1.0, 2.0])
    balance = mtlrun.weighting("config", preferences={"seg": 1.0, "depth": 2.0}, tasks=["depth", "seg"])
    assert balance.method.preferences.tolist() == [2.0, 1.0]
    assert mtlrun.weighting(PCGrad(), tasks=TASKS).method.num_tasks == 3


WRONG = [
    (("cagrad",), {"cc": 1}, r"weighting\.cc: unknown key; did you mean 'c'"),
    (("cagrad",), {"c": -1.0}, r"weighting\.c must be"),
    (("gradnorm",), {"variant": "papre"}, r"weighting\.variant=papre: unknown variant; did you mean 'paper'"),
    (("cagrd",), {}, "weighting=cagrd: unknown option; did you mean 'cagrad'"),
    (("mgda",), {"losses": "pcgrad"}, "weighting.losses=pcgrad: unknown option"),
    (("static",), {}, "weighting.weights is missing"),
    (("static",), {"weights": ["size", 1.0]}, "weighting.weights: size is known of the data of a run only"),
    (("config",), {"preferences": {"a": 1.0}, "tasks": ["a", "b"]}, "must hold an entry for each task"),
    (("stch",), {}, "steps_per_epoch: weighting=stch counts epochs"),
    (("stch",), {"steps_per_epoch": 0}, "steps_per_epoch must be"),
    (("pcgrad",), {"seed": -1}, "seed must be"),
    (("pcgrad",), {"tasks": ["a", "a"]}, "tasks: each must have another name"),
    (("pcgrad",), {"tasks": ["a"]}, "combines the gradients of 2 tasks or more, found 1"),
    (("gcs",), {"tasks": ["a", "b"]}, "weighting.primary must name the task .* found null; the tasks are: a, b"),
    (("gcs",), {"primary": "c", "tasks": ["a", "b"]}, "weighting.primary must name the task .* found 'c'; the tasks"),
    (("auto_lambda",), {}, "works in a run only"),
    (("rotograd",), {}, "works in a run only"),
    ((PCGrad(),), {"c": 1}, "give keys with the name of a weighting"),
]


def test_what_cannot_work_is_refused_at_once():
    for arguments, keys, text in WRONG:
        with pytest.raises(ConfigError, match=text):
            mtlrun.weighting(*arguments, **keys)


def test_what_a_method_does_not_get_or_does_not_need_is_refused():
    network = Network()
    features, losses = losses_of(network, batch(0))
    halves = [losses_of(network, part(batch(0), number, 2))[1] for number in range(2)]
    cases = [
        ("mgda_ub", {}, {}, "representation: weighting=mgda_ub with grad_wrt=representation needs this tensor"),
        ("gradnorm", {"variant": "paper"}, {"representation": features}, "last_layer: .* needs its parameters"),
        ("modo", {}, {}, "parts: weighting=modo needs the losses of 3 parts of the batch, .* found 0"),
        ("modo", {}, {"parts": halves}, "found 2"),
        ("pcgrad", {}, {"parts": halves}, "parts: weighting=pcgrad needs none, found 2"),
        ("dtp", {}, {}, r"performances: weighting=dtp needs a number in \[0, 1\] for each task"),
        ("dtp", {}, {"performances": dict.fromkeys(TASKS, 2.0)}, r"must be in \[0, 1\]"),
        ("pcgrad", {}, {"performances": dict.fromkeys(TASKS, 0.5)}, "looks at none"),
    ]
    for name, keys, arguments, text in cases:
        with pytest.raises(ConfigError, match=text):
            mtlrun.weighting(name, **keys).backward(losses, **arguments)
    for bad in (1.0, losses["seg"].detach(), features):
        with pytest.raises(ConfigError, match="losses: seg must be a scalar tensor that requires gradients, found"):
            mtlrun.weighting("pcgrad").backward(losses | {"seg": bad})
    famo = mtlrun.weighting("famo")
    famo.backward(losses)
    with pytest.raises(ConfigError, match="after_step: needs the losses of seg, depth, normals, found seg"):
        famo.after_step({"seg": losses["seg"]})
    with pytest.raises(ConfigError, match="call after_step with the losses of the same batch"):
        famo.backward(losses)
    with pytest.raises(ConfigError, match="state_dict: in the midst of a step"):
        famo.state_dict()
    with pytest.raises(ConfigError, match="asks for no losses after this step"):
        mtlrun.weighting("pcgrad").after_step(losses)


def test_a_state_of_another_weighting_or_of_other_tasks_is_refused():
    state = mtlrun.weighting("pcgrad", tasks=TASKS).state_dict()
    with pytest.raises(ConfigError, match="the state is of weighting=pcgrad, and here it is upgrad"):
        mtlrun.weighting("upgrad").load_state_dict(state)
    with pytest.raises(ConfigError, match="the state is of tasks="):
        mtlrun.weighting("pcgrad", tasks=["seg", "depth"]).load_state_dict(state)


def test_one_of_several_processes_is_refused_without_their_group(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    network = Network()
    with pytest.raises(ConfigError, match="process_group: several processes train together"):
        mtlrun.weighting("equal").backward(losses_of(network, batch(0))[1])
    assert all(gradient is None for gradient in grads(network).values())
