"""DSelect-k."""

from functools import partial
from math import log

import pytest
import torch

from mtlrun.models import DSelectK
from mtlrun.models.backbones import MLP
from mtlrun.models.blocks.sparse_gate import DSelectKGate, select, smooth_step


@pytest.mark.parametrize("gamma", [1.0, 0.3, 4.0])
def test_smooth_step_is_the_polynomial_between_exactly_zero_and_one(gamma):
    t = torch.linspace(-0.5, 0.5, 11) * gamma
    torch.testing.assert_close(smooth_step(t, gamma), -2 / gamma**3 * t**3 + 3 / (2 * gamma) * t + 0.5)
    outside = smooth_step(torch.tensor([-9.0, -0.5, 0.5, 9.0]) * gamma, gamma)
    assert outside.tolist() == [0.0, 0.0, 1.0, 1.0]


def test_smooth_step_has_a_gradient_inside_and_none_outside():
    t = torch.tensor([-3.0, -1.0, 0.0, 0.5, 1.0, 3.0], requires_grad=True)
    smooth_step(t, 2.0).sum().backward()
    torch.testing.assert_close(t.grad, torch.tensor([0.0, 0.0, 0.75, 0.5625, 0.0, 0.0]))


def test_select_multiplies_the_bits_of_each_expert_s_number():
    high, low = 0.3, 0.9
    expected = torch.tensor([0.7 * 0.1, 0.7 * 0.9, 0.3 * 0.1, 0.3 * 0.9])
    torch.testing.assert_close(select(torch.tensor([high, low]), 4), expected)
    torch.testing.assert_close(select(torch.tensor([[high, low]] * 2), 3), expected[:3].expand(2, 3))


@pytest.mark.parametrize("number", range(6))
def test_bits_of_zero_and_one_select_one_expert(number):
    bits = torch.tensor([float(bit) for bit in f"{number:03b}"])
    assert select(bits, 6).tolist() == [float(index == number) for index in range(6)]


def test_selectors_are_weighted_by_a_softmax():
    gate = DSelectKGate(4, 2, gamma=1.0, size=None)
    gate.z.bias.data = torch.tensor([9.0, -9.0, -9.0, -9.0])  # experts 2 and 0
    gate.w.bias.data = torch.tensor([3.0, 1.0]).log()
    weights, r = gate(torch.zeros(5, 7))
    torch.testing.assert_close(weights, torch.tensor([0.25, 0.0, 0.75, 0.0]))
    assert r.tolist() == [[0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]]


def test_a_gate_per_example_is_linear_in_its_input():
    gate = DSelectKGate(4, 2, gamma=1.0, size=1)
    gate.z.weight.data, gate.z.bias.data = torch.tensor([[9.0], [9.0], [-9.0], [0.0]]), torch.tensor([0.0, 0, 0, 9])
    gate.w.weight.data.zero_()
    gate.w.bias.data.zero_()
    weights, _ = gate(torch.tensor([[1.0], [-1.0]]))
    assert weights.tolist() == [[0.0, 0.5, 0.0, 0.5], [0.5, 0.0, 0.0, 0.5]]


@pytest.mark.parametrize("size", [None, 6])
def test_gates_start_with_nearly_equal_weights(size):
    gate = DSelectKGate(8, 2, gamma=2.0, size=size)
    for layer, bound in ((gate.z, 0.02), (gate.w, 0.05)):
        for parameter in layer.parameters():
            assert parameter.abs().max() <= bound
            assert parameter.unique().numel() == parameter.numel()
    weights, _ = gate(torch.zeros(3, 6))
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 8), rtol=0.1, atol=0)


def test_a_single_selector_needs_no_weight():
    gate = DSelectKGate(4, 1, gamma=1.0, size=None)
    assert [name for name, _ in gate.named_parameters()] == ["z.bias"]
    weights, r = gate(torch.zeros(1, 1))
    assert torch.equal(weights, r[0])


@pytest.mark.parametrize("kind", ["static", "per_example"])
def test_predictions_are_the_heads_on_the_weighted_experts(tasks, kind):
    model = DSelectK(tasks, partial(MLP, (5,), hidden=[4, 3]), num_experts=3, gate=kind)
    inputs = torch.randn(6, 5)
    for task, prediction in model(inputs).predictions.items():
        weights, _ = model.gates[task](inputs)
        assert weights.shape == ((3,) if kind == "static" else (6, 3))
        features = sum(
            w[..., None] * expert(inputs) for w, expert in zip(weights.unbind(-1), model.experts.values(), strict=True)
        )
        torch.testing.assert_close(prediction, model.heads[task](features))


