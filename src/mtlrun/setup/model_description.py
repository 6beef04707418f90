"""What the model of a run was built for, as plain data: enough to build it again without the data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mtlrun.config.settings import Protocol
from mtlrun.datasets import Loader, MultiTaskDataset
from mtlrun.datasets.input_columns import InputColumn
from mtlrun.tasks import Task
from mtlrun.training.parts import Parts

#: The section of `learned.json` that holds it.
SECTION = "model"


@dataclass(frozen=True)
class ModelDescription:
    """What a model was built for, and what the run added to it: `build_model` reads it as it reads a dataset.

    Args:
        input_shape, columns, protocol: as those of `MultiTaskDataset`.
        pixels: mean and standard deviation by which each channel of images in [0, 1] is normalized, {`means`, `stds`};
            None if inputs are no images, or it is not known.
        classes: {task: names of its classes, labels or numbers}, where they are known.
        sources: {source: the tasks that its training samples have labels for}, where samples come from several.
        shapes: {source: shape of its inputs}, where these differ.
        source_statistics: whether BatchNorm keeps running statistics for each source.
        rotations: whether the weighting inserted rotations of the representation.
        task_state: {task: its buffers}: what it learned from the training split.
    """

    input_shape: tuple[int, ...]
    columns: Sequence[InputColumn] | None = None
    pixels: Mapping[str, Sequence[float]] | None = None
    protocol: Protocol = "standard"
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sources: Mapping[str, Sequence[str]] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    source_statistics: bool = False
    rotations: bool = False
    task_state: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)

    @staticmethod
    def of(parts: Parts) -> "ModelDescription":
        """Return the description of the model of a run that starts."""
        dataset, loader = parts.dataset, parts.loaders["train"]
        targets = loader.split.targets
        return ModelDescription(
            tuple(dataset.input_shape),
            dataset.columns,
            _pixels(dataset),
            dataset.protocol,
            {name: names for name in parts.tasks if (names := names_of_outputs(parts, name))},
            {
                source: [
                    name
                    for name, task in parts.tasks.items()
                    if targets is None or task.labeled(targets[name][indices]).any()
                ]
                for source, indices in loader.sources.items()
            },
            _shapes(dataset, loader),
            parts.model.source_statistics is not None,
            getattr(parts.model, "rotations", None) is not None,
            {name: dict(task.named_buffers()) for name, task in parts.tasks.items()},
        )

    def as_plain(self) -> dict[str, Any]:
        """Return the description as plain data."""
        return {
            "input_shape": list(self.input_shape),
            "columns": None if self.columns is None else [column.as_plain() for column in self.columns],
            "pixels": self.pixels,
            "protocol": self.protocol,
            "classes": {task: list(names) for task, names in self.classes.items()},
            "sources": {source: list(tasks) for source, tasks in self.sources.items()},
            "shapes": {source: list(shape) for source, shape in self.shapes.items()},
            "source_statistics": self.source_statistics,
            "rotations": self.rotations,
            "task_state": {
                task: {name: _write(buffer) for name, buffer in buffers.items()}
                for task, buffers in self.task_state.items()
                if buffers
            },
        }

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> "ModelDescription":
        """Return the description that `as_plain` gave; KeyError, TypeError or ValueError if it is none."""
        columns = plain["columns"]
        return ModelDescription(
            tuple(plain["input_shape"]),
            None if columns is None else [InputColumn.from_plain(column) for column in columns],
            plain["pixels"],
            plain["protocol"],
            plain["classes"],
            plain["sources"],
            {source: tuple(shape) for source, shape in plain["shapes"].items()},
            plain["source_statistics"],
            plain["rotations"],
            {
                task: {name: _read(buffer) for name, buffer in buffers.items()}
                for task, buffers in plain["task_state"].items()
            },
        )

    def sources_of(self, task: str, shape: Sequence[int]) -> list[str]:
        """Return the sources of a task whose inputs are of this shape; all of them where shapes do not differ."""
        return [
            source
            for source, tasks in self.sources.items()
            if task in tasks and self.shapes.get(source, tuple(shape)) == tuple(shape)
        ]

    def shape_of(self, task: str) -> tuple[int, ...]:
        """Return the shape of the inputs of a task: `input_shape`, if they may have that."""
        if not self.shapes or self.sources_of(task, self.input_shape):
            return self.input_shape
        return next(self.shapes[source] for source, tasks in self.sources.items() if task in tasks)

    def restore_tasks(self, tasks: Mapping[str, Task]) -> None:
        """Give tasks that were built anew what they learned from the training split."""
        for name, buffers in self.task_state.items():
            if name in tasks:
                for path, buffer in buffers.items():
                    module, _, attribute = path.rpartition(".")
                    setattr(tasks[name].get_submodule(module), attribute, buffer)


def _pixels(dataset: MultiTaskDataset) -> Mapping[str, Sequence[float]] | None:
    """Return how images in [0, 1] are normalized; None if that is not known."""
    if len(dataset.input_shape) != 3:
        return None
    channels = dataset.input_shape[0]
    if dataset.normalization is not None:
        from mtlrun.datasets.files.pixels import Scale  # with Pillow, which other runs need not import

        return Scale(dataset.normalization, channels).as_plain()
    if dataset.pixel_statistics is None:
        return None
    mean, std = dataset.pixel_statistics
    return {"means": [mean] * channels, "stds": [std] * channels}


def _shapes(dataset: MultiTaskDataset, loader: Loader) -> dict[str, tuple[int, ...]]:
    """Return the shape of the inputs of each source, where these differ."""
    if not dataset.inputs_differ:
        return {}
    return {source: tuple(loader.split[int(indices[0])][0].shape) for source, indices in loader.sources.items()}


def names_of_outputs(parts: Parts, task: str) -> list[str]:
    """Return the names of the classes, labels or numbers of a task, none if they are not known."""
    columns = parts.learned.get("targets", {}).get(task, {}).get("columns", [])
    return [str(name) for name in parts.dataset.classes.get(task, columns)]


def _write(buffer: Tensor) -> dict[str, Any]:
    """Return a tensor as plain data. Each number of JSON is that of the tensor, to the last bit."""
    return {
        "type": str(buffer.dtype).removeprefix("torch."),
        "shape": list(buffer.shape),
        "values": buffer.detach().cpu().flatten().tolist(),
    }


def _read(plain: Mapping[str, Any]) -> Tensor:
    """Return the tensor that `_write` described."""
    dtype = getattr(torch, plain["type"])
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{plain['type']} is no type of tensors")
    return torch.tensor(plain["values"], dtype=dtype).reshape(plain["shape"])
