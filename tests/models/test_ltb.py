"""Learning to branch."""

import pytest
import torch
from torch import nn

from mtlrun.models import LTB
from mtlrun.models.backbones import Backbone


class Remembering(Backbone):
    """Two linear stages; the second adds what the first of the same copy gave."""

    def __init__(self):
        super().__init__([nn.Linear(4, 3), nn.Linear(3, 3)], (4,))

    def stage(self, index, features, cache):
        if index == 0:
            cache["first"] = super().stage(index, features, cache)
            return cache["first"]
        return super().stage(index, features, cache) + cache["first"]


def stages(model):
    """Return [node][stage] of a model of MLPs."""
    return [list(node.stages) for node in model.nodes.values()]


def prefer(model, layers, heads):
    """Let each child of each layer, and each head, prefer one parent by far."""
    for logits, parents in zip([*model.branching, *model.head_branching.values()], [*layers, *heads], strict=True):
        logits.data = 1000 * nn.functional.one_hot(torch.tensor(parents), logits.shape[-1]).float()


def test_in_the_warm_up_each_node_gets_the_mean_of_all_before_it(mlp, tasks, make_inputs):
    model, inputs = LTB(tasks, mlp.make, nodes=3, warmup_fraction=0.5), make_inputs(mlp)
    prefer(model, [[0, 1, 2]], [0, 1])  # which is of no effect yet
    model.on_train_step(0.0, 0.49)
    nodes = stages(model)
    mean = torch.stack([first(inputs) for first, _ in nodes]).mean(dim=0)
    features = torch.stack([second(mean) for _, second in nodes]).mean(dim=0)
    predictions = model(inputs).predictions
    for task in tasks:
        torch.testing.assert_close(predictions[task], model.heads[task](features))


def test_logits_are_trained_after_the_warm_up_only(mlp, tasks, make_inputs):
    model, inputs = LTB(tasks, mlp.make, nodes=3, warmup_fraction=0.5), make_inputs(mlp)
    for share, trained in [(0.49, False), (0.5, True)]:
        model.zero_grad()
        model.on_train_step(0.0, share)
        torch.stack([prediction.square().sum() for prediction in model(inputs).predictions.values()]).sum().backward()
        for logits in [*model.branching, *model.head_branching.values()]:
            assert (logits.grad.abs().sum() > 0) == trained


def test_temperature_falls_geometrically_after_the_warm_up(mlp, tasks):
    model = LTB(tasks, mlp.make, warmup_fraction=0.2, temperature=8.0, final_temperature=0.5)
    for share, expected in [(0.2, 8.0), (0.6, 2.0), (1.0, 0.5), (0.1, float("inf")), (0.6, 2.0)]:
        model.on_train_step(0.0, share)
        torch.testing.assert_close(model._temperature, torch.tensor(expected))


@pytest.mark.parametrize("share", [0.0, 0.99])
def test_parents_are_drawn_with_the_probabilities_of_the_softmax_at_any_temperature(mlp, tasks, share):
    model = LTB(tasks, mlp.make, warmup_fraction=0.0)
    model.on_train_step(0.0, share)
    torch.manual_seed(0)
    logits = torch.tensor([0.0, 1.0, -1.0])
    drawn = model._draw(logits.repeat(20_000, 1))
    assert torch.equal(drawn.sum(dim=1), torch.ones(20_000))
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(drawn.mean(dim=0), logits.softmax(dim=0), atol=0.015, rtol=0)


def test_logits_get_the_gradient_of_the_relaxed_draw(mlp, tasks):
    model = LTB(tasks, mlp.make, warmup_fraction=0.0, temperature=2.0)
    model.on_train_step(0.0, 0.0)
    values, logits = torch.tensor([[3.0, -1.0]]), torch.tensor([[0.2, -0.4]], requires_grad=True)
    torch.manual_seed(5)
    (values * model._draw(logits)).sum().backward()
    torch.manual_seed(5)
    noise = -torch.empty(1, 2).exponential_().log()
    soft = ((logits.detach() + noise) / 2).softmax(dim=1)
    expected = soft * (values - (soft * values).sum()) / 2  # the softmax's derivative, by hand
    torch.testing.assert_close(logits.grad, expected)


def test_each_batch_is_drawn_anew_from_the_global_generator(mlp, three_tasks, make_inputs):
    model, inputs = LTB(three_tasks, mlp.make, warmup_fraction=0.0), make_inputs(mlp)
    model.on_train_step(0.0, 0.0)
    torch.manual_seed(1)
    found = [model(inputs).predictions["kind"] for _ in range(10)]
    assert not all(torch.equal(found[0], other) for other in found)
    torch.manual_seed(1)
    assert torch.equal(model(inputs).predictions["kind"], found[0])


@pytest.mark.parametrize("training", [True, False])
def test_a_node_takes_its_input_from_its_parent(mlp, three_tasks, make_inputs, training):
    model, inputs = LTB(three_tasks, mlp.make, nodes=2, warmup_fraction=0.0).train(training), make_inputs(mlp)
    model.on_train_step(0.0, 0.9)
    prefer(model, [[1, 0]], [0, 1, 1])
    (first, second), (other_first, other_second) = stages(model)
    features = [second(other_first(inputs)), other_second(first(inputs))]
    predictions = model(inputs).predictions
    for task, node in zip(three_tasks, [0, 1, 1], strict=True):
        torch.testing.assert_close(predictions[task], model.heads[task](features[node]))


