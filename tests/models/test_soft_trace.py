"""Soft parameter sharing by the trace norm."""

import pytest
import torch

from mtlrun.models import SoftTrace
from mtlrun.models.soft_trace import tensor_trace_norm, trace_norm


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def gradient_of(matrix):
    matrix = matrix.clone().requires_grad_()
    trace_norm(matrix).backward()
    return matrix.grad


def penalty(model):
    inputs = torch.zeros(4, *model.backbones[model.task_names[0]].input_shape)
    return model(inputs).regularizers["trace_norm"]


def fill(model, weights):
    """Give the networks' weights these values, layer by layer; leave out biases."""
    for backbone, tensors in zip(model.backbones.values(), weights, strict=True):
        for parameter, values in zip((p for p in backbone.parameters() if p.dim() > 1), tensors, strict=True):
            parameter.data = values.clone()


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (1, 4), (4, 4)])
def test_trace_norm_is_the_sum_of_singular_values_and_its_gradient_that_of_finite_differences(shape):
    matrix = double(*shape)
    assert trace_norm(matrix).item() == pytest.approx(torch.linalg.svdvals(matrix).sum().item())
    torch.autograd.gradcheck(trace_norm, matrix.requires_grad_())


def test_equal_singular_values_do_not_disturb_the_gradient():
    rotation = torch.linalg.qr(double(4, 4)).Q
    torch.testing.assert_close(gradient_of(3 * rotation), rotation)
    torch.autograd.gradcheck(trace_norm, (3 * rotation).requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_singular_values_take_no_part_in_the_gradient(dtype):
    left, right = (vector / vector.norm() for vector in (double(5).to(dtype), double(3).to(dtype)))
    torch.testing.assert_close(gradient_of(2 * torch.outer(left, right)), torch.outer(left, right))
    assert torch.equal(gradient_of(torch.zeros(5, 3, dtype=dtype)), torch.zeros(5, 3, dtype=dtype))


def test_gradient_of_a_matrix_without_full_rank_is_a_subgradient():
    matrix = torch.outer(double(6), double(4))
    gradient = gradient_of(matrix)
    generator = torch.Generator().manual_seed(1)
    for scale in (0.01, 1.0, 100.0):
        other = matrix + scale * torch.randn(6, 4, dtype=torch.float64, generator=generator)
        assert trace_norm(other) >= trace_norm(matrix) + (gradient * (other - matrix)).sum()


def test_gradient_is_exact_where_tasks_have_almost_met():
    common, apart = double(2, 50)
    apart -= common * (common @ apart) / (common @ common)
    for distance in (1e-3, 1e-5):
        matrix = torch.stack([common + distance * apart, common - distance * apart]).float()
        away = gradient_of(matrix)[0] - gradient_of(matrix)[1]
        torch.testing.assert_close(away, (2**0.5 * apart / apart.norm()).float(), rtol=0, atol=2e-2)


def test_laf_makes_one_vector_of_each_task():
    tensor = double(2, 3, 4)
    expected = torch.linalg.matrix_norm(tensor.reshape(2, 12), "nuc")
    assert tensor_trace_norm(tensor, "laf").item() == pytest.approx(expected.item())


def test_tucker_is_the_mean_over_axes():
    tensor = double(2, 3, 4)
    matrices = [
        [tensor[index].flatten() for index in range(2)],
        [tensor[:, index].flatten() for index in range(3)],
        [tensor[:, :, index].flatten() for index in range(4)],
    ]
    expected = sum(torch.linalg.matrix_norm(torch.stack(rows), "nuc").item() for rows in matrices) / 3
    assert tensor_trace_norm(tensor, "tucker").item() == pytest.approx(expected)


def test_tensor_train_is_the_mean_over_places_between_axes():
    tensor = double(2, 3, 4)
    expected = [torch.linalg.matrix_norm(tensor.reshape(shape), "nuc").item() for shape in ((2, 12), (6, 4))]
    assert tensor_trace_norm(tensor, "tt").item() == pytest.approx(sum(expected) / 2)


def test_tensor_train_of_convolutions_takes_the_axes_in_the_papers_order():
    tensor = double(2, 3, 4, 5, 6)  # tasks, outputs, inputs, height, width
    paper = torch.einsum("koihw->hwiok", tensor)
    shapes = [(5, 144), (30, 24), (120, 6), (360, 2)]
    expected = [torch.linalg.matrix_norm(paper.reshape(shape), "nuc").item() for shape in shapes]
    assert tensor_trace_norm(tensor, "tt").item() == pytest.approx(sum(expected) / 4)


@pytest.mark.parametrize("flattening", ["laf", "tucker", "tt"])
def test_penalty_sums_over_the_layers_weights_and_leaves_biases_out(mlp, three_tasks, flattening):
    model = SoftTrace(three_tasks, mlp.make, strength=0.3, flattening=flattening)
    layers = [[], []]
    for backbone in model.backbones.values():
        weights = [parameter for name, parameter in backbone.named_parameters() if name.endswith("weight")]
        for layer, weight in zip(layers, weights, strict=True):
            layer.append(weight)
    expected = sum(tensor_trace_norm(torch.stack(layer), flattening).item() for layer in layers)
    assert penalty(model).item() == pytest.approx(0.3 * expected, rel=1e-5)


def test_penalty_of_two_tasks_by_hand(mlp, tasks):
    model = SoftTrace(tasks, mlp.make, strength=0.5)
    shapes = [(12, 18), (8, 12)]
    ours = [torch.zeros(shape) for shape in shapes]
    theirs = [torch.zeros(shape) for shape in shapes]
    ours[0][0, 0], theirs[0][1, 1] = 3.0, 4.0  # orthogonal columns of lengths 3 and 4
    ours[1][2, 3], theirs[1][2, 3] = 3.0, 4.0  # one direction: rank 1, of length 5
    fill(model, [ours, theirs])
    value = penalty(model)
    assert value.item() == pytest.approx(0.5 * (3 + 4 + 5))
    value.backward()
    a, b = ([p.grad for p in backbone.parameters() if p.dim() > 1] for backbone in model.backbones.values())
    assert a[0].count_nonzero() == b[0].count_nonzero() == 1
    assert (a[0][0, 0].item(), b[0][1, 1].item()) == pytest.approx((0.5, 0.5))
    assert (a[1][2, 3].item(), b[1][2, 3].item()) == pytest.approx((0.5 * 0.6, 0.5 * 0.8))


def test_descent_on_the_penalty_lowers_the_rank(mlp, tasks):
    model = SoftTrace(tasks, mlp.make, strength=1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def second_share():
        stacked = torch.stack([next(backbone.parameters()).flatten() for backbone in model.backbones.values()])
        values = torch.linalg.svdvals(stacked.detach())
        return (values[1] / values[0]).item()

    with torch.no_grad():  # a large part in common, as of tasks that are related
        common = next(model.backbones["kind"].parameters())
        next(model.backbones["place"].parameters()).add_(common)
    before = second_share()
    for _ in range(50):
        optimizer.zero_grad()
        penalty(model).backward()
        optimizer.step()
    assert second_share() < 0.7 * before


def test_penalty_leaves_biases_and_heads_alone(backbone, tasks):
    model = SoftTrace(tasks, backbone.make)
    penalty(model).backward()
    for name, parameter in model.named_parameters():
        reached = name.startswith("backbones") and parameter.dim() > 1
        assert (parameter.grad is not None) == reached, name


def test_each_task_has_its_own_network_with_a_different_start(mlp, tasks, make_inputs):
    model, inputs = SoftTrace(tasks, mlp.make), make_inputs(mlp)
    for task in tasks:
        assert torch.equal(model(inputs).predictions[task], model.heads[task](model.backbones[task](inputs)))
    assert model.shared_parameters() == []
    ours, theirs = (next(backbone.parameters()) for backbone in model.backbones.values())
    assert not torch.equal(ours, theirs)


def test_strength_of_zero_gives_no_penalty(mlp, tasks, make_inputs):
    model = SoftTrace(tasks, mlp.make, strength=0.0)
    assert not model(make_inputs(mlp)).regularizers


def test_negative_strength_is_refused(mlp, tasks):
    with pytest.raises(ValueError, match=r"strength must be >= 0, found -0\.5"):
        SoftTrace(tasks, mlp.make, strength=-0.5)
