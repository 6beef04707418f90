"""Low-rank adaptation."""

import pytest
import torch
from torch import nn

from mtlrun.models import HardSharing, LoRA
from mtlrun.models.backbones import Backbone
from mtlrun.models.lora import LowRank, adaptable_weights


def perturb(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


class Attentive(Backbone):
    """A stage with torch's own attention, between two linear ones."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, features):
            tokens = features.unflatten(1, (3, 4))
            return self.attention(tokens, tokens, tokens, need_weights=False)[0].flatten(1)

    def __init__(self):
        super().__init__([nn.Linear(5, 12), self.Block(), nn.Linear(12, 6)], (5,))


def test_the_added_weight_is_alpha_over_r_times_b_a():
    weight = torch.arange(6.0).view(2, 3)
    low_rank = LowRank(weight, rank=1, alpha=0.5)
    with torch.no_grad():
        low_rank.a.copy_(torch.tensor([[[1.0, 2.0, 0.0]]]))
        low_rank.b.copy_(torch.tensor([[[4.0], [-2.0]]]))
    expected = weight + 0.5 * torch.tensor([[4.0, 8.0, 0.0], [-2.0, -4.0, 0.0]])
    torch.testing.assert_close(low_rank(weight), expected)


def test_alpha_is_divided_by_the_rank():
    weight = torch.zeros(6, 6)
    low_rank = LowRank(weight, rank=4, alpha=2.0)
    nn.init.ones_(low_rank.a)
    nn.init.ones_(low_rank.b)
    torch.testing.assert_close(low_rank(weight), torch.full((6, 6), 2.0))  # 2 / 4 times a sum of four


def test_a_convolution_is_adapted_by_one_of_its_kernel_and_a_pointwise_one():
    convolution = nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=False)
    low_rank = perturb(LowRank(convolution.weight, rank=2, alpha=6.0))
    inputs = torch.randn(2, 3, 8, 8)
    inner = nn.functional.conv2d(inputs, low_rank.a.view(2, 3, 3, 3), stride=2, padding=1)
    expected = convolution(inputs) + 3.0 * nn.functional.conv2d(inner, low_rank.b.view(5, 2, 1, 1))
    found = nn.functional.conv2d(inputs, low_rank(convolution.weight), stride=2, padding=1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_stacked_matrices_of_one_weight_are_adapted_separately():
    low_rank = LowRank(torch.zeros(6, 4), rank=1, alpha=1.0, parts=3)
    perturb(low_rank)
    added = low_rank(torch.zeros(6, 4))
    for part in range(3):
        torch.testing.assert_close(added[2 * part : 2 * part + 2], low_rank.b[part] @ low_rank.a[part])
    assert torch.linalg.matrix_rank(added) == 3


def test_rank_is_lowered_to_that_of_the_matrix():
    low_rank = LowRank(torch.zeros(3, 1, 5, 5), rank=8, alpha=6.0)
    assert low_rank.a.shape == (1, 3, 25)
    assert low_rank.b.shape == (1, 3, 3)
    assert low_rank.scale == 2.0


def test_a_starts_uniform_like_a_linear_layer_and_b_at_zero():
    low_rank = LowRank(torch.zeros(50, 400), rank=20, alpha=1.0)
    assert low_rank.b.abs().sum() == 0
    assert low_rank.a.abs().max() <= 0.05
    assert abs(low_rank.a.std() - 0.05 / 3**0.5) < 0.001


def test_linear_layers_convolutions_and_attention_are_adapted_and_nothing_else():
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.BatchNorm2d(2),
        nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)),
        nn.MultiheadAttention(4, 2),
        nn.MultiheadAttention(4, 2, kdim=3, vdim=5),
    )
    assert adaptable_weights(network) == {
        "0.weight": 1,
        "2.0.weight": 1,
        "3.in_proj_weight": 3,
        "3.out_proj.weight": 1,
        "4.q_proj_weight": 1,
        "4.k_proj_weight": 1,
        "4.v_proj_weight": 1,
        "4.out_proj.weight": 1,
    }


def test_model_starts_as_hard_sharing(backbone, tasks, make_inputs):
    torch.manual_seed(0)
    model = LoRA(tasks, backbone.make)
    torch.manual_seed(0)
    hard = HardSharing(tasks, backbone.make)
    inputs = make_inputs(backbone)
    for mode in (True, False):
        expected, found = hard.train(mode)(inputs).predictions, model.train(mode)(inputs).predictions
        for task in tasks:
            torch.testing.assert_close(found[task], expected[task])


def test_each_task_runs_the_backbone_with_its_own_weights(mlp, three_tasks, make_inputs):
    model, inputs = perturb(LoRA(three_tasks, mlp.make, rank=2, alpha=5.0)), make_inputs(mlp)
    layers = [stage[-2] for stage in model.trunk.network.stages]
    for task, prediction in model(inputs).predictions.items():
        features = inputs.flatten(1)
        for layer, matrices in zip(layers, model.matrices[task], strict=True):
            low = features @ matrices.a[0].T @ matrices.b[0].T
            features = (features @ layer.weight.T + layer.bias + 2.5 * low).relu()
        torch.testing.assert_close(prediction, model.heads[task](features))


def test_the_backbone_keeps_its_own_weights(backbone, tasks, make_inputs):
    model = perturb(LoRA(tasks, backbone.make))
    before = {name: parameter.clone() for name, parameter in model.trunk.named_parameters()}
    identities = [id(parameter) for parameter in model.parameters()]
    model(make_inputs(backbone))
    assert [id(parameter) for parameter in model.parameters()] == identities
    for name, parameter in model.trunk.named_parameters():
        assert torch.equal(parameter, before[name])


@pytest.mark.parametrize("mode", [True, False])
def test_attention_is_adapted(tasks, mode):
    model = perturb(LoRA(tasks, Attentive)).train(mode)
    inputs = torch.randn(4, 5)
    with torch.no_grad():  # in evaluation, torch takes another path here
        before = model(inputs).predictions
        for name, low_rank in zip(model.adapted, model.matrices["kind"], strict=True):
            if name == "stages.1.attention.in_proj_weight":
                low_rank.b += 0.5
        after = model(inputs).predictions
    assert not torch.allclose(after["kind"], before["kind"], atol=1e-3)
    assert torch.equal(after["place"], before["place"])


def test_each_task_has_its_own_batch_norm_statistics(maps, tasks, make_inputs):
    model, inputs = perturb(LoRA(tasks, maps.make)), make_inputs(maps)
    model(inputs)
    kind, place = (model.trunk.statistics[task].by_name() for task in tasks)
    for stage in range(3):
        assert kind[f"stages.{stage}.1.num_batches_tracked"] == 1
        assert not torch.equal(kind[f"stages.{stage}.1.running_mean"], place[f"stages.{stage}.1.running_mean"])


def test_size_grows_by_the_low_rank_matrices(mlp, tasks, three_tasks):
    def count(tasks, rank):
        model = LoRA(tasks, mlp.make, rank=rank)
        return sum(parameter.numel() for parameter in model.matrices.parameters())

    for rank in (1, 3):
        assert count(tasks, rank) == 2 * rank * ((18 + 12) + (12 + 8))
        assert count(three_tasks, rank) == 3 * rank * ((18 + 12) + (12 + 8))


def test_frozen_trains_matrices_and_heads_alone(maps, tasks, make_inputs):
    model = perturb(LoRA(tasks, maps.make, freeze_backbone=True)).train()
    before = {name: value.clone() for name, value in model.trunk.state_dict().items()}
    sum(prediction.square().sum() for prediction in model(make_inputs(maps)).predictions.values()).backward()
    reached = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert reached == {"matrices", "heads"}
    for name, value in model.trunk.state_dict().items():
        assert torch.equal(value, before[name]), name  # BatchNorm's statistics stand as well
    assert model.shared_parameters() == []
    groups = {group.name: group for group in model.parameter_groups()}
    assert len(groups["shared"].parameters) == len(list(model.trunk.parameters())) > 0


def test_a_backbone_without_layers_to_adapt_is_refused(tasks):
    with pytest.raises(ValueError, match="the backbone has none of them; use model=adapters"):
        LoRA(tasks, lambda: Backbone([nn.Flatten(), nn.BatchNorm1d(6)], (6,)))


@pytest.mark.parametrize(("argument", "wrong", "bounds"), [("rank", 0, ">= 1"), ("alpha", 0.0, "> 0")])
def test_arguments_out_of_bounds_are_refused(mlp, tasks, argument, wrong, bounds):
    with pytest.raises(ValueError, match=f"{argument} must be {bounds}, found {wrong}"):
        LoRA(tasks, mlp.make, **{argument: wrong})
