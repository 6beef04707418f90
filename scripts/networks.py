"""The networks that benchmarks train, made as a run makes them, and other ways to make the same training step.

Every contestant is a function that makes one whole step on the same batch: it brings the batch to the device, predicts,
takes gradients, and lets an optimizer of the configured kind step.
"""

import argparse
import gc
import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import peers
import torch
from torch import Tensor, nn

from mtlrun.config.compose import compose
from mtlrun.config.options import entries
from mtlrun.setup.prepare import prepare
from mtlrun.training.parts import Parts
from mtlrun.training.trainer import Trainer
from mtlrun.weightings.base import TaskGradientWeighting
from mtlrun.weightings.capabilities import LooksAhead, RotatesRepresentation

Step = Callable[[], object]
#: Sets `.grad` of all parameters from the representation and the K losses.
Backward = Callable[[Tensor, Sequence[Tensor]], object]

_CONF = Path(__file__).parent / "noise_conf"
_DENSE = ("segmentation", "depth", "normals")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that benchmarks of these networks have in common."""
    parser.add_argument("--divide", type=int, default=1, help="the batch, for smaller machines; images get 64 pixels")
    parser.add_argument("--width", type=float, default=1.0, help="factor on the channels, with --divide")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=math.inf, help="time budget")
    parser.add_argument("--json", help="write the results to this file as well")


@dataclass(frozen=True)
class Network:
    """A network with hard sharing, and images of noise for it.

    Args:
        name: which the tables have.
        backbone: overrides of the config.
        size: height and width of the images.
        batch_size: samples of a step.
        dense: True for segmentation, depth and normals in turn, False for tasks of classification.
    """

    name: str
    backbone: tuple[str, ...]
    size: tuple[int, int]
    batch_size: int
    dense: bool

    def tasks(self, num_tasks: int) -> list[str]:
        """Return the names of the tasks."""
        return [f"{_DENSE[i % 3] if self.dense else 'classification'}{i}" for i in range(num_tasks)]

    def overrides(self, num_tasks: int) -> list[str]:
        """Return the overrides that describe a run with so many tasks."""
        words = ["dataset=noise", *self.backbone, f"dataset.size=[{self.size[0]},{self.size[1]}]"]
        # The last batch of an epoch has two samples, which the check before a run sends through the model.
        words += [f"trainer.batch_size={self.batch_size}", f"dataset.num_train={self.batch_size + 2}"]
        for task in self.tasks(num_tasks):
            kind = task.rstrip("0123456789")
            words.append(f"+task@tasks.{task}={f'[{kind},_conv_head]' if self.dense else kind}")
            if kind != "depth" and kind != "normals":
                words.append(f"tasks.{task}.num_classes={13 if self.dense else 10}")
        return [*words, "trainer.epochs=100000", "runtime.predictions=none", "trainer.baselines=false"]


#: What the literature trains: CIFAR's images, and NYUv2's with a map for each task.
NETWORKS = {
    "resnet18": Network("ResNet-18", ("backbone=resnet18", "backbone.stem=small"), (32, 32), 256, dense=False),
    "resnet50": Network("ResNet-50, dense", ("backbone=resnet50", "backbone.stem=imagenet"), (288, 384), 8, dense=True),
}


def shrunk(network: Network, divide: int, width: float) -> Network:
    """Return the network with a batch that is `divide` times smaller, at most 64 x 64 pixels and narrower layers."""
    size = (min(network.size[0], 64), min(network.size[1], 64))
    words = (*network.backbone, f"backbone.width={width}")
    return replace(network, backbone=words, size=size, batch_size=max(2, network.batch_size // divide))


def needs_primary(weighting: str) -> bool:
    """Return True if a weighting asks for a primary task."""
    facts = next(entry.facts for entry in entries("weighting") if entry.name == weighting)
    return facts.get("needs") == "a primary task"


def prepare_run(
    network: Network, num_tasks: int, weighting: str, device: torch.device, words: Sequence[str] = ()
) -> Parts:
    """Return the components of the run that a command line with these words would make."""
    overrides = [*network.overrides(num_tasks), f"weighting={weighting}", f"runtime.device={device}", *words]
    overrides.append(f"dataset.cache={'memory' if device.type == 'cpu' else 'device'}")  # only the step is measured
    gc.collect()  # trainers that were made before are parts of cycles, and hold memory of the GPU
    if needs_primary(weighting):
        overrides.append(f"weighting.primary={network.tasks(num_tasks)[0]}")
    return prepare(compose(overrides, _CONF))


def with_weighting(parts: Parts, network: Network, num_tasks: int, weighting: str) -> Parts:
    """Return `parts` with another weighting, without making the network anew where the weighting fits any network.

    The weighting is that of a run with the same tasks and a network of no size.
    """
    small = replace(network, backbone=("backbone=resnet18", "backbone.width=0.02"), size=(32, 32), batch_size=2)
    made = prepare_run(small, num_tasks, weighting, parts.device).weighting
    attached = made.capable_of(RotatesRepresentation) or made.capable_of(LooksAhead)
    if attached or (isinstance(made, TaskGradientWeighting) and made.grad_wrt == "last_layer"):
        return prepare_run(network, num_tasks, weighting, parts.device)
    return replace(parts, weighting=made)


def mtlrun_step(parts: Parts, folder: Path) -> Step:
    """Return the step as `Trainer.fit` makes it, on the first batch again and again.

    PyTorch's switches for TF32 count for the whole process. Each step sets those that `parts` was prepared with, so
    this must be called before another run is prepared.
    """
    trainer = Trainer(parts, folder=folder)
    loaded, loaded_meta = next(iter(trainer.batches()))
    parts.model.train()
    matmul, convolutions = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    def step() -> None:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, convolutions
        trainer.train_step(loaded, loaded_meta)
        trainer.progress.step += 1
        trainer.log_step()
        trainer.pause_if_asked()

    return step


def loop_step(parts: Parts, backward: Backward) -> Step:
    """Return the step of a plain training script, with `backward` between the losses and the optimizer."""
    model, device = parts.model, parts.device
    options = {key: value for key, value in parts.optimizer.defaults.items() if key != "decoupled_weight_decay"}
    optimizer = type(parts.optimizer)(model.parameters(), **options)
    inputs, targets, *_ = first_batch(parts)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        output = model(inputs.to(device, non_blocking=True))
        losses = [
            task.loss(output.predictions[name], targets[name].to(device, non_blocking=True))
            for name, task in parts.tasks.items()
        ]
        backward(output.representation, losses)
        optimizer.step()

    return step


def first_batch(parts: Parts) -> Any:
    """Return the first training batch as the loader gives it."""
    parts.model.train()
    return next(iter(parts.loaders["train"].batches(0)))


def plain(features: Tensor, losses: Sequence[Tensor]) -> None:
    """Take the gradients of the sum of the losses."""
    torch.stack(list(losses)).sum().backward()


def passes(parts: Parts) -> Backward:
    """Return one pass of the heads and K of the trunk, with nothing combined: the floor of every exact method."""
    shared, own = parameters(parts)

    def backward(features: Tensor, losses: Sequence[Tensor]) -> None:
        rows = []
        for loss, params in zip(losses, own, strict=True):
            row, *grads = torch.autograd.grad(loss, [features, *params])
            rows.append(row)
            for parameter, grad in zip(params, grads, strict=True):
                parameter.grad = grad
        for number, row in enumerate(rows):
            grads = torch.autograd.grad(features, shared, row, retain_graph=number < len(rows) - 1)
        for parameter, grad in zip(shared, grads, strict=True):
            parameter.grad = grad

    return backward


def parameters(parts: Parts) -> tuple[list[nn.Parameter], list[list[nn.Parameter]]]:
    """Return the parameters that tasks share, and those of each task."""
    return parts.model.shared_parameters(), list(parts.model.task_parameters().values())


def torchjd_steps(parts: Parts, weighting: str, ways: Sequence[str] = peers.WAYS) -> Mapping[str, Step]:
    """Return TorchJD's ways to the update of a weighting: those that it has, none where it is not installed."""
    if weighting not in peers.AGGREGATORS:
        return {}
    shared, own = parameters(parts)
    steps: dict[str, Step] = {}
    for way in ways:
        try:
            if way == peers.WAYS[2]:
                hooked = replace(parts, model=deepcopy(parts.model))  # whose forward pass is slower
                steps[way] = loop_step(hooked, peers.by_gram(weighting, hooked.model.trunk, len(own)))
            else:
                chunk = None if way == peers.WAYS[0] else 1
                steps[way] = loop_step(parts, peers.by_rows(weighting, shared, own, chunk=chunk))
        except (ImportError, ValueError):
            continue
    return steps
