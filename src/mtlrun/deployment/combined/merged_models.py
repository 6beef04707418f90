"""merge(): one hard-sharing model from networks that were trained for one task each, without training."""

import copy
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from mtlrun.comparison.labels import DERIVED
from mtlrun.datasets import SPLITS
from mtlrun.datasets.base import Split, TensorSplit
from mtlrun.deployment.combined.combining import same_labels
from mtlrun.deployment.combined.made_runs import finished, made_record
from mtlrun.deployment.combined.members import Member
from mtlrun.deployment.combined.merging import KEPT, Weights, apply, average, task_vector_sum, ties
from mtlrun.deployment.combined.networks import Network, check_networks, networks_of
from mtlrun.errors import ConfigError, DataError
from mtlrun.models import HardSharing
from mtlrun.records.folder import CHECKPOINTS, hold, start_anew
from mtlrun.records.record import Record, TaskMetrics
from mtlrun.runs.predictions import keep_predictions
from mtlrun.runs.recording import record_intervals
from mtlrun.runs.run import write_inputs
from mtlrun.setup.model_size import count_parameters
from mtlrun.setup.prepare import prepare
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.checkpoint import Checkpoints
from mtlrun.training.constants import ConstantPredictions
from mtlrun.training.evaluation import evaluate
from mtlrun.training.forward import run_model
from mtlrun.training.outputs import SplitOutputs
from mtlrun.training.parts import Parts
from mtlrun.training.selection import MEAN_SKILL, Selection

Method = Literal["average", "task_arithmetic", "ties"]
_SUM_SCALES = tuple(round(0.05 * step, 2) for step in range(1, 21))
_TIES_SCALES = tuple(round(0.1 * step, 1) for step in range(1, 21))


def merge(members: Sequence[Member], method: Method, folder: Path, *, device: str = "auto") -> Record:
    """Return the record of a merged model, which is made unless it is finished already.

    Its trunk is merged, its heads are those of the runs, and the statistics of BatchNorm are computed anew, on training
    data. The folder is that of a run of `model=hard`, with best.pt.

    Args:
        members: runs of `model=single`, or of `model=hard` with all stages shared, of different tasks, that started
            from the same initial weights.
        method: `average` of the weights; `task_arithmetic`, initial weights + lambda x the sum of their changes;
            `ties`, initial weights + lambda x the change that `merging.ties` gives; lambda is chosen on validation.
        folder: of the result.
        device: as `runtime.device`.

    Raises:
        DataError, ConfigError, CheckpointError: the runs cannot be merged; nothing is written.
    """
    record = finished(folder, "merge", method, members)
    if record is not None:
        return record
    networks: list[Network] = []
    all_parts: list[Parts] = []
    for member in members:
        found, parts = networks_of(member)
        networks += found
        all_parts.append(parts)
    check_networks(networks)
    config = merged_config([member.record.config for member in members])
    parts = prepare(_with(config, device=device, root=tempfile.gettempdir(), num_workers=0, rerun=False))
    _check_data(members, all_parts, parts)
    assert isinstance(parts.model, HardSharing)
    settings, val = _choose(parts, networks, method)
    outputs = {split: SplitOutputs(parts.tasks, parts.loaders[split]) for split in ("val", "test")}
    evaluate(parts.model, parts.tasks, parts.loaders["val"], parts.device, outputs=outputs["val"])
    test = evaluate(parts.model, parts.tasks, parts.loaders["test"], parts.device, outputs=outputs["test"])
    record = made_record("merge", method, members, parts, config=config, settings=settings)
    record.val, record.test, record.macs = val, test, parts.macs
    kept = {section for member in members for section in member.record.learned}
    record.learned = {section: content for section, content in parts.learned.items() if section in kept}
    record.trivial = dict(parts.skills.trivial)
    record.parameters = {group["name"]: count_parameters(group["params"]) for group in parts.optimizer.param_groups}
    record.notes = _describe(members, settings)
    with hold(folder):
        start_anew(folder)
        record.status = "running"
        write_inputs(parts, record, folder)
        state = {key: value.detach().cpu() for key, value in parts.model.state_dict().items()}
        Checkpoints(folder / CHECKPOINTS, record.run_id).save_best({"evaluations": [0], "model_states": [state]})
        keep_predictions(parts, outputs, folder)
        record_intervals(record, parts, outputs["test"])
        record.status = "completed"
        record.write(folder)
    return record


