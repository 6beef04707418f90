"""The memory of methods that see every entry of the task gradients."""

from functools import partial

import pytest
import torch
from alive_bytes import AliveBytes
from test_micro_batches import configured
from torch import nn

from mtlrun.gradients import GradientStep
from mtlrun.models import HardSharing
from mtlrun.models.backbones import MLP
from mtlrun.tasks import Classification
from mtlrun.training.forward import ModelSharing
from mtlrun.weightings import PartsWeighting

#: What a step of 3 tasks takes at its peak beside parameters and state, in units of the shared parameters: the Jacobian
#: is 3 of them, one gradient on its way into it another, the direction another; MoDo has three Jacobians.
MOST = {"db_mtl": 5.2, "moco": 5.2, "metabalance": 5.2, "bloop": 6.2, "graddrop": 11.5, "modo": 11.2, "sdmgrad": 12.2}


def peak_of_step(name, width=256, depth=6):
    tasks = {task: Classification(2) for task in ("kind", "other", "third")}
    model = HardSharing(tasks, partial(MLP, (width,), hidden=[width] * depth))
    weighting, inputs, labels = configured(name), torch.randn(12, width), torch.randint(2, (12,))
    for _ in range(2):  # the first step makes the method's state
        model.zero_grad()
        with AliveBytes([*model.parameters(), *weighting.buffers()]) as tensors:
            output = model(inputs)

            def losses(number=1, start=0, output=output):
                each = output.predictions.values()
                return [nn.functional.cross_entropy(value[start::number], labels[start::number]) for value in each]

            parts = []
            if isinstance(weighting, PartsWeighting):
                parts = [losses(weighting.num_parts, start) for start in range(weighting.num_parts)]
            step = GradientStep(weighting, ModelSharing(model).of(list(tasks)))
            step.add(losses(), representation=output.representation, parts=parts)
            step.finish()
    return tensors.peak / sum(parameter.nbytes for parameter in model.trunk.parameters())


@pytest.mark.parametrize("name", MOST)
def test_a_step_takes_no_more_than_the_jacobian_and_what_the_method_needs(name):
    assert 3 < peak_of_step(name) < MOST[name]
