"""What PAD-Net and MTI-Net are made of."""

from functools import partial

import pytest
import torch

from mtlrun.models.blocks.distillation import Distillation, ResidualBlock, make_auxiliary_heads, make_branches
from mtlrun.models.blocks.propagation import Propagation, SqueezeExcitation
from mtlrun.models.heads import ConvHead, MLPHead
from mtlrun.tasks import Classification

FEATURES = {"a": torch.tensor([[1.0, -2.0]]), "b": torch.tensor([[3.0, 0.5]]), "c": torch.tensor([[-1.0, 4.0]])}


def scaled(module, factor):
    module.weight.data = factor * torch.eye(2)


@pytest.mark.parametrize(
    ("gate", "opened"),
    # gates of task b look through the identity at its own features, or at those of the sender
    [("receiver", {"a": [3.0, 0.5], "c": [3.0, 0.5]}), ("sender", {"a": [1.0, -2.0], "c": [-1.0, 4.0]})],
)
def test_messages_pass_through_the_gates_and_are_added(gate, opened):
    module = Distillation("b", list(FEATURES), (2,), gate)
    for layer in module.gates.values():
        scaled(layer, 1.0)
    scaled(module.messages["a"], 2.0)
    scaled(module.messages["c"], 10.0)
    expected = (
        FEATURES["b"]
        + torch.tensor(opened["a"]).sigmoid() * 2 * FEATURES["a"]
        + torch.tensor(opened["c"]).sigmoid() * 10 * FEATURES["c"]
    )
    torch.testing.assert_close(module(FEATURES), expected)


@pytest.mark.parametrize(("gate", "gates"), [("receiver", ["b"]), ("sender", ["a", "c"])])
def test_gates_stand_where_they_look(gate, gates):
    module = Distillation("b", list(FEATURES), (2,), gate)
    assert list(module.gates) == gates
    assert list(module.messages) == ["a", "c"]


@pytest.mark.parametrize("gate", ["receiver", "sender"])
def test_one_task_alone_keeps_its_features(gate):
    module = Distillation("a", ["a"], (2,), gate)
    assert torch.equal(module(FEATURES), FEATURES["a"])
    assert not list(module.parameters())


@pytest.mark.parametrize("gate", ["receiver", "sender"])
def test_messages_of_maps_come_from_the_neighborhood(gate):
    module = Distillation("a", ["a", "b"], (2, 5, 5), gate)
    features = {task: torch.randn(1, 2, 5, 5) for task in "ab"}
    changed = features["b"].clone()
    changed[:, :, 2, 2] += 1.0
    differs = (module(features) != module(features | {"b": changed})).any(dim=1)[0]
    assert differs.sum() == 9
    assert differs[1:4, 1:4].all()


def test_residual_block_adds_its_input_before_the_last_relu():
    block = ResidualBlock((2,), 2).eval()
    block.body[3].weight.data.zero_()
    features = torch.tensor([[1.0, -1.0]])
    assert torch.equal(block(features), torch.tensor([[1.0, 0.0]]))
    scaled(block.body[0], 1.0)
    scaled(block.body[3], 3.0)
    torch.testing.assert_close(block(features), torch.tensor([[4.0, 0.0]]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("shape", [(3,), (3, 4, 5)])
def test_branches_give_each_task_features_of_one_width(tasks, shape):
    branches = make_branches(tasks, shape, 7)
    assert list(branches) == ["kind", "place"]
    assert branches["kind"](torch.randn(2, *shape)).shape == (2, 7, *shape[1:])
    assert not torch.equal(branches["kind"][0].body[0].weight, branches["place"][0].body[0].weight)


def test_auxiliary_heads_are_linear_unless_the_task_brings_its_own(dense_tasks):
    dense_tasks["place"].head = partial(MLPHead, hidden=[5])
    dense_tasks["flow"].head = partial(ConvHead, hidden=[9])
    heads = make_auxiliary_heads(dense_tasks, (4, 6, 6), (3, 12, 12))
    weights = {task: [tuple(p.shape) for p in head.parameters() if p.dim() > 1] for task, head in heads.items()}
    assert weights == {"heat": [(2, 4, 1, 1)], "flow": [(9, 4, 3, 3), (1, 9, 1, 1)], "place": [(5, 4), (2, 5)]}
    assert heads["heat"](torch.randn(2, 4, 6, 6)).shape == (2, 2, 12, 12)
    assert make_auxiliary_heads({"kind": Classification(3)}, (4,), (9,))["kind"](torch.randn(2, 4)).shape == (2, 3)


@pytest.mark.parametrize("shape", [(3,), (3, 2, 4)])
def test_squeeze_and_excitation_weights_channels_by_their_means(shape):
    block = SqueezeExcitation(3)
    features = torch.randn(2, *shape)
    means = features.flatten(2).mean(dim=2) if len(shape) > 1 else features
    weights = block.gate(means)
    for sample in range(2):
        for channel in range(3):
            torch.testing.assert_close(
                block(features)[sample, channel], weights[sample, channel] * features[sample, channel]
            )


@pytest.mark.parametrize(("channels", "hidden"), [(4, 16), (256, 16), (512, 32)])
def test_squeeze_and_excitation_has_a_sixteenth_of_the_channels_but_not_too_few(channels, hidden):
    assert SqueezeExcitation(channels).gate[0].out_features == hidden


@pytest.mark.parametrize("places", [(), (2, 3)])
def test_propagation_masks_features_by_a_softmax_over_the_tasks(places):
    propagation = Propagation(["a", "b"], (2, *places)).eval()
    features = {task: torch.randn(3, 2, *places) for task in "ab"}
    logits = propagation.mask(torch.cat([features["a"], features["b"]], dim=1))
    share = torch.exp(logits[:, :2]) / (torch.exp(logits[:, :2]) + torch.exp(logits[:, 2:]))
    shared = propagation.reduce(torch.cat([share * features["a"], (1 - share) * features["b"]], dim=1))
    found = propagation(features)
    for task in "ab":
        torch.testing.assert_close(found[task], features[task] + propagation.excite[task](shared))


def test_propagation_of_one_task_needs_no_mask():
    propagation = Propagation(["a"], (2,)).eval()
    features = torch.randn(3, 2)
    expected = features + propagation.excite["a"](propagation.reduce(features))
    torch.testing.assert_close(propagation({"a": features})["a"], expected)
    assert propagation.mask is None