def merged_config(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the config of a run of `model=hard` with the tasks of several runs.

    Raises:
        DataError: the runs differ in their dataset by more than their tasks.
    """
    config = copy.deepcopy(dict(configs[0]))
    if any(each.get("match_parameters") is not None for each in configs):
        raise ConfigError(
            "runs with match_parameters cannot be merged; train with the width that it found, in backbone.width"
        )
    config["model"] = {"_target_": "mtlrun.models.HardSharing", "shared_stages": None}
    config["names"]["model"] = "hard"
    config["tasks"] = {task: node for each in configs for task, node in each["tasks"].items()}
    config["dataset"] = _merged_dataset([each["dataset"] for each in configs])
    if any("found" in each for each in configs):
        config["found"] = {task: line for each in configs for task, line in (each.get("found") or {}).items()}
    if config["trainer"].get("monitor") != MEAN_SKILL and len(configs) > 1:
        config["trainer"]["monitor"] = MEAN_SKILL
    return config


def _merged_dataset(nodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the dataset of all tasks: lists of tasks and of what they are follow each other."""
    merged: dict[str, Any] = {}
    values: list[Any]
    for key in dict.fromkeys(key for node in nodes for key in node):
        values = [node.get(key) for node in nodes]
        if all(value == values[0] for value in values) and (f"dataset.{key}" not in DERIVED or len(nodes) == 1):
            merged[key] = values[0]
        elif f"dataset.{key}" in DERIVED and all(isinstance(value, list) for value in values):
            merged[key] = [entry for value in values for entry in value]
        elif key == "exclude" and all(isinstance(value, list) for value in values):
            merged[key] = [column for column in values[0] if all(column in value for value in values)]
        elif all(isinstance(value, Mapping) for value in values):
            merged[key] = {name: entry for value in values for name, entry in value.items()}
        else:
            raise DataError(f"the runs differ in dataset.{key}; give runs on the same data")
    return merged


def _with(config: Mapping[str, Any], **runtime: Any) -> dict[str, Any]:
    return {**config, "runtime": config["runtime"] | runtime}


def _check_data(members: Sequence[Member], all_parts: Sequence[Parts], merged: Parts) -> None:
    """Raise DataError unless each run saw the samples and labels that the merged model is for."""
    for member, parts in zip(members, all_parts, strict=True):
        for name in SPLITS:
            ours, theirs = merged.loaders[name].split, parts.loaders[name].split
            if not _same_inputs(ours, theirs) or not _same_targets(ours, theirs, parts.tasks):
                raise DataError(
                    f"{member.name} has other samples, inputs or labels in its {name} split than the others"
                )


def _same_inputs(one: Split, other: Split) -> bool:
    if len(one) != len(other) or one.sample_ids != other.sample_ids:
        return False
    if isinstance(one, TensorSplit) and isinstance(other, TensorSplit) and one.holds_inputs and other.holds_inputs:
        return one.inputs.shape == other.inputs.shape and torch.equal(one.inputs.cpu(), other.inputs.cpu())
    return True


def _same_targets(one: Split, other: Split, tasks: Mapping[str, Any]) -> bool:
    if one.targets is None or other.targets is None:
        return True
    return all(same_labels(one.targets[task].cpu(), other.targets[task].cpu()) for task in tasks)


# ------------------------------------------------------------------------------------------------------ merging


def _choose(parts: Parts, networks: Sequence[Network], method: Method) -> tuple[dict[str, Any], TaskMetrics]:
    """Load the merged weights into the model; return what was chosen, and the metrics on validation."""
    trained, initial = [network.weights() for network in networks], networks[0].weights(initial=True)
    if len(networks) == 1:
        return {}, _load(parts, networks, trained[0])
    if method == "average":
        return {}, _load(parts, networks, average(trained))
    vector = task_vector_sum(trained, initial) if method == "task_arithmetic" else ties(trained, initial)
    scales = sorted({*_SUM_SCALES, 1 / len(networks)}) if method == "task_arithmetic" else list(_TIES_SCALES)
    best = Selection(list(parts.tasks), MEAN_SKILL, {n: t.main_metric for n, t in parts.tasks.items()}, parts.skills)
    scores = {}
    for number, scale in enumerate(scales, start=1):
        metrics = _load(parts, networks, apply(initial, vector, scale))
        if number == 1:
            parts.skills.find_undefined(metrics, best.asked_for())
        best.update(number, 0, 0, metrics)
        scores[str(scale)] = float(parts.skills.mean(metrics, best.monitored())[1])
    chosen = scales[best.number - 1]
    val = _load(parts, networks, apply(initial, vector, chosen))
    return {"lambda": chosen, "skills": scores} | ({"kept": KEPT} if method == "ties" else {}), val


def _load(parts: Parts, networks: Sequence[Network], weights: Weights) -> TaskMetrics:
    """Load a trunk, and return its metrics on validation."""
    model = parts.model
    assert isinstance(model, HardSharing)
    state = {name: value.clone() for name, value in networks[0].trunk.items()}
    for name, value in state.items():
        if name in weights:
            state[name] = weights[name].to(value.dtype)
        elif value.is_floating_point():
            state[name] = torch.stack([network.trunk[name] for network in networks]).mean(dim=0)
    model.trunk.load_state_dict(state)
    for network in networks:
        for task, head in network.heads.items():
            model.heads[task].load_state_dict(head)
    if len(networks) > 1:
        recompute_statistics(parts)
    trivial = parts.skills.trivial.setdefault("val", {})
    loader = parts.loaders["val"]
    constants = ConstantPredictions(parts.tasks)
    metrics = evaluate(model, parts.tasks, loader, parts.device, on_targets=None if trivial else constants.add)
    if not trivial:
        trivial |= constants.metrics(loader, parts.device)
    parts.skills.fix_references(metrics)
    return metrics


@torch.no_grad()
def recompute_statistics(parts: Parts) -> None:
    """Let the running statistics of BatchNorm be the means over the batches of an epoch of training data.

    Other layers, such as dropout, are as in an evaluation.
    """
    model = parts.model
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not layers:
        return
    with _counting_alike(layers):
        model.eval()
        for layer in layers:
            layer.reset_running_stats()
            layer.train()
        for batch in parts.loaders["train"].batches():
            for samples in LabeledBatch.load(parts.tasks, batch, parts.device).source_batches:
                if len(samples) > 1:  # one vector has no variance
                    run_model(model, samples, parts.tasks)
        model.eval()


@contextmanager
def _counting_alike(layers: Sequence[_BatchNorm]) -> Iterator[None]:
    """Let each batch count the same in the running statistics, within a `with` block."""
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = None
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def _describe(members: Sequence[Member], settings: Mapping[str, Any]) -> list[str]:
    notes = ["the heads were trained for the trunks of their runs, and not for the merged one"]
    if "lambda" in settings:
        notes.append(
            f"lambda {settings['lambda']:.3g} has the best mean skill of {len(settings['skills'])} values on "
            "validation, by which the checkpoints of the runs were selected as well"
        )
    versions = {str((member.record.environment.get("versions") or {}).get("torch")) for member in members}
    if versions - {now := version("torch")}:
        notes.append(
            f"initial weights were made anew by PyTorch {now}, and the runs were trained with "
            f"{', '.join(sorted(versions))}: whether these start networks alike cannot be known"
        )
    return notes
