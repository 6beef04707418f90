"""What must hold for every sharing architecture on every backbone."""

import inspect
from functools import partial

import pytest
import torch
from torch import nn

import mtlrun.models
from mtlrun.models import CrossStitch, HardSharing, MultiTaskModel, SharedRepresentationModel, SingleTask, SoftSharing
from mtlrun.models.backbones import LeNet
from mtlrun.models.heads import MLPHead
from mtlrun.tasks import Classification

MODELS = {"cross_stitch": CrossStitch, "hard": HardSharing, "single": SingleTask, "soft": SoftSharing}


@pytest.fixture(params=MODELS)
def architecture(request):
    return MODELS[request.param]


def losses_of(model, inputs):
    return {task: prediction.square().sum() for task, prediction in model(inputs).items()}


def test_every_shipped_model_is_in_the_table():
    shipped = {cls for _, cls in inspect.getmembers(mtlrun.models, inspect.isclass) if issubclass(cls, MultiTaskModel)}
    assert shipped - {MultiTaskModel, SharedRepresentationModel} == set(MODELS.values())


def test_predictions_have_the_output_size_of_their_task(architecture, backbone, tasks, make_inputs):
    model = architecture(tasks, backbone.make)
    shapes = {task: tuple(prediction.shape) for task, prediction in model(make_inputs(backbone)).items()}
    assert shapes == {"kind": (4, 3), "place": (4, 2)}
    assert list(shapes) == list(model.task_names) == ["kind", "place"]


def test_parameter_groups_are_exactly_what_autograd_sees(architecture, backbone, tasks, make_inputs):
    model = architecture(tasks, backbone.make)
    losses = losses_of(model, make_inputs(backbone))
    names, parameters = zip(*model.named_parameters(), strict=True)
    reached_by = {name: set() for name in names}
    for task, loss in losses.items():
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        for name, gradient in zip(names, gradients, strict=True):
            if gradient is not None:
                reached_by[name].add(task)
    declared = {id(p): group.task for group in model.parameter_groups() for p in group.parameters}
    for name, parameter in zip(names, parameters, strict=True):
        task = declared[id(parameter)]
        assert reached_by[name] == ({"kind", "place"} if task is None else {task}), name


def test_parameter_groups_hold_each_parameter_once(architecture, backbone, tasks):
    model = architecture(tasks, backbone.make)
    listed = [id(parameter) for group in model.parameter_groups() for parameter in group.parameters]
    assert sorted(listed) == sorted(id(parameter) for parameter in model.parameters())
    names = [group.name for group in model.parameter_groups()]
    assert len(names) == len(set(names))


def test_every_parameter_gets_a_gradient_other_than_zero(architecture, backbone, tasks, make_inputs):
    model = architecture(tasks, backbone.make)
    sum(losses_of(model, make_inputs(backbone, batch=8)).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_shared_and_task_parameters_follow_the_groups_and_leave_out_frozen_ones(architecture, mlp, tasks):
    model = architecture(tasks, mlp.make)
    groups = model.parameter_groups()
    shared = [p for group in groups if group.task is None for p in group.parameters]
    frozen = next(model.parameters())
    frozen.requires_grad_(False)
    kept = [id(p) for p in shared if p is not frozen]
    assert [id(p) for p in model.shared_parameters()] == kept
    own = model.task_parameters()
    assert list(own) == ["kind", "place"]
    assert {id(p) for group in own.values() for p in group} == {
        id(p) for p in model.parameters() if p is not frozen and id(p) not in kept
    }


def test_one_task_alone_is_the_plain_network(architecture, backbone, make_inputs):
    torch.manual_seed(3)
    model = architecture({"kind": Classification(3)}, backbone.make)
    torch.manual_seed(3)
    trunk = backbone.make()
    plain = nn.Sequential(trunk, MLPHead(trunk.num_features, 3))
    inputs = make_inputs(backbone)
    torch.testing.assert_close(model(inputs)["kind"], plain(inputs))
    assert not model.regularisers()


def test_state_makes_another_instance_predict_the_same(architecture, backbone, tasks, make_inputs):
    model, other = architecture(tasks, backbone.make), architecture(tasks, backbone.make)
    model(10 * make_inputs(backbone))  # moves what BatchNorm remembers
    other.load_state_dict(model.state_dict())
    model.eval()
    other.eval()
    inputs = make_inputs(backbone)
    for task, prediction in model(inputs).items():
        assert torch.equal(other(inputs)[task], prediction)
    fresh = architecture(tasks, backbone.make).eval()
    assert not torch.equal(fresh(inputs)["kind"], model(inputs)["kind"])


def test_prediction_in_evaluation_does_not_depend_on_the_rest_of_the_batch(architecture, backbone, tasks, make_inputs):
    model = architecture(tasks, backbone.make).eval()
    inputs = make_inputs(backbone)
    whole, alone = model(inputs), model(inputs[1:2])
    for task in tasks:
        torch.testing.assert_close(alone[task], whole[task][1:2], rtol=1e-4, atol=1e-5)


def test_dropout_acts_in_training_and_not_in_evaluation(architecture, tasks):
    model = architecture(tasks, partial(LeNet, (1, 16, 16), dropout=0.5))
    inputs = torch.randn(4, 1, 16, 16)
    assert not torch.equal(model(inputs)["kind"], model(inputs)["kind"])
    model.eval()
    assert torch.equal(model(inputs)["kind"], model(inputs)["kind"])


def test_a_task_may_bring_its_own_head(architecture, mlp, make_inputs):
    tasks = {"kind": Classification(3, head=partial(MLPHead, hidden=[5, 7])), "other": Classification(4)}
    model = architecture(tasks, mlp.make)
    own = {task: [tuple(p.shape) for p in parameters] for task, parameters in model.task_parameters().items()}
    assert own["kind"][-6:] == [(5, 8), (5,), (7, 5), (7,), (3, 7), (3,)]
    assert own["other"][-2:] == [(4, 8), (4,)]
    assert model(make_inputs(mlp))["kind"].shape == (4, 3)


def test_only_single_task_networks_are_independent(architecture, mlp, tasks):
    model = architecture(tasks, mlp.make)
    assert model.independent_tasks == (architecture is SingleTask)
    if not model.independent_tasks:
        with pytest.raises(NotImplementedError, match=f"the tasks of {architecture.__name__} are not independent"):
            model.state_prefixes(["kind"])
