"""The last shared layer, that of `grad_wrt=last_layer`: for every backbone, and for models of all kinds."""

import pytest
import torch
from helpers import CONF, QUICK, shipped_node
from torch import nn

from mtlrun.config.compose import compose
from mtlrun.config.instantiate import build
from mtlrun.errors import ConfigError
from mtlrun.gradients import backward
from mtlrun.models import HardSharing, ParameterGroup, SharedRepresentationModel
from mtlrun.models.blocks.last_layer import last_layer, order_of_use
from mtlrun.setup.prepare import prepare
from mtlrun.tasks import Regression
from mtlrun.weightings import GradNorm

#: {backbone: names of the parameters of its last layer with a weight matrix or kernel}.
EXPECTED = {
    "convnet": ["stages.3.4.weight"],
    "convnext": ["stages.3.1.2.block.5.weight", "stages.3.1.2.block.5.bias"],
    "embedding_mlp": ["stages.1.0.weight", "stages.1.0.bias"],
    "lenet": ["stages.2.1.weight", "stages.2.1.bias"],
    "mlp": ["stages.1.0.weight", "stages.1.0.bias"],
    "mobilenet": ["stages.4.3.0.weight"],
    "resnet18": ["stages.4.1.conv2.weight"],
    "resnet34": ["stages.4.2.conv2.weight"],
    "resnet50": ["stages.4.2.conv3.weight"],
    "segnet": ["stages.9.3.weight"],
    "tabular": ["stages.1.0.weight", "stages.1.0.bias"],
    "vit": ["stages.3.layers.1.mlp.3.weight", "stages.3.layers.1.mlp.3.bias"],
}
NARROW = {"width": 0.1}
#: {backbone of vectors: changes of its keys}.
VECTORS = {"embedding_mlp": {}, "tabular": {"numbers": "periodic"}}  # without the quantiles of a dataset
INPUTS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def names_of(model, parameters):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for parameter in parameters]


def norms(rows):
    return torch.stack([torch.cat([part.flatten() for part in row]).double().norm() for row in rows])


def test_every_backbone_is_tested():
    assert sorted(EXPECTED) == sorted(path.stem for path in (CONF / "backbone").glob("*.yaml"))


@pytest.mark.parametrize("backbone", EXPECTED)
def test_last_layer_of_a_backbone_and_gradnorm_s_decision_at_it(backbone):
    tasks = {"a": Regression(), "b": Regression()}
    inputs = INPUTS[:, 0, 0] if backbone in VECTORS else INPUTS
    node = shipped_node("backbone", backbone) | NARROW | VECTORS.get(backbone, {})
    factory = build(node, "backbone", partial=True, input_shape=tuple(inputs.shape[1:]))
    model = HardSharing(tasks, factory).eval()
    expected = [f"trunk.{name}" for name in EXPECTED[backbone]]
    assert names_of(model, model.last_layer()) == expected
    model.find_last_layer(inputs)
    assert names_of(model, model.last_layer()) == expected

    output = model(inputs)
    losses = [
        factor * prediction.square().mean()
        for factor, prediction in zip((1, 3), output.predictions.values(), strict=True)
    ]
    layer = [model.get_parameter(name) for name in expected]
    rows = [torch.autograd.grad(loss, layer, retain_graph=True) for loss in losses]
    expected_norms = norms(rows)
    weighting = GradNorm(grad_wrt="last_layer")
    weighting.setup(2)
    own = model.task_parameters()
    update = backward(
        weighting, losses, model.shared_parameters(), [own["a"], own["b"]],
        representation=output.representation, last_layer=model.last_layer(),
    )  # fmt: skip
    torch.testing.assert_close(update.gram.diagonal().sqrt(), expected_norms, rtol=1e-4, atol=0)
    # The decision in the first step: the weight of the longer gradient falls (equation 2, with equal training rates).
    signs = torch.sign(expected_norms - expected_norms.mean())
    assert torch.sign(weighting.learned_weights.grad).tolist() == signs.tolist()


class Trunk(SharedRepresentationModel):
    """A model of a user's: a trunk of any modules, and two heads."""

    def __init__(self, modules, encode):
        super().__init__(("a", "b"))
        self.trunk = nn.ModuleDict(modules)
        self.heads = nn.ModuleDict({"a": nn.Linear(4, 1), "b": nn.Linear(4, 1)})
        self._encode = encode

    def encode(self, inputs):
        return self._encode(self.trunk, inputs)

    def decode(self, representation, tasks=None):
        return {task: self.heads[task](representation) for task in self.requested(tasks)}

    def parameter_groups(self):
        heads = [ParameterGroup(task, list(self.heads[task].parameters()), task=task) for task in self.task_names]
        return [ParameterGroup("shared", list(self.trunk.parameters())), *heads]


