"""A multi-layer perceptron on columns of a table, by hand and under every sharing architecture."""

import re
from functools import partial

import pytest
import torch
from architectures import losses_of, penalties_of, perturbed
from test_architectures import check_partition

from mtlrun.datasets import InputColumn
from mtlrun.gradients.task_gradients import _vmapped_grads
from mtlrun.models import Output, SharedRepresentationModel
from mtlrun.models.backbones import MLP, EmbeddingMLP
from mtlrun.models.backbones.embedding_mlp import default_size
from mtlrun.models.blocks.experts import GateInput
from mtlrun.setup.model_size import count_macs

ROWS = 40


def make_inputs(rows=ROWS):
    """Return vectors of a category of 5, a number, an indicator, a number with few values, and a category of 3."""
    generator = torch.Generator().manual_seed(0)
    return torch.stack(
        [
            torch.arange(rows) % 5.0,
            torch.randn(rows, generator=generator),
            torch.arange(rows) % 2.0,
            (torch.arange(rows) % 4).square().float(),
            torch.arange(rows) % 3.0,
        ],
        dim=1,
    )


INPUTS = make_inputs()
COLUMNS = [
    InputColumn("city", "category", 5),
    InputColumn("area", values=INPUTS[:, 1]),
    InputColumn("area is empty", "indicator"),
    InputColumn("rooms", values=INPUTS[:, 3]),
    InputColumn("heat", "category", 3),
]


def network(columns=COLUMNS, **options):
    return EmbeddingMLP((len(columns),), columns, **{"hidden": [12, 8]} | options)


@pytest.mark.parametrize("numbers", ["plain", "piecewise_linear", "periodic"])
def test_every_model_trains_on_columns(architecture, numbers, three_tasks):
    make = partial(network, numbers=numbers)
    for tasks in (three_tasks, {"kind": three_tasks["kind"]}):
        model = perturbed(architecture(tasks, make))
        check_partition(model, INPUTS)
        output = model(INPUTS)
        torch.stack([*losses_of(output).values(), *penalties_of(output)]).sum().backward()
        for name, parameter in model.named_parameters():
            if len(tasks) > 1 or "embed" in name:
                assert not parameter.requires_grad or parameter.grad.abs().sum() > 0, name
        if isinstance(model, SharedRepresentationModel):
            cut = output.representation.detach().requires_grad_()
            losses_of(Output(model.decode(cut)))
        model.eval()
        alone = model(INPUTS[3:4]).predictions
        for task, prediction in model(INPUTS).predictions.items():
            torch.testing.assert_close(alone[task], prediction[3:4], rtol=1e-4, atol=1e-5)
        other = architecture(tasks, make)
        other.load_state_dict(model.state_dict())
        for task, prediction in other.eval()(INPUTS).predictions.items():
            assert torch.equal(prediction, model(INPUTS).predictions[task])


def test_categories_are_looked_up_and_numbers_stand_beside_them():
    backbone = network(embedding_sizes={"city": 4}, hidden=[6])
    layer, linear = backbone.stages[0][0], backbone.stages[0][1]
    city, heat = (embedding.weight.detach() for embedding in layer.embeddings)
    assert city.shape == (5, 4)
    assert heat.shape == (3, default_size(3)) == (3, 3)
    assert not city[0].any()  # of unseen categories
    assert city[1:].abs().max() <= 4**-0.5
    expected = [[*row[[1, 3]], row[2], *city[int(row[0])], *heat[int(row[4])]] for row in INPUTS]
    torch.testing.assert_close(layer(INPUTS), torch.tensor(expected))
    torch.testing.assert_close(backbone(INPUTS), linear(torch.tensor(expected)).relu())
    assert backbone.stage_shapes == ((6,),)
    assert count_macs(backbone, INPUTS) == (2 + 1 + 4 + 3) * 6


def test_sizes_of_embeddings_follow_a_rule_or_the_config():
    # round(1.6 n^.56), by hand
    assert [default_size(number) for number in (2, 3, 10, 100, 466, 10**6)] == [2, 3, 6, 21, 50, 50]
    shapes = [tuple(embedding.weight.shape) for embedding in network(embedding_sizes=7).stages[0][0].embeddings]
    assert shapes == [(5, 7), (3, 7)]
    wide = network(embedding_sizes=7, number_size=3, numbers="periodic", width=2.0)
    assert [embedding.embedding_dim for embedding in wide.stages[0][0].embeddings] == [14, 14]
    assert wide.stages[0][1].in_features == 2 * 6 + 1 + 2 * 14
    assert wide.stage_shapes == ((24,), (16,))


def brute_force_encoding(x, edges):
    """Return equation 1 of the paper, bin by bin."""
    last = len(edges) - 1
    return [
        0.0 if x < edges[t - 1] and t > 1 else 1.0 if x >= edges[t] and t < last
        else (x - edges[t - 1]) / (edges[t] - edges[t - 1])
        for t in range(1, last + 1)
    ]  # fmt: skip


