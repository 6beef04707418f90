"""Predictor: the model of a finished run, ready to predict, from the run's folder alone."""

import copy
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtlrun.config.suggest import suggest
from mtlrun.deployment.code import check_code
from mtlrun.deployment.images import FixedSizeEncoder, ImageEncoder, PixelEncoder
from mtlrun.deployment.selected import Network, load_networks, read_states
from mtlrun.deployment.tables import TableEncoder
from mtlrun.errors import ConfigError, DataError
from mtlrun.models import MultiTaskModel, SharedRepresentationModel, SourceStatistics
from mtlrun.models.computation import Computation
from mtlrun.records.folder import LEARNED
from mtlrun.records.record import Record
from mtlrun.runs.restore import as_restored, check_has_model
from mtlrun.setup.environment import choose_device
from mtlrun.setup.model_building import build_model
from mtlrun.setup.model_description import SECTION, ModelDescription
from mtlrun.setup.problems import Problems
from mtlrun.setup.task_building import build_tasks
from mtlrun.tasks import Decoded, DecodesPredictions, Task
from mtlrun.training.forward import run_inputs
from mtlrun.weightings.precision import full_precision

# The groups of the config that a model is built of.
_GROUPS = ("model", "backbone", "tasks")


class Predictor:
    """The model of a completed run with its selected weights, and what turns its outputs into predictions.

    Args:
        folder: of the run.
        record: of the run.
        learned: what the run learned from its data, as in its `learned.json`.
        description: what the model was built for.
        tasks: {name: task}, with what they learned from the training split.
        networks: one for each separate selection: several with `trainer.monitor=per_task`, else one.
        device: where the networks are.
    """

    def __init__(
        self,
        folder: Path,
        record: Record,
        learned: Mapping[str, Any],
        description: ModelDescription,
        tasks: Mapping[str, Task],
        networks: Sequence[Network],
        device: torch.device,
    ) -> None:
        self.folder, self.record, self.learned, self.description = folder, record, learned, description
        self.tasks, self.networks, self.device = dict(tasks), list(networks), device

    @staticmethod
    def load(folder: str | Path, device: str = "auto") -> "Predictor":
        """Return the predictor of the run in a folder, wherever it was copied; its data need not be there.

        Args:
            folder: of a completed run.
            device: as `runtime.device`.

        Raises:
            DataError: there is no completed run, or it is of a version that did not keep what this needs, or it needs
                code of its author's that cannot be imported.
            ConfigError: the model cannot be built anymore.
            CheckpointError: best.pt is damaged, or does not fit the model.
        """
        folder = Path(folder)
        record = completed_record(folder)
        check_has_model(folder, record)
        learned = _read_learned(folder)
        if SECTION not in learned:
            raise DataError(
                f"{folder}: this run is of an earlier version of mtlrun, which did not keep what its model was built "
                "for; `mtlrun evaluate` reads it where its data are, and runtime.rerun=true trains it anew"
            )
        description = read_description(learned, folder / LEARNED)
        check_code(record.config, folder, _GROUPS)
        states = read_states(folder, record)
        with torch.random.fork_rng(devices=[]):  # the initial weights are replaced
            tasks, model = _build(record, description)
        chosen = choose_device(device)
        for task in tasks.values():
            task.to(chosen).eval()
        networks = load_networks(model, states, record, folder)
        for network in networks:
            network.model.to(chosen)
        return Predictor(folder, record, learned, description, tasks, networks, chosen)

    def only(self, tasks: Sequence[str]) -> "Predictor":
        """Return a predictor of some of the tasks; what only the others need is not computed.

        Raises:
            ConfigError: the run has no such task, or none is named.
        """
        for task in tasks:
            if task not in self.tasks:
                raise ConfigError(f"tasks: there is no task {task!r}; {suggest(task, self.tasks, 'the run has')}")
        if not tasks:
            raise ConfigError("tasks must name one or more of those of the run, found none")
        networks = [
            Network(network.model, chosen)
            for network in self.networks
            if (chosen := [task for task in network.tasks if task in tasks])
        ]
        other = copy.copy(self)
        other.__dict__.pop("model", None)  # that of all tasks, if it was asked for
        other.tasks = {name: task for name, task in self.tasks.items() if name in tasks}
        other.networks = networks
        return other

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input, without the batch dimension: that of the run, if one of the tasks takes it."""
        shapes = [self.description.shape_of(task) for task in self.tasks]
        return self.description.input_shape if self.description.input_shape in shapes else shapes[0]

    @property
    def left_out(self) -> dict[str, tuple[int, ...]]:
        """The tasks whose inputs are of another shape, {task: shape}: `only` chooses them."""
        shapes = {task: self.description.shape_of(task) for task in self.tasks}
        return {task: shape for task, shape in shapes.items() if shape != self.input_shape}

    @cached_property
    def model(self) -> MultiTaskModel:
        """The model, in evaluation mode.

        Raises:
            ConfigError: there are several, one for each task.
        """
        if len(self.networks) > 1:
            raise ConfigError(
                f"{self.folder}: trainer.monitor=per_task kept a state of the model for each task, so there is no "
                "single model; use `networks`"
            )
        return self.networks[0].model

    @cached_property
    def encoder(self) -> TableEncoder | PixelEncoder:
        """The encoder of new rows or images, whose `encode` makes what `outputs` and `predict` take.

        Raises:
            DataError: the inputs of this run are neither rows of a table nor images.
        """
        return self.encoder_for(self.record.config["dataset"])

    def encoder_for(self, dataset: Mapping[str, Any]) -> TableEncoder | PixelEncoder:
        """Return the encoder of files that are read in another way than those of training.

        Args:
            dataset: the node of the run's config with other values, such as another `separator`.

        Raises:
            DataError: as for `encoder`.
        """
        inputs = self.learned.get("inputs", {})
        try:
            if "columns" in inputs:
                return TableEncoder(inputs, dataset)
            if "channels" in inputs:
                return ImageEncoder.from_learned(inputs, dataset)
            if self.description.pixels is not None:
                return FixedSizeEncoder(self.input_shape, self.description.pixels)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{self.folder / LEARNED} is damaged ({type(error).__name__}: {error})") from error
        raise DataError(
            f"{self.folder}: the inputs of dataset={self.record.config['names']['dataset']} are of shape "
            f"{self.input_shape}, and no files are known to hold such; `mtlrun evaluate` predicts its splits, and from "
            "Python mtlrun.deployment.predictor.Predictor.load(...).predict(inputs) any tensor"
        )

    def names(self, task: str) -> list[str]:
        """Return the names of the classes, labels or numbers of a task, in their order; none if they are not known."""
        return list(self.description.classes.get(task, ()))

    @torch.inference_mode()
    @full_precision()
    def outputs(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return what the heads put out, {task: [batch, output_size], or maps}, on the device.

        Tasks that were trained on inputs of another shape alone are left out.

        Args:
            inputs: encoded as those of the run's splits, [batch, *input_shape].

        Raises:
            DataError: no task takes inputs of this shape.
        """
        shape = tuple(inputs.shape[1:])
        if shape not in (self.input_shape, *self.left_out.values()):
            raise DataError(f"inputs must be of shape {self.input_shape}, found {shape}")
        return self.run_networks(inputs.to(self.device, non_blocking=self.device.type == "cuda"), list(self.tasks))

    def run_networks(self, inputs: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        """Return the heads' outputs of those of some tasks that take inputs of this shape, for inputs on the device."""
        found: dict[str, Tensor] = {}
        for network in self.networks:
            for source, of_source in self._by_source(network, tuple(inputs.shape[1:])):
                wanted = [task for task in of_source if task in tasks]
                if wanted:
                    predictions = run_inputs(network.model, inputs, wanted, source).predictions
                    found |= {task: predictions[task] for task in wanted}
        return {task: found[task] for task in tasks if task in found}

    def predict(self, inputs: Tensor) -> dict[str, Decoded]:
        """Return predictions in original units, class indices and probabilities, {task: predictions for the batch}.

        Tasks whose kind has no `decode` are left out, such as those that predict maps; see `outputs`.

        Args:
            inputs: as for `outputs`.
        """
        return self.decode(self.outputs(inputs))

    @torch.inference_mode()
    def decode(self, outputs: Mapping[str, Tensor]) -> dict[str, Decoded]:
        """Return what outputs of the heads mean, of the tasks whose kinds have `decode`."""
        return {
            name: task.decode(outputs[name])
            for name, task in self.tasks.items()
            if isinstance(task, DecodesPredictions) and name in outputs
        }

    def _by_source(self, network: Network, shape: Sequence[int]) -> list[tuple[str | None, list[str]]]:
        """Return which tasks take inputs of this shape, and with the BatchNorm statistics of which source.

        None for the only ones. A task that several sources have labels for is predicted with those of the first.
        """
        description = self.description
        by_source: dict[str | None, list[str]] = {}
        for task in network.tasks:
            sources = description.sources_of(task, shape)
            if description.shapes and not sources:
                continue
            source = sources[0] if network.model.source_statistics is not None else None
            by_source.setdefault(source, []).append(task)
        return list(by_source.items())


def completed_record(folder: Path) -> Record:
    """Return the record of a completed run; DataError if there is none."""
    record = Record.read(folder)
    if record is None or record.status != "completed":
        found = "no run" if record is None else f"a run that is {record.status}"
        raise DataError(f"{folder}: found {found}; give the folder of a completed run")
    return record


def _read_learned(folder: Path) -> Mapping[str, Any]:
    try:
        learned = json.loads((folder / LEARNED).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DataError(f"{folder / LEARNED} cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{folder / LEARNED} is damaged (not JSON)") from error
    if not isinstance(learned, dict):
        raise DataError(f"{folder / LEARNED} is damaged (no object)")
    return learned


def read_description(learned: Mapping[str, Any], where: Path) -> ModelDescription:
    """Return what the model of a run was built for.

    Args:
        learned: what the run learned.
        where: the file that it was read from, for the message.

    Raises:
        DataError: it is damaged.
    """
    try:
        return ModelDescription.from_plain(learned[SECTION])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise DataError(f"{where} is damaged ({type(error).__name__}: {error})") from error


def restore_tasks(record: Record, description: ModelDescription, problems: Problems) -> dict[str, Task]:
    """Return the tasks of a run with what they learned; the problems of those that cannot be built are added."""
    nodes = {name: {**node, **record.task_sizes.get(name, {})} for name, node in record.config["tasks"].items()}
    tasks, _, found = build_tasks(nodes, None, "")
    problems += found
    description.restore_tasks(tasks)
    return tasks


def _build(record: Record, description: ModelDescription) -> tuple[dict[str, Task], MultiTaskModel]:
    """Return the tasks, with what they learned, and the model with initial weights."""
    config = as_restored(record.config, "cpu")
    if record.match is not None:
        config["backbone"]["width"] = record.match["width"]
    problems = Problems()
    tasks = restore_tasks(record, description, problems)
    groups = {group: config[group] for group in ("model", "backbone")}
    model, _ = build_model(groups, None, tasks, description, problems)
    problems.raise_if_any()
    assert model is not None
    # As in training, so that new inputs are predicted as the run's splits were.
    model.computation = Computation(config["trainer"].get("precision", "fp32"))
    if description.source_statistics:
        model.source_statistics = SourceStatistics(model, list(description.sources))
    if description.rotations and isinstance(model, SharedRepresentationModel):
        model.add_rotations()
    return tasks, model
