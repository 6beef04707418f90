"""What mixtures of experts are made of."""

import pytest
import torch

from mtlrun.models.backbones import MLP, Backbone
from mtlrun.models.blocks.experts import GateInput, SoftmaxGate, mixture, name_experts, stack_units


def test_gates_see_vectors_as_they_are():
    view, inputs = GateInput(MLP((5,), hidden=[3])), torch.randn(2, 5)
    assert view.size == 5
    assert torch.equal(view(inputs), inputs)


def test_gates_see_a_grid_of_means_of_images():
    view = GateInput(MLP((2, 8, 12), hidden=[3]))
    inputs = torch.randn(3, 2, 8, 12)
    assert view.size == 2 * 4 * 4
    seen = view(inputs).view(3, 2, 4, 4)
    torch.testing.assert_close(seen[:, :, 1, 2], inputs[:, :, 2:4, 6:9].mean(dim=(2, 3)))


def test_gates_see_all_of_images_smaller_than_the_grid():
    view, inputs = GateInput(MLP((2, 3, 4), hidden=[3])), torch.randn(2, 2, 3, 4)
    assert view.size == 24
    assert torch.equal(view(inputs), inputs.flatten(1))


def test_gates_see_other_inputs_flattened():
    view, inputs = GateInput(MLP((6, 7), hidden=[3])), torch.randn(2, 6, 7)
    assert view.size == 42
    assert torch.equal(view(inputs), inputs.flatten(1))


def test_inputs_that_are_no_real_numbers_are_refused():
    class Tokens(Backbone):
        def example(self):
            return torch.zeros(1, 5, dtype=torch.long)

    with pytest.raises(ValueError, match=r"gates .* must be real numbers, found torch.int64; use a model without"):
        GateInput(Tokens([torch.nn.Embedding(3, 2)], (5,)))


def test_softmax_gate_is_linear_without_bias():
    gate = SoftmaxGate(2, 3)
    assert [tuple(parameter.shape) for parameter in gate.parameters()] == [(3, 2)]
    gate.linear.weight.data = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    expected = torch.tensor([[3.0, 4.0, 1.0], [1.0, 1.0, 1.0]])
    seen = torch.tensor([[3.0, 2.0], [1.0, 1.0]]).log() * torch.tensor([[1.0], [0.0]])
    torch.testing.assert_close(gate(seen), expected / expected.sum(dim=1, keepdim=True))


@pytest.mark.parametrize("shape", [(4,), (4, 3, 2)])
@pytest.mark.parametrize("sizes", [[5], [2, 3], [1, 3, 1]])
def test_mixture_is_the_weighted_sum_over_all_units(shape, sizes):
    features = [torch.randn(2, *shape) for _ in range(5)]
    weights = torch.randn(2, 5)
    units = stack_units(features, sizes)
    assert [unit.shape for unit in units] == [(2, size, *shape) for size in sizes]
    expected = sum(weights[:, index].view(2, *[1] * len(shape)) * expert for index, expert in enumerate(features))
    torch.testing.assert_close(mixture(weights, units), expected)


def test_mixture_takes_weights_that_are_the_same_for_all_samples():
    features = [torch.randn(3, 2, 4, 4) for _ in range(3)]
    weights = torch.tensor([0.5, 0.0, 2.0])
    torch.testing.assert_close(mixture(weights, stack_units(features, [2, 1])), 0.5 * features[0] + 2 * features[2])


def test_units_without_experts_are_left_out():
    features = [torch.randn(2, 3) for _ in range(2)]
    assert len(stack_units(features, [1, 0, 1])) == 2


def test_experts_are_named_task_by_task_and_the_shared_ones_last():
    names = name_experts(["a", "shared"], 2, 1)
    assert names == ["task_a_1", "task_a_2", "task_shared_1", "task_shared_2", "shared_1"]