class Matrix(nn.Module):
    """A product with a matrix that has another name than weight."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(4, 4))

    def forward(self, features):
        return features @ self.matrix


def in_order(*names):
    def encode(trunk, features):
        for name in names:
            features = trunk[name](features)
        return features

    return encode


def as_tokens(trunk, inputs):
    return trunk["attention"](*(trunk["table"](inputs.long().abs() % 3),) * 3)[0].mean(dim=1)


LINEAR = {"one": lambda: nn.Linear(4, 4), "two": lambda: nn.Linear(4, 4)}
NORMALIZED = {
    "BatchNorm1d": lambda: nn.BatchNorm1d(4),
    "LayerNorm": lambda: nn.LayerNorm((2, 2)),  # its scale has two dimensions
    "GroupNorm": lambda: nn.GroupNorm(2, 4),
    "RMSNorm": lambda: nn.RMSNorm(4),
}


@pytest.mark.parametrize("kind", NORMALIZED)
def test_a_normalization_at_the_end_does_not_count(kind):
    norm = NORMALIZED[kind]()

    def encode(trunk, features):
        features = trunk["one"](features)
        return norm(features.view(-1, 2, 2)).flatten(1) if kind == "LayerNorm" else norm(features)

    model = Trunk({"one": nn.Linear(4, 4), "norm": norm}, encode)
    model.find_last_layer(torch.randn(3, 4))
    assert names_of(model, model.last_layer()) == ["trunk.one.weight", "trunk.one.bias"]


def test_the_last_layer_is_the_one_applied_last_and_not_the_one_defined_last():
    model = Trunk({name: make() for name, make in LINEAR.items()}, in_order("two", "one"))
    assert names_of(model, model.last_layer()) == ["trunk.two.weight", "trunk.two.bias"]
    model.find_last_layer(torch.randn(3, 4))
    assert names_of(model, model.last_layer()) == ["trunk.one.weight", "trunk.one.bias"]
    model.trunk["one"].weight.requires_grad_(False)
    model.trunk["one"].bias.requires_grad_(False)
    assert names_of(model, model.last_layer()) == ["trunk.two.weight", "trunk.two.bias"]


def test_layers_whose_forward_is_not_called_are_seen():
    def encode(trunk, inputs):
        features = trunk["two"](inputs)
        return nn.functional.linear(features, trunk["one"].weight)

    model = Trunk({name: make() for name, make in LINEAR.items()}, encode)
    model.find_last_layer(torch.randn(3, 4))
    assert names_of(model, model.last_layer()) == ["trunk.one.weight", "trunk.one.bias"]
    attention = nn.MultiheadAttention(4, 2, batch_first=True)  # reads the weights of its projection
    model = Trunk({"attention": attention, "table": nn.Embedding(3, 4)}, as_tokens)
    model.find_last_layer(torch.randn(3, 5))
    assert names_of(model, model.last_layer()) == ["trunk.attention.out_proj.weight", "trunk.attention.out_proj.bias"]


def test_a_parametrized_weight_counts_as_that_of_its_layer():
    linear = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    model = Trunk({"one": nn.Linear(4, 4), "two": linear}, in_order("one", "two"))
    model.find_last_layer(torch.randn(3, 4))
    names = names_of(model, model.last_layer())
    assert sorted(names) == [
        "trunk.two.bias",
        "trunk.two.parametrizations.weight.original0",
        "trunk.two.parametrizations.weight.original1",
    ]


def test_embeddings_and_other_parameters_count_only_where_there_is_no_layer():
    def last(modules, encode, inputs):
        model = Trunk(modules, encode)
        model.find_last_layer(inputs)
        return names_of(model, model.last_layer())

    def look_up(trunk, inputs):
        return sum(module(inputs) if name == "table" else module(torch.ones(4)) for name, module in trunk.items())

    indices, table = torch.tensor([0, 1]), nn.Embedding(3, 4)
    linear = nn.Linear(4, 4)
    assert last({"one": linear, "table": table}, look_up, indices) == ["trunk.one.weight", "trunk.one.bias"]
    assert last({"matrix": Matrix(), "table": table}, look_up, indices) == ["trunk.matrix.matrix"]
    assert last({"table": table, "scale": nn.PReLU()}, look_up, indices) == ["trunk.table.weight"]
    assert last({"scale": nn.PReLU()}, look_up, torch.ones(4)) == ["trunk.scale.weight"]
    assert last({"norm": nn.LayerNorm(4), "table": table}, look_up, indices) == ["trunk.table.weight"]
    assert last({"norm": nn.LayerNorm(4)}, look_up, indices) == []


class Backwards(HardSharing):
    """Hard sharing whose trunk is applied in another order than it is defined in."""

    def __init__(self, tasks, backbone, frozen=False):
        super().__init__(tasks, backbone)
        self.trunk.stages.insert(0, nn.Linear(16, 16))
        if frozen:
            self.trunk.requires_grad_(False)
            self.trunk.stages.append(nn.LayerNorm(16))

    def encode(self, inputs, cache=None):
        last, *first = self.trunk.stages
        return last(nn.Sequential(*first)(inputs))


def prepared(**model):
    config = compose([*QUICK, "weighting=gradnorm", "weighting.grad_wrt=last_layer"])
    return prepare(config | {"model": {"_target_": f"{__name__}.Backwards", **model}}).model


def test_a_run_finds_the_layer_that_is_applied_last():
    model = prepared()
    assert names_of(model, model.last_layer()) == ["trunk.stages.0.weight", "trunk.stages.0.bias"]


def test_a_model_without_a_trained_shared_layer_is_refused():
    with pytest.raises(ConfigError, match=r"weighting.grad_wrt=last_layer needs a shared layer with weights"):
        prepared(frozen=True)


class ChannelNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.bias = (nn.Parameter(value * torch.ones(1, 4, 1, 1)) for value in (1, 0))

    def forward(self, inputs):
        return self.weight * nn.functional.instance_norm(inputs) + self.bias


@pytest.mark.parametrize("layer", [nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 1), nn.Conv2d(3, 1, 1)])
def test_a_normalization_of_one_s_own_does_not_count_whatever_the_shape_of_its_scale(layer):
    network = nn.Sequential(layer, ChannelNorm())
    order = order_of_use(network(INPUTS))
    assert last_layer(network, network.parameters(), order) == [layer.weight, layer.bias]
