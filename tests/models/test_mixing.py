"""How large each network's weights are in the mixtures of models that mix networks."""

import pytest
import torch

from mtlrun.models import NDDR, CrossStitch, Sluice
from mtlrun.models.backbones import MLP
from mtlrun.tasks import Classification

TASKS = {name: Classification(num_classes=2) for name in ("a", "b", "c")}


def make(kind, tasks=TASKS, **options):
    return kind(tasks, lambda: MLP(input_shape=(5,), hidden=[4, 6]), **options)


@pytest.mark.parametrize("kind", [CrossStitch, Sluice, NDDR])
def test_mixing_is_the_fraction_of_each_network(kind):
    model = make(kind, self_weight=0.8)
    mixing = model.mixing()
    assert mixing.shape == (2, 3, 3)
    torch.testing.assert_close(mixing.sum(dim=-1), torch.ones(2, 3))
    # At the start all others are alike; the subspaces of a sluice network's task are more than one.
    own = 0.84 if kind is Sluice else 0.8
    torch.testing.assert_close(mixing.diagonal(dim1=1, dim2=2), torch.full((2, 3), own))
    others = mixing[:, ~torch.eye(3, dtype=torch.bool)]
    torch.testing.assert_close(others, torch.full_like(others, (1 - own) / 2))


def test_mixing_is_directed():
    model = make(CrossStitch)
    with torch.no_grad():
        model.units[1].alpha[0] = torch.tensor([1.0, -3.0, 0.0]).unsqueeze(1)
    torch.testing.assert_close(model.mixing()[1, 0], torch.tensor([0.25, 0.75, 0.0]))
    torch.testing.assert_close(model.mixing()[1, 1], torch.tensor([0.05, 0.9, 0.05]))

    model = make(NDDR)
    weight = model.layers[0]["b"][0].weight
    with torch.no_grad():
        weight.zero_()
        weight[2, 9] = -2.0  # a channel of c
        weight[3, 0] = 1.0  # a channel of a
    torch.testing.assert_close(model.mixing()[0, 1], torch.tensor([1 / 3, 0.0, 2 / 3]))

    model = make(Sluice)
    with torch.no_grad():
        model.units[0].alpha[2:4] = 0.0  # both subspaces of b
        model.units[0].alpha[2, 5] = -1.0  # the second subspace of c
        model.units[0].alpha[3, 0] = 3.0  # the first one of a
    torch.testing.assert_close(model.mixing()[0, 1], torch.tensor([0.75, 0.0, 0.25]))


def test_the_network_of_a_single_task_is_its_only_mixture():
    for kind in (CrossStitch, Sluice, NDDR):
        assert (make(kind, {"a": TASKS["a"]}).mixing() == 1).all()