def test_piecewise_linear_embeddings_are_those_of_the_paper():
    numbers = torch.stack([torch.linspace(-3, 3, 61), torch.tensor([0.0, 1.0] * 30 + [1.0]), torch.full((61,), 2.0)], 1)
    columns = [InputColumn(f"{place}", values=numbers[:, place]) for place in range(3)]
    assert [column.quantiles(4) for column in columns] == [
        pytest.approx((-3, -1.5, 0, 1.5, 3), abs=0.051), (0, 1), (2,),
    ]  # fmt: skip
    layer = network(columns, numbers="piecewise_linear", num_bins=4, number_size=5).stages[0][0]
    inputs = torch.tensor([[-7.0, 0.25, 2.0], [-1.5, 1.0, 2.0], [0.4, -3.0, 5.0], [9.0, 7.0, 2.0]])
    embed = layer.embed_numbers
    encoded = embed.encode(inputs)
    assert encoded.shape == (4, 3, 4)
    for row, numbers_of_row in enumerate(inputs.tolist()):
        for place, x in enumerate(numbers_of_row):
            expected = brute_force_encoding(x, columns[place].quantiles(4))
            torch.testing.assert_close(encoded[row, place], torch.tensor([*expected, *[0.0] * 4][:4]))
    linear = inputs.unsqueeze(-1) * embed.linear.weight[:, 0] + embed.linear.bias
    torch.testing.assert_close(embed(inputs), linear)  # bends start at zero
    torch.nn.init.normal_(embed.bends)
    torch.testing.assert_close(embed(inputs), linear + torch.einsum("bct,ctd->bcd", encoded, embed.bends))
    torch.testing.assert_close(layer(inputs), embed(inputs).flatten(1))


def test_periodic_embeddings_are_those_of_the_paper():
    embed = network(numbers="periodic", num_frequencies=3, frequency_std=2.0, number_size=4).stages[0][0].embed_numbers
    x = INPUTS[:, [1, 3]]
    c, weight, bias = embed.frequencies, embed.linear.weight, embed.linear.bias
    for place in range(2):
        angles = 2 * torch.pi * c[place] * x[:, place, None]
        expected = (torch.cat([angles.sin(), angles.cos()], 1) @ weight[place] + bias[place]).relu()
        torch.testing.assert_close(embed(x)[:, place], expected)
    many = network(numbers="periodic", num_frequencies=5000, frequency_std=0.1).stages[0][0].embed_numbers
    assert many.frequencies.std().item() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("numbers", ["plain", "piecewise_linear", "periodic"])
def test_gradients_of_all_losses_at_once_are_those_of_each(numbers):
    backbone = perturbed(network(numbers=numbers))
    losses = backbone(INPUTS).square().mean(dim=0)[:3]
    parameters = list(backbone.parameters())
    at_once = _vmapped_grads(losses, parameters, list(torch.eye(3).unbind()))
    for index, loss in enumerate(losses):
        alone = torch.autograd.grad(loss, parameters, retain_graph=True)
        for together, gradient in zip(at_once[index], alone, strict=True):
            torch.testing.assert_close(together, gradient)


def test_without_a_description_all_inputs_are_numbers_as_in_a_plain_perceptron():
    torch.manual_seed(0)
    backbone = EmbeddingMLP((5,), hidden=[4, 3], dropout=0.2, norm="layer", activation="gelu")
    torch.manual_seed(0)
    plain = MLP((5,), hidden=[4, 3], dropout=0.2, norm="layer", activation="gelu")
    torch.testing.assert_close(backbone.eval()(INPUTS), plain.eval()(INPUTS))


def test_gates_see_embeddings_and_never_indices():
    view = GateInput(network(numbers="periodic"))
    assert view.size == view(INPUTS).shape[1] == 3 + default_size(5) + default_size(3)
    changed = INPUTS.clone()
    changed[:, 0] = 4 - changed[:, 0]
    plain = slice(0, 3)
    assert torch.equal(view(INPUTS)[:, plain], view(changed)[:, plain])
    assert torch.equal(view(INPUTS)[:, plain], INPUTS[:, [1, 3, 2]])
    numbers_only = network([InputColumn("a"), InputColumn("b", "indicator")])
    assert list(GateInput(numbers_only).parameters()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedding_sizes": {"ctiy": 3}}, "embedding_sizes: there is no column 'ctiy'; did you mean 'city'?"),
        (
            {"embedding_sizes": {"area": 3}},
            "there is no column 'area'; columns of categories: city, heat",
        ),
        ({"embedding_sizes": {"city": 0}}, "embedding_sizes.city must be >= 1, found 0"),
        ({"embedding_sizes": 0}, "embedding_sizes must be >= 1, or null, found 0"),
        ({"number_size": 0}, "number_size must be >= 1, found 0"),
        ({"frequency_std": 0.0}, "frequency_std must be > 0, found 0.0"),
        ({"numbers": "fourier"}, "numbers must be one of 'plain', 'piecewise_linear', 'periodic', found 'fourier'"),
        ({"columns": [InputColumn("a")], "numbers": "piecewise_linear"}, "which the dataset does not give"),
        ({"norm": "group"}, "norm must be one of 'none', 'batch', 'layer', found 'group'"),
        ({"activation": "sine"}, "activation must be one of 'relu', "),
        ({"residual": True}, r"residual needs two layers of equal width in hidden, one after the other, found [12, 8]"),
    ],
)
def test_arguments_out_of_bounds_are_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        network(**options)


def test_a_description_must_make_sense():
    with pytest.raises(ValueError, match="num_categories must be > 0 for a category and 0 otherwise, found 0 for 'a'"):
        InputColumn("a", "category")
    with pytest.raises(ValueError, match="kind must be one of 'number', 'indicator', 'category', found 'text'"):
        InputColumn("a", "text")
    with pytest.raises(ValueError, match="num_categories must be at most 16777216, found 16777217 for 'a'"):
        InputColumn("a", "category", 2**24 + 1)
