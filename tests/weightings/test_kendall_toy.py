"""Uncertainty weighting against published numbers: the toy problem of the paper's first author."""

import numpy
import pytest
import torch
from torch import nn

from mtlrun.weightings import Uncertainty

# sigma of the two tasks, as printed in github.com/yaringal/multi-task-learning-example; the truth is [10, 1].
PUBLISHED = [8.587499618530273, 0.9198104739189148]


@pytest.mark.slow
def test_the_learned_deviations_are_the_published_ones():
    numpy.random.seed(0)
    torch.manual_seed(0)
    size = 100
    inputs = numpy.random.randn(size, 1)
    first = 2 * inputs + 8 + 10 * numpy.random.randn(size, 1)
    second = 3 * inputs + 3 + numpy.random.randn(size, 1)
    data = [torch.tensor(values, dtype=torch.float32) for values in (inputs, first, second)]

    network = nn.ModuleList([nn.Linear(1, 1024), nn.Linear(1024, 1), nn.Linear(1024, 1)])
    weighting = Uncertainty()
    weighting.setup(2)
    optimizer = torch.optim.Adam([*network.parameters(), *weighting.parameters()])
    order = numpy.arange(size)
    for _ in range(2000):
        numpy.random.shuffle(order)
        for batch in order.reshape(5, 20):
            x, *targets = (values[batch] for values in data)
            hidden = torch.relu(network[0](x))
            losses = torch.stack(
                [(head(hidden) - y).square().mean() for head, y in zip(list(network)[1:], targets, strict=True)]
            )
            optimizer.zero_grad()
            (2 * weighting.objective(losses)).backward()  # the published loss is exp(-s) L + s
            optimizer.step()
    found = torch.exp(0.5 * weighting.log_variance).tolist()
    assert found == pytest.approx(PUBLISHED, rel=2e-4)
