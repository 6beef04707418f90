"""Small tasks and backbones."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from architectures import NAMES, make
from torch import nn

from mtlrun.models.backbones import MLP, Backbone, LeNet, ResNet
from mtlrun.tasks import Classification, Regression


class TinyMaps(Backbone):
    """Three stages that give maps, with BatchNorm; the second halves the size."""

    def __init__(self, input_shape, width=6):
        channels = [input_shape[0], width, width + 2, width + 2]
        stages = [
            nn.Sequential(
                nn.Conv2d(channels[index], channels[index + 1], 3, stride=2 if index == 1 else 1, padding=1),
                nn.BatchNorm2d(channels[index + 1]),
                nn.ReLU(),
            )
            for index in range(3)
        ]
        super().__init__(stages, input_shape)


class Field(Regression):
    """Real numbers at each pixel: targets [batch, size, height, width]."""

    dense = True


BACKBONES = {
    "mlp": SimpleNamespace(make=partial(MLP, (2, 3, 3), hidden=[12, 8]), input_shape=(2, 3, 3)),
    "lenet": SimpleNamespace(
        make=partial(LeNet, (1, 16, 16), channels=(3, 4), features=8, dropout=0.0), input_shape=(1, 16, 16)
    ),
    "maps": SimpleNamespace(make=partial(TinyMaps, (3, 8, 10)), input_shape=(3, 8, 10)),
    "resnet18": SimpleNamespace(make=partial(ResNet, (3, 8, 8), stem="small"), input_shape=(3, 8, 8)),
}


@pytest.fixture(params=NAMES)
def architecture(request):
    """Return a factory of one of the models, by (tasks, backbone)."""
    return partial(make, request.param)


@pytest.fixture(params=["mlp", pytest.param("lenet", marks=pytest.mark.slow), "maps"])
def backbone(request):
    """Return a backbone's factory `make` and its `input_shape`."""
    return BACKBONES[request.param]


@pytest.fixture
def mlp():
    return BACKBONES["mlp"]


@pytest.fixture
def maps():
    """Return a backbone whose stages all give maps."""
    return BACKBONES["maps"]


@pytest.fixture
def tasks():
    return {"kind": Classification(3), "place": Regression(2)}


@pytest.fixture
def three_tasks(tasks):
    return tasks | {"size": Regression(1)}


@pytest.fixture
def dense_tasks():
    """Return two tasks that predict at each pixel, and one that predicts one number per sample."""
    return {"heat": Field(2), "flow": Field(1), "place": Regression(2)}


@pytest.fixture
def make_inputs():
    def make(backbone, batch=4):
        return torch.randn(batch, *backbone.input_shape, generator=torch.Generator().manual_seed(1))

    return make
