"""A small network with two shared layers and three heads, and what each shipped weighting needs of a training loop."""

import torch
from torch import nn

#: Weighting -> what the loop gives besides losses; docs/library.md has the same table.
NEEDS = {
    "dwa": "steps_per_epoch",
    "excess_mtl": "steps_per_epoch",
    "igb": "steps_per_epoch",
    "lbtw": "steps_per_epoch",
    "stch": "steps_per_epoch",
    "balancer": "representation",
    "mgda_ub": "representation",
    "bloop": "primary",
    "gcs": "primary",
    "metabalance": "primary",
    "modo": "parts",
    "sdmgrad": "parts",
    "dtp": "performances",
    "famo": "after_step",
    "static": "weights",
}
#: Weighting that works in a run only.
REFUSED = {"auto_lambda", "rotograd"}
TASKS = ["seg", "depth", "normals"]
WEIGHTS = {"seg": 1.0, "depth": 2.0, "normals": 0.5}


class Network(nn.Module):
    """Two shared layers and a head per task."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4), nn.Tanh())
        self.heads = nn.ModuleDict({name: nn.Linear(4, 1) for name in TASKS})

    def forward(self, inputs):
        features = self.trunk(inputs)
        return features, {name: head(features) for name, head in self.heads.items()}


def batch(step, size=12):
    """Return inputs [size, 3] and {task: targets [size, 1]} of a step; the targets are far from each other."""
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(size, 3, generator=generator)
    noise = torch.randn(len(TASKS), size, 1, generator=generator)
    return inputs, {name: (1 + place) * each for place, (name, each) in enumerate(zip(TASKS, noise, strict=True))}


def losses_of(network, data, tasks=TASKS):
    """Return the representation and {task: mean squared error}."""
    inputs, targets = data
    features, predictions = network(inputs)
    return features, {name: (predictions[name] - targets[name]).square().mean() for name in tasks}


def part(data, number, count):
    """Return every count-th sample of a batch from one on."""
    inputs, targets = data
    return inputs[number::count], {name: target[number::count] for name, target in targets.items()}


def grads(network):
    """Return {name: gradient}; None where there is none."""
    return {name: parameter.grad for name, parameter in network.named_parameters()}


def assert_same_grads(network, other, **tolerances):
    expected = grads(other)
    for name, found in grads(network).items():
        assert (found is None) == (expected[name] is None), name
        if found is not None:
            torch.testing.assert_close(
                found, expected[name], msg=lambda text, name=name: f"{name}: {text}", **tolerances
            )
