"""Single-task baselines."""

import torch

from mtlrun.models import SingleTask


def network_state(model, task):
    (prefix,) = model.state_prefixes([task])
    return {
        key.removeprefix(prefix): value for key, value in model.state_dict().items() if key.startswith(f"{prefix}.")
    }


def test_each_network_starts_as_in_a_run_with_its_task_alone(backbone, tasks):
    torch.manual_seed(7)
    together = SingleTask(tasks, backbone.make)
    for task in tasks:
        torch.manual_seed(7)
        alone = network_state(SingleTask({task: tasks[task]}, backbone.make), task)
        found = network_state(together, task)
        assert alone.keys() == found.keys()
        for key, value in alone.items():
            assert torch.equal(found[key], value), key


def test_random_state_after_the_last_network_is_that_after_it_alone(mlp, tasks):
    torch.manual_seed(7)
    SingleTask(tasks, mlp.make)
    together = torch.rand(1)
    torch.manual_seed(7)
    SingleTask({"place": tasks["place"]}, mlp.make)
    assert torch.equal(torch.rand(1), together)


def test_networks_share_no_memory(mlp, tasks):
    model = SingleTask(tasks, mlp.make)
    first, second = (next(network.parameters()) for network in model.networks.values())
    with torch.no_grad():
        first.zero_()
    assert second.abs().sum() > 0


def test_state_prefixes_divide_the_state_among_the_tasks(backbone, tasks):
    model = SingleTask(tasks, backbone.make)
    prefixes = model.state_prefixes(["kind", "place"])
    assert len(prefixes) == 2
    for key in model.state_dict():
        assert sum(key.startswith(f"{prefix}.") for prefix in prefixes) == 1, key
