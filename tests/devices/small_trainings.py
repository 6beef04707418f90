"""Trainings on the pretended device that are small enough for each weighting and each model to have some."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pretended
import pytest
import torch
from helpers import weighting_node

from mtlrun.config.compose import compose
from mtlrun.config.instantiate import build
from mtlrun.setup import prepare as setup
from mtlrun.setup.problems import Problems
from mtlrun.training.trainer import Trainer
from mtlrun.weightings import Weighting
from mtlrun.weightings.capabilities import UsesTaskKinds, UsesTaskNames
from mtlrun.weightings.state import generators

#: How the labels of a batch are spoiled.
LABELS = ("all", "missing", "absent")
QUIET = ["trainer.batch_size=12", "trainer.limit_batches=30", "trainer.epochs=1", "trainer.log_every=1000"]
DIGITS = ["dataset=multidigits", "dataset.pairs_per_image=1", "dataset.size=10", "backbone=mlp", "backbone.hidden=[16]"]


@contextmanager
def runs_on_device() -> Iterator[pretended.Accelerator]:
    """Let runs that are prepared in this context train on the pretended device, which their config cannot name."""
    with pytest.MonkeyPatch.context() as patch, pretended.Accelerator() as accelerator:
        patch.setattr(setup, "choose_device", lambda name: pretended.DEVICE)
        patch.setattr(generators, "new_generator", lambda device: torch.Generator())
        optimizers = import_module("torch.optim.optimizer")  # torch.optim hides the module
        patch.setattr(optimizers, "_get_fused_kernels_supported_devices", lambda: ["cpu", "meta"])
        yield accelerator


class Preparation:
    """A config that is prepared once, and then trained with one weighting after the other.

    Args:
        words: of the command line.
    """

    def __init__(self, words: Sequence[str]) -> None:
        config = compose([*words, *QUIET])
        problems = Problems([])
        built = setup.build_components(config, problems)
        setup.check_components(built, problems)
        problems.raise_if_any()
        self.components = setup.Components(**built)
        self.data = setup.load_data(self.components)
        loaders = self.data.loaders
        self.batches = list(loaders["train"].batches(0))

    def trainer(self, weighting: str, folder: Path, device: torch.device = pretended.DEVICE) -> Trainer:
        """Return a trainer of the prepared model, as it was at the start, with a weighting."""
        tasks = self.components.tasks
        names = {"primary": next(iter(tasks)), "weights": [1.0] * len(tasks)}
        node = weighting_node(weighting)
        node |= {key: value for key, value in names.items() if key in node}
        method: Weighting = build(node, "weighting", Weighting)
        method.setup(len(tasks), seed=0)
        for each in method.capable_of(UsesTaskNames):
            each.set_task_names(list(tasks))
        for each in method.capable_of(UsesTaskKinds):
            each.set_categorical([task.categorical for task in tasks.values()])
        components = replace(
            self.components,
            weighting=method,
            model=copy.deepcopy(self.components.model),
            device=device,
            tasks=copy.deepcopy(tasks),
        )
        return Trainer(setup.place(components, self.data), folder=folder)

    def batch(self, number: int, labels: str = "all") -> Any:
        """Return a batch, of which a third of each task's labels, or all of the first task's, may be missing."""
        inputs, targets, *_ = self.batches[number]
        spoiled = {}
        for position, (name, target) in enumerate(targets.items()):
            spoiled[name] = target.clone()
            missing = -1 if not target.is_floating_point() else float("nan")
            if labels == "missing":
                spoiled[name][position % 4 :: 4] = missing
            elif labels == "absent" and position == 0:
                spoiled[name][:] = missing
        return inputs, spoiled
