"""What must hold for every sharing architecture if the predictions of some tasks only are requested."""

import pytest
import torch
from architectures import NAMES, losses_of, make, perturbed, reached_by

#: Models that are run in another way than with the defaults of their YAML file.
VARIANTS = [
    ("adatt", {"num_task_experts": 2, "num_shared_experts": 1}),
    ("cascade", {"order": ["size", "kind", "place"]}),
    ("cgc", {"num_task_experts": 2, "num_shared_experts": 2}),
    ("dselect_k", {"gate": "per_example", "num_experts": 5}),
    ("hard", {"shared_stages": 1}),
    ("nddr", {"shortcut": True}),
    ("ple", {"num_task_experts": 2, "num_shared_experts": 2}),
]


def check_subsets(model, inputs):
    """Check that subsets of the predictions are those of the full pass; any order may be asked for."""
    perturbed(model).eval()
    full = model(inputs)
    first, second, third = model.task_names
    for asked in ([first], [second], [third], [third, first], [third, second, first]):
        output = model(inputs, asked)
        assert list(output.predictions) == [task for task in model.task_names if task in asked]
        parts = [output.predictions, model(inputs, asked).predictions]
        if full.representation is not None:
            assert torch.equal(output.representation, full.representation)
            parts.append(model.decode(full.representation, asked))
        for predictions in parts:
            for task in asked:
                assert torch.equal(predictions[task], full.predictions[task]), task


def test_requested_predictions_are_those_of_the_full_pass(architecture, backbone, three_tasks, make_inputs):
    check_subsets(architecture(three_tasks, backbone.make), make_inputs(backbone))


def test_dense_requested_predictions_are_those_of_the_full_pass(architecture, maps, dense_tasks, make_inputs):
    check_subsets(architecture(dense_tasks, maps.make), make_inputs(maps))


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
def test_requested_predictions_of_variants_are_those_of_the_full_pass(name, changes, maps, three_tasks, make_inputs):
    check_subsets(make(name, three_tasks, maps.make, **changes), make_inputs(maps))


@pytest.mark.parametrize("asked", [["kind"], ["place", "size"]])
def test_in_training_only_what_is_requested_is_supervised_and_reached(
    architecture, maps, three_tasks, make_inputs, asked
):
    model = perturbed(architecture(three_tasks, maps.make))
    full, output = model(make_inputs(maps)), model(make_inputs(maps), asked)
    assert list(output.predictions) == asked
    assert [list(supervised.predictions) for supervised in output.auxiliary] == [asked] * len(full.auxiliary)
    owners = {id(p): task for task, parameters in model.task_parameters().items() for p in parameters}
    for name, reached in reached_by(model, losses_of(output)).items():
        assert not reached or owners.get(id(model.get_parameter(name)), asked[0]) in asked, name
    assert (output.domain_logits is None) == (full.domain_logits is None)
    assert output.regularizers.keys() == full.regularizers.keys()
    if architecture.args[0] != "adversarial":  # its penalty is on features, which other tasks do not have then
        for term, value in full.regularizers.items():
            assert torch.equal(output.regularizers[term], value), term


def own_modules(model, task):
    """Return {name: module} of those that have parameters, all of which belong to this task alone."""
    task_params = {id(parameter) for parameter in model.task_parameters()[task]}
    parameters = {name: {id(p) for p in module.parameters()} for name, module in model.named_modules()}
    return {name: model.get_submodule(name) for name, found in parameters.items() if found and found <= task_params}


def modules_run(model, inputs, asked, task):
    """Return the names of a task's modules that are run if `asked` are requested."""
    found = set()
    hooks = [
        module.register_forward_hook(lambda *_, name=name: found.add(name))
        for name, module in own_modules(model, task).items()
    ]
    model.eval()(inputs, asked)
    for hook in hooks:
        hook.remove()
    return found


def check_what_is_run(model, inputs):
    first, *others = model.task_names
    for task in others:
        assert modules_run(model, inputs, None, task)
        assert not modules_run(model, inputs, [first], task)
    assert modules_run(model, inputs, [first], first) == modules_run(model, inputs, None, first)


def test_modules_that_only_other_tasks_need_are_not_run(architecture, maps, three_tasks, make_inputs):
    check_what_is_run(architecture(three_tasks, maps.make), make_inputs(maps))


@pytest.mark.parametrize(("name", "changes"), [pair for pair in VARIANTS if pair[0] != "cascade"])
def test_modules_that_only_other_tasks_need_are_not_run_by_variants(name, changes, maps, three_tasks, make_inputs):
    check_what_is_run(make(name, three_tasks, maps.make, **changes), make_inputs(maps))


@pytest.mark.parametrize("name", NAMES)
def test_tasks_that_the_model_lacks_are_refused(name, mlp, three_tasks, make_inputs):
    model = make(name, three_tasks, mlp.make)
    for asked, found in [(["kind", "sizes"], "kind, sizes"), ([], "none")]:
        with pytest.raises(ValueError, match=f"tasks must be null or one or more of kind, place, size, found {found}$"):
            model(make_inputs(mlp), asked)
