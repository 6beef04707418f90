"""Trainings on the pretended device that are small enough for each weighting and each model to have some."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pretended
import pytest
import torch
from helpers import shipped_node, weighting_node
from pretended import DEVICE

from mtlrun.config.compose import compose
from mtlrun.config.instantiate import build
from mtlrun.models import MultiTaskModel
from mtlrun.setup import prepare as setup
from mtlrun.setup.model_building import build_model
from mtlrun.setup.problems import Problems
from mtlrun.tasks import Task
from mtlrun.training.trainer import Trainer
from mtlrun.weightings import Weighting
from mtlrun.weightings.capabilities import UsesTaskKinds, UsesTaskNames
from mtlrun.weightings.state import generators

#: How the labels of a batch are spoiled.
LABELS = ("all", "missing", "absent")
QUIET = ["trainer.batch_size=12", "trainer.limit_batches=30", "trainer.epochs=1", "trainer.log_every=1000"]
_BOXES = [
    "+task@tasks.objects=detection", "tasks.objects.num_classes=3", "tasks.objects.head.channels=32",
    "tasks.objects.head.num_convs=1",
]  # fmt: skip
SCENES = [
    "dataset=scenes", "dataset.size=16", "dataset.num_train=8", "dataset.num_val=4", "dataset.num_test=4",
    *(_BOXES if find_spec("pycocotools") else []),  # which detection needs
    "backbone=convnet", "backbone.channels=[4,8]", "trainer.batch_size=4", "trainer.limit_batches=2",
]  # fmt: skip
DIGITS = ["dataset=multidigits", "dataset.pairs_per_image=1", "dataset.size=10", "backbone=mlp", "backbone.hidden=[16]"]


@contextmanager
def runs_on_device() -> Iterator[pretended.Accelerator]:
    """Let runs that are prepared in this context train on the pretended device, which their config cannot name."""
    with pytest.MonkeyPatch.context() as patch, pretended.Accelerator() as accelerator:
        patch.setattr(setup, "choose_device", lambda name: DEVICE)
        patch.setattr(generators, "new_generator", lambda device: torch.Generator())
        autocasts = torch.is_autocast_enabled
        patch.setattr(torch, "is_autocast_enabled", lambda kind: kind != DEVICE.type and autocasts(kind))
        optimizers = import_module("torch.optim.optimizer")  # torch.optim hides the module
        patch.setattr(optimizers, "_get_fused_kernels_supported_devices", lambda: ["cpu", "meta"])
        yield accelerator


class Preparation:
    """A config that is prepared once, and then trained with one weighting, or model, after the other.

    Args:
        words: of the command line.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._config = compose([*QUIET, *words])
        problems = Problems([])
        built = setup.build_components(self._config, problems)
        setup.check_components(built, problems)
        problems.raise_if_any()
        self.components = setup.Components(**built)
        self.data = setup.load_data(self.components)
        loaders = self.data.loaders
        self.batches = list(loaders["train"].batches(0))

    def trainer(
        self,
        folder: Path,
        weighting: str = "equal",
        options: Mapping[str, Any] | None = None,
        *,
        model: str | None = None,
        device: torch.device = DEVICE,
        **settings: Any,
    ) -> Trainer:
        """Return a trainer with a weighting, of the prepared model as it was at the start, or of another model.

        Args:
            folder: for checkpoints.
            weighting, model: shipped options, with their defaults.
            options: keys of the weighting that differ.
            device: the pretended one, or the CPU.
            settings: keys of `trainer` that differ.
        """
        tasks = copy.deepcopy(self.components.tasks)
        names = {"primary": next(iter(tasks)), "weights": [1.0] * len(tasks)}
        node = weighting_node(weighting) | dict(options or {})
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
            model=copy.deepcopy(self.components.model) if model is None else self._model(model, tasks),
            device=device,
            tasks=tasks,
            settings=replace(self.components.settings, **settings),
        )
        return Trainer(setup.place(components, self.data), folder=folder)

    def _model(self, name: str, tasks: Mapping[str, Task]) -> MultiTaskModel:
        torch.manual_seed(0)
        nodes = {"model": shipped_node("model", name), "backbone": self._config["backbone"]}
        problems = Problems([])
        model, _ = build_model(nodes, None, tasks, self.components.dataset, problems)
        assert not problems
        return model

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
