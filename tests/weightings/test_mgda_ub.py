"""MGDA-UB, which is MGDA with other settings."""

import torch

from mtlrun.config.compose import compose
from mtlrun.config.instantiate import build
from mtlrun.gradients import backward
from mtlrun.weightings import MGDA


def test_mgda_ub_weighs_the_gradients_with_respect_to_the_representation():
    weighting = build(compose(["weighting=mgda_ub"])["weighting"], "weighting")
    assert isinstance(weighting, MGDA)
    weighting.setup(2)
    torch.manual_seed(0)
    trunk, heads = torch.nn.Linear(5, 4), [torch.nn.Linear(4, 1), torch.nn.Linear(4, 3)]
    representation = torch.tanh(trunk(torch.randn(6, 5)))
    losses = [head(representation).square().mean() + 0.1 for head in heads]

    rows = [torch.autograd.grad(loss, representation, retain_graph=True)[0].flatten().double() for loss in losses]
    # Divided by norm and loss; the closed form for two tasks.
    first, second = (row / row.norm() / loss.item() for row, loss in zip(rows, losses, strict=True))
    share = ((second - first) @ second / (first - second).square().sum()).clamp(0, 1).item()
    combined = share * losses[0] + (1 - share) * losses[1]
    expected = torch.autograd.grad(combined, [*trunk.parameters(), heads[0].weight], retain_graph=True)

    update = backward(
        weighting, losses, list(trunk.parameters()), [list(head.parameters()) for head in heads],
        representation=representation,
    )  # fmt: skip
    torch.testing.assert_close(update.weights, torch.tensor([share, 1 - share], dtype=torch.float64), rtol=1e-4, atol=0)
    for parameter, gradient in zip([*trunk.parameters(), heads[0].weight], expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-7)
