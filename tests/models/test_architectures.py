"""What must hold for every sharing architecture, with the defaults of its YAML file, on every kind of backbone."""

import inspect
from functools import partial
from itertools import product

import pytest
import torch
import yaml
from architectures import CONF, NAMES, losses_of, make, penalties_of, perturbed, reached_by
from helpers import diagonal, sample_of, shipped_node
from torch import nn

import mtlrun.models
from mtlrun.config.instantiate import build
from mtlrun.models import MultiTaskModel, Output, SharedRepresentationModel
from mtlrun.models.backbones import MLP, LeNet
from mtlrun.models.heads import MLPHead
from mtlrun.tasks import Classification

#: What makes a model of one task the plain network, besides its defaults.
PLAIN_ALONE = {
    "hard": {},
    "single": {},
    "soft": {},
    "cross_stitch": {},
    "nddr": {},
    "soft_trace": {},
    "lora": {},
    "adapters": {},
    "task_routing": {},
    "sluice": {"self_weight": 1.0, "last_stage_weight": 1.0, "orthogonality_weight": 0.0},
}


def test_every_shipped_model_has_a_yaml():
    shipped = {cls for _, cls in inspect.getmembers(mtlrun.models, inspect.isclass) if issubclass(cls, MultiTaskModel)}
    targets = {yaml.safe_load((CONF / f"{name}.yaml").read_text())["_target_"] for name in NAMES}
    assert {f"mtlrun.models.{cls.__name__}" for cls in shipped - {MultiTaskModel, SharedRepresentationModel}} == targets


#: The backbones for images.
BACKBONES = sorted({path.stem for path in (CONF.parent / "backbone").glob("*.yaml")} - {"embedding_mlp", "tabular"})
#: Each model with one of them.
DIAGONAL = diagonal(NAMES, BACKBONES)


@pytest.mark.parametrize(
    ("architecture", "backbone_name"),
    sample_of(
        lambda model, backbone: model == "hard" or backbone == "mlp" or (model, backbone) in DIAGONAL,
        product(NAMES, BACKBONES),
    ),
    indirect=["architecture"],
)
def test_every_model_trains_on_every_backbone_for_images(architecture, backbone_name, tasks):
    node = shipped_node("backbone", backbone_name) | {"width": 0.25}
    backbone = build(node, "backbone", partial=True, input_shape=(3, 16, 16))
    model = architecture(tasks, backbone)
    output = model(torch.randn(4, 3, 16, 16))
    assert {task: tuple(prediction.shape) for task, prediction in output.predictions.items()} == {
        "kind": (4, 3),
        "place": (4, 2),
    }
    torch.stack([*losses_of(output).values(), *penalties_of(output)]).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


def test_predictions_have_the_output_size_of_their_task(architecture, backbone, tasks, make_inputs):
    model = architecture(tasks, backbone.make)
    shapes = {task: tuple(prediction.shape) for task, prediction in model(make_inputs(backbone)).predictions.items()}
    assert shapes == {"kind": (4, 3), "place": (4, 2)}
    assert list(shapes) == list(model.task_names) == ["kind", "place"]


def test_dense_predictions_have_the_size_of_the_input(architecture, maps, dense_tasks, make_inputs):
    model = architecture(dense_tasks, maps.make)
    output = model(make_inputs(maps))
    assert isinstance(output, Output)
    shapes = {task: tuple(prediction.shape) for task, prediction in output.predictions.items()}
    assert shapes == {"heat": (4, 2, 8, 10), "flow": (4, 1, 8, 10), "place": (4, 2)}
    losses_of(output)


def check_partition(model, inputs):
    output = model(inputs)
    found = reached_by(model, losses_of(output))
    penalized = reached_by(model, {"penalty": sum(penalties_of(output))}) if penalties_of(output) else {}
    groups = {id(p): group for group in model.parameter_groups() for p in group.parameters}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        group = groups[id(parameter)]
        if group.task is not None:
            assert found[name] == {group.task}, name
        elif found[name]:
            assert found[name] == set(group.shared_by or model.task_names), name
            assert len(found[name]) > 1 or len(model.task_names) == 1, name
        else:
            assert penalized[name], name  # a discriminator, say, which no task's loss reaches


