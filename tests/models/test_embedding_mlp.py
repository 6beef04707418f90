"""A multi-layer perceptron on columns of a table, by hand and under every sharing architecture."""

from functools import partial

import pytest
import torch
from architectures import losses_of, penalties_of, perturbed
from test_architectures import check_partition

from mtlrun.datasets import InputColumn
from mtlrun.models import Output, SharedRepresentationModel
from mtlrun.models.backbones import EmbeddingMLP

ROWS = 40


def make_inputs(rows=ROWS):
    """Return vectors of a category of 5, a number, an indicator, a number with few values, and a category of 3."""
    generator = torch.Generator().manual_seed(0)
    return torch.stack(
        [
            torch.arange(rows) % 5.0,
            torch.randn(rows, generator=generator),
            torch.arange(rows) % 2.0,
            (torch.arange(rows) % 4).square().float(),
            torch.arange(rows) % 3.0,
        ],
        dim=1,
    )


INPUTS = make_inputs()
COLUMNS = [
    InputColumn("city", "category", 5),
    InputColumn("area", values=INPUTS[:, 1]),
    InputColumn("area is empty", "indicator"),
    InputColumn("rooms", values=INPUTS[:, 3]),
    InputColumn("heat", "category", 3),
]


def network(columns=COLUMNS, **options):
    return EmbeddingMLP((len(columns),), columns, **{"hidden": [12, 8]} | options)


@pytest.mark.parametrize("numbers", ["plain", "piecewise_linear", "periodic"])
def test_every_model_trains_on_columns(architecture, numbers, three_tasks):
    make = partial(network, numbers=numbers)
    for tasks in (three_tasks, {"kind": three_tasks["kind"]}):
        model = perturbed(architecture(tasks, make))
        check_partition(model, INPUTS)
        output = model(INPUTS)
        torch.stack([*losses_of(output).values(), *penalties_of(output)]).sum().backward()
        for name, parameter in model.named_parameters():
            if len(tasks) > 1 or "embed" in name:
                assert not parameter.requires_grad or parameter.grad.abs().sum() > 0, name
        if isinstance(model, SharedRepresentationModel):
            cut = output.representation.detach().requires_grad_()
            losses_of(Output(model.decode(cut)))
        model.eval()
        alone = model(INPUTS[3:4]).predictions
        for task, prediction in model(INPUTS).predictions.items():
            torch.testing.assert_close(alone[task], prediction[3:4], rtol=1e-4, atol=1e-5)
        other = architecture(tasks, make)
        other.load_state_dict(model.state_dict())
        for task, prediction in other.eval()(INPUTS).predictions.items():
            assert torch.equal(prediction, model(INPUTS).predictions[task])