@pytest.mark.parametrize("num_experts", [2, 3, 5, 8])
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("kind", ["static", "per_example"])
def test_every_form_learns_all_its_parameters(maps, tasks, make_inputs, num_experts, k, kind):
    model = DSelectK(tasks, maps.make, num_experts=num_experts, k=k, gate=kind)
    output = model(make_inputs(maps))
    sum(prediction.square().sum() for prediction in output.predictions.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("batch", [(), (4,)])
def test_penalties_are_the_entropy_and_the_weight_of_unused_numbers(mlp, tasks, batch):
    model = DSelectK(tasks, mlp.make, num_experts=3, entropy_penalty=0.1, unused_penalty=2.0)
    r = torch.tensor([[0.5, 0.3, 0.0], [0.0, 1.0, 0.0]]).expand(2, *batch, 2, 3)
    found = model.penalties(r)
    entropy = -(0.5 * log(0.5) + 0.3 * log(0.3))
    torch.testing.assert_close(found["entropy"], torch.tensor(2 * 0.1 * entropy), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["unused_codes"], torch.tensor(2 * 2.0 * (1 / 0.8 - 1)))


@pytest.mark.parametrize("kind", ["static", "per_example"])
def test_the_entropy_s_gradient_reaches_the_gates_and_decides_them(mlp, tasks, make_inputs, kind):
    torch.manual_seed(0)
    model = DSelectK(tasks, mlp.make, num_experts=4, gate=kind, entropy_penalty=1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs = make_inputs(mlp)
    for _ in range(100):
        (entropy,) = model(inputs).regularizers.values()
        optimizer.zero_grad()
        entropy.backward()
        optimizer.step()
    for gate in model.gates.values():
        _, r = gate(model.view(inputs) if model.view else inputs)
        assert r.max(dim=-1).values.min() > 0.99


def test_the_penalty_drives_selectors_off_unused_numbers(mlp, tasks, make_inputs):
    model = DSelectK(tasks, mlp.make, num_experts=3)
    for gate in model.gates.values():
        gate.z.bias.data = torch.tensor([0.4, 0.4, 0.3, 0.4])  # 3 is the likeliest number, of 0, 1 and 2
    optimizer = torch.optim.SGD([p for gate in model.gates.values() for p in gate.parameters()], lr=0.01)
    for _ in range(200):
        loss = model(make_inputs(mlp)).regularizers["unused_codes"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for gate in model.gates.values():
        assert gate(None)[1].sum(dim=-1).min() > 0.95


def test_a_selector_on_an_unused_number_keeps_all_values_finite(mlp, tasks, make_inputs):
    model = DSelectK(tasks, mlp.make, num_experts=3)
    for gate in model.gates.values():
        gate.z.bias.data.fill_(9.0)
    output = model(make_inputs(mlp))
    torch.stack([*output.regularizers.values(), *(p.sum() for p in output.predictions.values())]).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_penalties_that_are_always_zero_are_left_out(mlp, tasks, make_inputs):
    inputs = make_inputs(mlp)
    names = {
        (num_experts, entropy, unused): list(
            DSelectK(tasks, mlp.make, num_experts=num_experts, entropy_penalty=entropy, unused_penalty=unused)(
                inputs
            ).regularizers
        )
        for num_experts, entropy, unused in [(4, 1e-6, 1.0), (5, 1e-6, 1.0), (5, 0.0, 1.0), (5, 0.0, 0.0)]
    }
    assert list(names.values()) == [["entropy"], ["entropy", "unused_codes"], ["unused_codes"], []]


@pytest.mark.parametrize(
    ("argument", "wrong", "bounds"),
    [
        ("num_experts", 1, ">= 2"),
        ("k", 0, ">= 1"),
        ("k", 9, r"in 1\.\.8"),
        ("gamma", 0.0, "> 0"),
        ("entropy_penalty", -1.0, ">= 0"),
        ("unused_penalty", float("nan"), ">= 0"),
    ],
)
def test_arguments_out_of_bounds_are_refused(mlp, tasks, argument, wrong, bounds):
    with pytest.raises(ValueError, match=f"{argument} must be {bounds}.*, found {wrong}"):
        DSelectK(tasks, mlp.make, **{argument: wrong})