def test_parameter_groups_are_exactly_what_autograd_sees(architecture, backbone, three_tasks, make_inputs):
    check_partition(architecture(three_tasks, backbone.make), make_inputs(backbone))


def test_parameter_groups_are_what_autograd_sees_of_dense_tasks(architecture, maps, dense_tasks, make_inputs):
    check_partition(architecture(dense_tasks, maps.make), make_inputs(maps))


def test_parameter_groups_hold_each_parameter_once(architecture, backbone, tasks):
    model = architecture(tasks, backbone.make)
    listed = [id(parameter) for group in model.parameter_groups() for parameter in group.parameters]
    assert sorted(listed) == sorted(id(parameter) for parameter in model.parameters())
    names = [group.name for group in model.parameter_groups()]
    assert len(names) == len(set(names))


def test_every_parameter_gets_a_gradient_other_than_zero(architecture, backbone, three_tasks, make_inputs):
    model = perturbed(architecture(three_tasks, backbone.make))
    output = model(make_inputs(backbone, batch=8))
    torch.stack([*losses_of(output).values(), *penalties_of(output)]).sum().backward()
    for name, parameter in model.named_parameters():
        assert not parameter.requires_grad or parameter.grad.abs().sum() > 0, name


def test_terms_of_the_objective_are_left_out_in_evaluation(architecture, mlp, tasks, make_inputs):
    output = architecture(tasks, mlp.make).eval()(make_inputs(mlp))
    assert not output.auxiliary
    assert not output.regularizers
    assert output.domain_logits is None


def test_a_representation_separates_shared_from_task_parameters(architecture, backbone, tasks, make_inputs):
    model = architecture(tasks, backbone.make)
    output = model(make_inputs(backbone))
    assert (output.representation is not None) == isinstance(model, SharedRepresentationModel)
    if output.representation is None:
        return
    cut = output.representation.detach().requires_grad_()
    decoded = losses_of(Output(model.decode(cut)))
    task_params = {id(p) for parameters in model.task_parameters().values() for p in parameters}
    for name, reached in reached_by(model, decoded).items():
        assert bool(reached) == (id(model.get_parameter(name)) in task_params), name


def test_shared_and_task_parameters_follow_the_groups_and_leave_out_frozen_ones(architecture, mlp, tasks):
    model = architecture(tasks, mlp.make)
    frozen = next(parameter for parameter in model.parameters() if parameter.requires_grad)
    frozen.requires_grad_(False)
    groups = model.parameter_groups()
    shared = [id(p) for group in groups if group.task is None for p in group.parameters if p.requires_grad]
    assert [id(p) for p in model.shared_parameters()] == shared
    task_params = model.task_parameters()
    assert list(task_params) == ["kind", "place"]
    assert {id(p) for group in task_params.values() for p in group} == {
        id(p) for p in model.parameters() if p.requires_grad and id(p) not in shared
    }


@pytest.mark.parametrize("name", PLAIN_ALONE)
def test_one_task_alone_is_the_plain_network(name, backbone, make_inputs):
    torch.manual_seed(3)
    model = make(name, {"kind": Classification(3)}, backbone.make, **PLAIN_ALONE[name])
    torch.manual_seed(3)
    trunk = backbone.make()
    plain = nn.Sequential(trunk, MLPHead(trunk.feature_shape, (3,)))
    inputs = make_inputs(backbone)
    output = model(inputs)
    torch.testing.assert_close(output.predictions["kind"], plain(inputs))
    assert not output.regularizers


def test_one_task_alone_works(architecture, backbone, make_inputs):
    model = architecture({"kind": Classification(3)}, backbone.make)
    check_partition(model, make_inputs(backbone))


