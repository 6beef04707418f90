"""Lookahead affinities can be measured of every model that shares parameters, which stays as it was."""

import torch
from architectures import NAMES, make

from mtlrun.errors import ConfigError
from mtlrun.models.backbones import MLP
from mtlrun.tasks import Regression
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.lookahead import measure_affinity


def test_measuring_leaves_every_model_as_it_was():
    tasks = {name: Regression() for name in ("a", "b", "c")}
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(8, 5, generator=generator)
    targets = {name: torch.randn(8, generator=generator) for name in tasks}
    batch = LabeledBatch.load(tasks, (inputs, targets), torch.device("cpu"))
    measured = []
    for name in NAMES:
        backbone = lambda: MLP(input_shape=(5,), hidden=[6, 6], dropout=0.3, norm="batch")  # noqa: E731
        try:
            model = make(name, tasks, backbone)
        except ConfigError:
            continue  # for maps, or for a pretrained backbone
        shared = model.shared_parameters()
        if not shared:
            continue
        model.train()
        model.on_train_step(0.0, 0.0)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        random_numbers = torch.random.get_rng_state()
        found = measure_affinity(model, batch, shared, optimizer)
        assert found.shape == (3, 3)
        assert found.isfinite().all(), name
        assert (found.diagonal() > 0).all(), name  # a small step on a loss makes it smaller
        assert torch.equal(torch.random.get_rng_state(), random_numbers), name
        assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items()), name
        measured.append(name)
    assert {"hard", "mmoe", "cross_stitch", "mtan", "ltb", "ple"} <= set(measured)
