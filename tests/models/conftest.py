"""Small tasks and backbones."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from mtlrun.models.backbones import MLP, LeNet, ResNet
from mtlrun.tasks import Classification, Regression

BACKBONES = {
    "mlp": SimpleNamespace(make=partial(MLP, (2, 3, 3), hidden=[12, 8]), input_shape=(2, 3, 3)),
    "lenet": SimpleNamespace(
        make=partial(LeNet, (1, 16, 16), channels=(3, 4), features=8, dropout=0.0), input_shape=(1, 16, 16)
    ),
    "resnet18": SimpleNamespace(make=partial(ResNet, (3, 8, 8), stem="small"), input_shape=(3, 8, 8)),
}


@pytest.fixture(params=BACKBONES)
def backbone(request):
    """Return a backbone's factory `make` and its `input_shape`."""
    return BACKBONES[request.param]


@pytest.fixture
def mlp():
    return BACKBONES["mlp"]


@pytest.fixture
def tasks():
    return {"kind": Classification(3), "place": Regression(2)}


@pytest.fixture
def three_tasks(tasks):
    return tasks | {"size": Regression(1)}


@pytest.fixture
def make_inputs():
    def make(backbone, batch=4):
        return torch.randn(batch, *backbone.input_shape, generator=torch.Generator().manual_seed(1))

    return make