def test_state_makes_another_instance_predict_the_same(architecture, backbone, tasks, make_inputs):
    torch.manual_seed(0)
    model, other = perturbed(architecture(tasks, backbone.make)), architecture(tasks, backbone.make)
    model(10 * make_inputs(backbone))  # moves what BatchNorm remembers
    other.load_state_dict(model.state_dict())
    model.eval()
    other.eval()
    inputs = make_inputs(backbone)
    for task, prediction in model(inputs).predictions.items():
        assert torch.equal(other(inputs).predictions[task], prediction)
    fresh = architecture(tasks, backbone.make).eval()
    assert not torch.equal(fresh(inputs).predictions["kind"], model(inputs).predictions["kind"])


def test_prediction_in_evaluation_does_not_depend_on_the_rest_of_the_batch(architecture, backbone, tasks, make_inputs):
    model = architecture(tasks, backbone.make).eval()
    inputs = make_inputs(backbone)
    whole, alone = model(inputs).predictions, model(inputs[1:2]).predictions
    for task in tasks:
        torch.testing.assert_close(alone[task], whole[task][1:2], rtol=1e-4, atol=1e-5)


def test_evaluation_gives_the_same_twice(architecture, maps, dense_tasks, make_inputs):
    model = architecture(dense_tasks, maps.make).eval()
    inputs = make_inputs(maps)
    first, second = model(inputs).predictions, model(inputs).predictions
    for task in dense_tasks:
        assert torch.equal(first[task], second[task])


def test_dropout_acts_in_training_and_not_in_evaluation(architecture, tasks):
    # Frozen networks stay in evaluation mode.
    changes = {"freeze": False} if architecture.args == ("concat",) else {}
    model = architecture(tasks, partial(LeNet, (1, 16, 16), dropout=0.5), **changes)
    inputs = torch.randn(4, 1, 16, 16)
    assert not torch.equal(model(inputs).predictions["kind"], model(inputs).predictions["kind"])
    model.eval()
    assert torch.equal(model(inputs).predictions["kind"], model(inputs).predictions["kind"])


def test_a_task_may_bring_its_own_head(architecture, mlp, make_inputs):
    tasks = {"kind": Classification(3, head=partial(MLPHead, hidden=[5, 7])), "other": Classification(4)}
    model = architecture(tasks, mlp.make)
    shapes = {task: [tuple(p.shape) for p in parameters] for task, parameters in model.task_parameters().items()}
    assert (7, 5) in shapes["kind"]
    assert (7, 5) not in shapes["other"]
    assert model(make_inputs(mlp)).predictions["kind"].shape == (4, 3)


def test_only_single_task_networks_are_independent(architecture, mlp, tasks):
    model = architecture(tasks, mlp.make)
    assert model.independent_tasks == (architecture.args[0] == "single")
    if not model.independent_tasks:
        with pytest.raises(NotImplementedError, match=f"the tasks of {type(model).__name__} are not independent"):
            model.state_prefixes(["kind"])


@pytest.mark.parametrize(
    "architecture",
    sample_of(lambda model: model in {"hard", "cross_stitch", "ltb", "mtan", "single"}, [(name,) for name in NAMES]),
    indirect=True,
)
def test_a_model_can_be_compiled_and_exported(architecture, maps, dense_tasks, make_inputs):
    model = architecture(dense_tasks, maps.make).eval()
    inputs = make_inputs(maps)
    with torch.no_grad():
        expected = model(inputs).predictions
        torch.compiler.reset()
        compiled = torch.compile(model, backend="eager")(inputs).predictions
        exported = torch.export.export(model, (inputs,), strict=False).module()(inputs).predictions
    for task, prediction in expected.items():
        torch.testing.assert_close(compiled[task], prediction)
        torch.testing.assert_close(exported[task], prediction)


def test_a_task_may_be_called_first():
    tasks = {task: Classification(2) for task in ("first", "stage_shapes")}
    for name in NAMES:
        model = make(name, tasks, partial(MLP, (4,), hidden=[6, 5])).train()
        assert list(model(torch.randn(3, 4)).predictions) == list(tasks), name