def test_evaluation_computes_the_tree_alone(mlp, tasks, make_inputs):
    model, inputs = LTB(tasks, mlp.make, nodes=4).eval(), make_inputs(mlp)
    prefer(model, [[0, 3, 0, 0]], [1, 2])
    calls = []
    for node, (first, second) in enumerate(stages(model)):
        first.register_forward_hook(lambda *_, node=node: calls.append((node, 0)))
        second.register_forward_hook(lambda *_, node=node: calls.append((node, 1)))
    model(inputs)
    # Nodes 1 and 2 of the first layer may leave something to the second; nothing needs the second layer's 0 and 3.
    assert sorted(calls) == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0)]


def test_compiled_evaluation_gives_the_same(mlp, tasks, make_inputs):
    model, inputs = LTB(tasks, mlp.make, nodes=3).eval(), make_inputs(mlp)
    prefer(model, [[2, 0, 1]], [1, 2])
    compiled = torch.compile(model, backend="eager", fullgraph=True)(inputs).predictions
    for task, prediction in model(inputs).predictions.items():
        torch.testing.assert_close(compiled[task], prediction)


def test_equal_logits_share_the_first_node(mlp, tasks, make_inputs):
    model, inputs = LTB(tasks, mlp.make).eval(), make_inputs(mlp)
    for task in tasks:
        torch.testing.assert_close(model(inputs).predictions[task], model.heads[task](model.nodes["0"](inputs)))


@pytest.mark.parametrize("training", [True, False])
def test_each_copy_has_its_own_stage_cache(tasks, training):
    model, inputs = LTB(tasks, Remembering, warmup_fraction=0.0).train(training), torch.randn(2, 4)
    model.on_train_step(0.0, 0.9)
    prefer(model, [[1, 0]], [0, 1])
    (first, second), (other_first, other_second) = stages(model)
    features = [second(other_first(inputs)) + first(inputs), other_second(first(inputs)) + other_first(inputs)]
    predictions = model(inputs).predictions
    for task, last in zip(tasks, features, strict=True):
        torch.testing.assert_close(predictions[task], model.heads[task](last))


def test_before_the_first_training_step_parents_are_mixed_by_the_softmax(mlp, tasks):
    logits = torch.tensor([[0.5, -1.0], [2.0, 0.0]])
    torch.testing.assert_close(LTB(tasks, mlp.make)._draw(logits), logits.softmax(dim=1))


@pytest.mark.parametrize("training", [True, False])
def test_one_node_is_hard_sharing(mlp, tasks, make_inputs, training):
    model, inputs = LTB(tasks, mlp.make, nodes=1, warmup_fraction=0.0).train(training), make_inputs(mlp)
    model.on_train_step(0.0, 0.5)
    for task in tasks:
        torch.testing.assert_close(model(inputs).predictions[task], model.heads[task](model.nodes["0"](inputs)))


def test_nodes_sets_the_number_of_copies_and_of_logits(mlp, tasks):
    model = LTB(tasks, mlp.make, nodes=5)
    assert len(model.nodes) == 5
    assert [tuple(logits.shape) for logits in model.branching] == [(5, 5)]
    assert {task: tuple(logits.shape) for task, logits in model.head_branching.items()} == {"kind": (5,), "place": (5,)}
    assert len(LTB(tasks, mlp.make).nodes) == 2


def test_logits_have_their_own_learning_rate(mlp, tasks):
    groups = LTB(tasks, mlp.make, branching_lr_scale=7.0).parameter_groups()
    assert {group.name: (group.task, group.lr_scale) for group in groups} == {
        "shared": (None, 1.0),
        "branching": (None, 7.0),
        "kind": ("kind", 1.0),
        "kind_branching": ("kind", 7.0),
        "place": ("place", 1.0),
        "place_branching": ("place", 7.0),
    }


def test_progress_of_the_annealing_is_not_part_of_the_state(mlp, tasks):
    model = LTB(tasks, mlp.make)
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize(
    ("argument", "wrong", "bounds"),
    [
        ("nodes", 0, ">= 1, or null"),
        ("warmup_fraction", 1.0, r"in \[0, 1\)"),
        ("warmup_fraction", -0.1, r"in \[0, 1\)"),
        ("temperature", 0.0, "> 0"),
        ("temperature", float("inf"), "> 0 and finite"),
        ("final_temperature", 0.0, "> 0"),
        ("final_temperature", 6.0, "> 0 and <= temperature"),
        ("branching_lr_scale", 0.0, "> 0"),
    ],
)
def test_arguments_out_of_bounds_are_refused(mlp, tasks, argument, wrong, bounds):
    with pytest.raises(ValueError, match=f"^{argument} must be {bounds}, found {wrong}"):
        LTB(tasks, mlp.make, **{argument: wrong})
