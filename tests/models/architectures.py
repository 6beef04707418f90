"""The shipped models as the program builds them, and what their losses are for tests."""

from pathlib import Path

import torch
import yaml

from mtlrun.config.instantiate import build

CONF = Path(__file__).parents[2] / "conf" / "model"


def make(name, tasks, backbone, **changes):
    """Build `model=<name>` as the program does."""
    node = yaml.safe_load((CONF / f"{name}.yaml").read_text()) | changes
    return build(node, "model", tasks=tasks, backbone=backbone)


NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))


def perturbed(model):
    """Move all parameters a little, so that what starts at zero or equal does not hide what it is a factor of."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model


def losses_of(output):
    """Return a loss per task, including that of auxiliary predictions."""
    losses = {task: prediction.square().sum() for task, prediction in output.predictions.items()}
    for supervised in output.auxiliary:
        for task, prediction in supervised.predictions.items():
            assert prediction.shape == output.predictions[task].shape
            losses[task] = losses[task] + supervised.weight * prediction.square().sum()
    return losses


def penalties_of(output):
    """Return all that joins the objective besides the tasks' losses."""
    terms = list(output.regularizers.values())
    if output.domain_logits is not None:
        terms.append(output.domain_logits.log_softmax(dim=1)[:, 0].sum())
    return terms


def reached_by(model, losses):
    """Return {name of a parameter: names of the losses whose gradient reaches it}."""
    names, parameters = zip(*((n, p) for n, p in model.named_parameters() if p.requires_grad), strict=True)
    found = {name: set() for name in names}
    for key, loss in losses.items():
        for name, gradient in zip(
            names, torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True), strict=True
        ):
            if gradient is not None:
                found[name].add(key)
    return found
