"""Tasks that see the estimates of earlier tasks."""

import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

from mtlrun.models import Cascade
from mtlrun.tasks import Detection


def gradients(model, loss):
    """Return {head: whether the loss reaches it}, and the gradient of the trunk's first parameter."""
    first = {task: next(head.parameters()) for task, head in model.heads.items()}
    found = torch.autograd.grad(loss, [next(model.trunk.parameters()), *first.values()], allow_unused=True)
    return {task: gradient is not None for task, gradient in zip(first, found[1:], strict=True)}, found[0]


@pytest.mark.parametrize(
    ("order", "expected"),
    [(None, ["kind", "place", "size"]), (["size", "kind", "place"], ["size", "kind", "place"])],
)
def test_a_head_sees_the_trunk_and_the_estimates_of_all_earlier_heads(mlp, three_tasks, make_inputs, order, expected):
    model, inputs = Cascade(three_tasks, mlp.make, order=order), make_inputs(mlp)
    predictions = model(inputs).predictions
    assert list(predictions) == ["kind", "place", "size"]
    z = model.trunk(inputs)
    first, second, third = expected
    torch.testing.assert_close(predictions[first], model.heads[first](z))
    seen = torch.cat([z, predictions[first]], dim=1)
    torch.testing.assert_close(predictions[second], model.heads[second](seen))
    seen = torch.cat([z, predictions[first], predictions[second]], dim=1)
    torch.testing.assert_close(predictions[third], model.heads[third](seen))


def test_estimates_take_the_size_of_the_maps_that_they_join(maps, dense_tasks, make_inputs):
    model = Cascade(dense_tasks, maps.make, order=["place", "heat", "flow"]).eval()
    predictions = model(inputs := make_inputs(maps)).predictions
    z = model.trunk(inputs)
    height, width = z.shape[2:]
    assert (height, width) != tuple(predictions["heat"].shape[2:])
    seen = torch.cat([z, predictions["place"][:, :, None, None].repeat(1, 1, height, width)], dim=1)
    torch.testing.assert_close(predictions["heat"], model.heads["heat"](seen))
    seen = torch.cat([seen, adaptive_avg_pool2d(predictions["heat"], (height, width))], dim=1)
    torch.testing.assert_close(predictions["flow"], model.heads["flow"](seen))


def test_losses_of_later_tasks_do_not_reach_earlier_heads(mlp, three_tasks, make_inputs):
    model, inputs = Cascade(three_tasks, mlp.make), make_inputs(mlp)
    predictions = model(inputs).predictions
    reached, trunk = gradients(model, predictions["place"].square().sum())
    assert reached == {"kind": False, "place": True, "size": False}
    constant = predictions["kind"].detach()  # so that the trunk is reached through z alone
    place = model.heads["place"](torch.cat([model.trunk(inputs), constant], dim=1))
    torch.testing.assert_close(trunk, gradients(model, place.square().sum())[1])


def test_losses_of_later_tasks_reach_earlier_heads_without_stop_gradient(mlp, three_tasks, make_inputs):
    model, inputs = Cascade(three_tasks, mlp.make, stop_gradient=False), make_inputs(mlp)
    reached, trunk = gradients(model, model(inputs).predictions["place"].square().sum())
    assert reached == {"kind": True, "place": True, "size": False}
    z = model.trunk(inputs)
    place = model.heads["place"](torch.cat([z, model.heads["kind"](z)], dim=1))
    torch.testing.assert_close(trunk, gradients(model, place.square().sum())[1])


@pytest.mark.parametrize("order", [None, ["size", "place", "kind"]])
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_groups_declare_which_losses_reach_a_head(mlp, three_tasks, make_inputs, order, stop_gradient):
    model = Cascade(three_tasks, mlp.make, order=order, stop_gradient=stop_gradient)
    losses = {task: prediction.sum() for task, prediction in model(make_inputs(mlp)).predictions.items()}
    groups = {group.name: group for group in model.parameter_groups()}
    assert groups["shared"].task is None
    for name, head in model.heads.items():
        found = {
            task
            for task, loss in losses.items()
            if torch.autograd.grad(loss, next(head.parameters()), retain_graph=True, allow_unused=True)[0] is not None
        }
        group = groups[name]
        assert group.parameters == list(head.parameters())
        assert found == ({group.task} if group.task else set(group.shared_by or three_tasks))
        assert (group.task or group.lr_task) == name
    last = (order or list(three_tasks))[-1]
    assert [groups[task].task == task for task in three_tasks] == [stop_gradient or t == last for t in three_tasks]


@pytest.mark.parametrize(
    ("order", "found"),
    [(["kind"], "kind"), (["kind", "color"], "kind, color"), (["kind", "place", "kind"], "kind, place, kind")],
)
def test_orders_that_do_not_name_each_task_once_are_refused(mlp, tasks, order, found):
    with pytest.raises(ValueError, match=f"^order must name each of kind, place once, found {found}$"):
        Cascade(tasks, mlp.make, order=order)


def test_an_empty_order_is_refused(mlp, tasks):
    with pytest.raises(ValueError, match=r"^order must name each of kind, place once, found none$"):
        Cascade(tasks, mlp.make, order=[])


def test_detection_must_be_last_in_the_order(maps, tasks):
    tasks = {"objects": Detection(2), **tasks}
    with pytest.raises(ValueError, match="order must have a task with boxes last"):
        Cascade(tasks, maps.make)
    model = Cascade(tasks, maps.make, order=["kind", "place", "objects"])
    predictions = model(torch.zeros(2, *maps.input_shape)).predictions
    assert predictions["objects"].shape[-1] == 2 + 9
