"""Affinity by model: what networks that were trained for the tasks have in common."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mtlrun.comparison.affinity.features import align_all, centered_gram
from mtlrun.comparison.affinity.measures import AffinityMatrix, fold
from mtlrun.comparison.affinity.methods import all_tasks, by_key, by_method, widest
from mtlrun.comparison.groups import ConfigGroup
from mtlrun.comparison.run import Run
from mtlrun.comparison.single_task import is_single_task, training_key
from mtlrun.config.targets import locate
from mtlrun.errors import ConfigError, MtlrunError
from mtlrun.models import MixesNetworks, MultiTaskModel, SharedRepresentationModel
from mtlrun.runs.affinity import in_one_line
from mtlrun.runs.restore import Restored, restore

if TYPE_CHECKING:
    import numpy

#: Validation samples whose features are compared.
_MOST_SAMPLES = 1000
# Of the features of a task that are in memory at a time: 400 MB.
_MOST_NUMBERS = 10**8
_WAYS = {
    "distance": "no completed run has networks that started equal: train model=soft, or model=single",
    "mixing": "no completed run mixes networks: train model=cross_stitch, sluice or nddr",
    "cka": "no completed runs have a network per task: train model=single, or each task alone with model=hard",
}


@dataclass
class _Found:
    """What one run gave.

    Args:
        pairs: {measure: {(task, other): value}}.
        grams: {task: centered Gram matrix of the features of its network}.
        samples: a digest of the samples that these are of.
    """

    pairs: dict[str, dict[tuple[str, str], float]] = field(default_factory=dict)
    grams: "dict[str, numpy.ndarray]" = field(default_factory=dict)
    samples: str = ""


def network_affinities(
    groups: Sequence[ConfigGroup], most_runs: int | None = None
) -> tuple[list[AffinityMatrix], dict[str, str]]:
    """Return the matrices that the networks of completed runs give, and {measure: why there is none}.

    Args:
        groups: the runs on one data set.
        most_runs: restore none if it would be more; None for any number.
    """
    wanted = [(run, measures) for group in groups for run in group.runs if (measures := _measures_of(run))]
    if most_runs is not None and len(wanted) > most_runs:
        why = f"{len(wanted)} runs would be restored, which takes a second or more for each; --by model does it"
        return [], dict.fromkeys(_WAYS, why)
    results: dict[int, _Found] = {}
    problems: dict[str, list[str]] = {}
    for run, measures in wanted:
        assert run.folder is not None
        try:
            results[id(run)] = _measure(restore(run.folder), measures)
        except MtlrunError as error:
            for measure in measures:
                problems.setdefault(measure, []).append(in_one_line(error))
    matrices = [matrix for measure in ("distance", "mixing") for matrix in _by_pairs(measure, groups, results)]
    matrices += _cka([run for group in groups for run in group.runs if id(run) in results], results)
    missing = {measure: way for measure, way in _WAYS.items() if measure not in {each.measure for each in matrices}}
    for measure, found in problems.items():
        what = f"{len(found)} run{'s' * (len(found) > 1)} cannot be restored: {found[0]}"
        if measure in missing:
            missing[measure] = what
        matrices = [replace(each, notes=[*each.notes, what]) if each.measure == measure else each for each in matrices]
    return matrices, missing


def _measures_of(run: Run) -> list[str]:
    """Return what the networks of a run can tell; nothing if it is not completed."""
    if run.state != "completed" or run.folder is None:
        return []
    try:
        kind: Any = locate(run.record.config["model"]["_target_"], "model._target_", MultiTaskModel)
    except ConfigError:  # a class that is not installed here
        return []
    several = len(run.record.main_metrics) > 1
    measures = []
    if several and getattr(kind, "equal_start", False) and run.lookup("model.init_from") is None:
        measures.append("distance")
    if several and isinstance(kind, type) and issubclass(kind, MixesNetworks):
        measures.append("mixing")
    return [*measures, *["cka"] * is_single_task(run)]


def _measure(restored: Restored, measures: Sequence[str]) -> _Found:
    found, model = _Found(), restored.model
    if "distance" in measures:
        found.pairs["distance"] = parameter_distances({task: nets[0] for task, nets in model.task_networks().items()})
    if "mixing" in measures:
        assert isinstance(model, MixesNetworks)
        means = model.mixing().detach().double().mean(dim=0).tolist()
        names = model.task_names
        found.pairs["mixing"] = {(b, a): means[i][j] for i, a in enumerate(names) for j, b in enumerate(names)}
    if "cka" in measures:
        found.grams, found.samples = _grams(restored)
    return found


def parameter_distances(networks: Mapping[str, nn.Module]) -> dict[tuple[str, str], float]:
    """Return the distance of the parameters of each two networks, relative to their length.

    It is ‖a - b‖ / sqrt((‖a‖² + ‖b‖²) / 2), with the trainable and frozen parameters of a network as one vector.

    Args:
        networks: {task: network}, all of the same shapes.
    """
    distances = {}
    for one, other in combinations(networks, 2):
        pairs = list(zip(networks[one].parameters(), networks[other].parameters(), strict=True))
        apart = sum((float((a.detach().double() - b.detach().double()).square().sum()) for a, b in pairs), 0.0)
        size = sum((float(p.detach().double().square().sum()) for pair in pairs for p in pair), 0.0)
        distances[one, other] = (2 * apart / size) ** 0.5 if size else 0.0
    return distances


@torch.inference_mode()
def _grams(restored: Restored) -> "tuple[dict[str, numpy.ndarray], str]":
    """Return the centered Gram matrix of each task's features on validation samples, and a digest of these.

    The tasks take turns, so that the features of only one of them are in memory.
    """
    parts, grams, digests = restored.parts, {}, []
    for task, encode in _encoders(restored.model).items():
        features: list[Tensor] = []
        digest, count, most = hashlib.sha256(), 0, _MOST_SAMPLES
        for inputs in _inputs(parts.loaders["val"].batches()):
            used = inputs[: most - count].to(parts.device)
            found = encode(used).cpu()
            most = max(2, min(most, _MOST_NUMBERS // found[0].numel()))
            found = found[: most - count]
            digest.update(used[: len(found)].cpu().contiguous().numpy().tobytes())
            features.append(found)
            count += len(found)
            if count >= most:
                break
        grams[task] = centered_gram(torch.cat(features).numpy())
        digests.append(digest.hexdigest())
    return grams, digests[0]


def _encoders(model: MultiTaskModel) -> Mapping[str, Callable[[Tensor], Tensor]]:
    """Return {task: the function from inputs to the features that its head sees}."""
    if model.independent_tasks:
        return {task: backbone for task, (backbone, _) in model.task_networks().items()}
    assert isinstance(model, SharedRepresentationModel)
    (task,) = model.task_names
    return {task: model.encode}


def _inputs(batches: Iterator[Any]) -> Iterator[Tensor]:
    """Yield the inputs of each batch, of each source on its own where batches have the form {source: samples}."""
    for batch in batches:
        for samples in batch.values() if isinstance(batch, dict) else [batch]:
            yield samples[0]


def _by_pairs(measure: str, groups: Sequence[ConfigGroup], results: Mapping[int, _Found]) -> list[AffinityMatrix]:
    """Return a matrix for each method whose runs give one by themselves."""
    found = {key: result.pairs[measure] for key, result in results.items() if measure in result.pairs}
    with_pairs, notes = widest([group for group in groups if any(id(run) in found for run in group.runs)])
    what = "of the backbones' parameters" if measure == "distance" else "mean over the stages of the networks"
    matrices = []
    for label, of_method in by_method(with_pairs):
        pairs = [found[id(run)] for group in of_method for run in group.runs if id(run) in found]
        matrices.append(fold(measure, all_tasks(of_method), pairs, label=label, notes=[what, *notes]))
    return matrices


def _cka(runs: Sequence[Run], results: Mapping[int, _Found]) -> list[AffinityMatrix]:
    """Return a matrix for each kind of single-task training; a task's network may come from any run with the seed."""
    with_features = [run for run in runs if results[id(run)].grams]
    matrices = []
    for label, of_method in by_key(with_features, training_key, lambda run: run):
        repetitions: dict[Any, dict[str, numpy.ndarray]] = {}
        for run in of_method:
            found = results[id(run)]
            key = (run.lookup("seed"), run.fold, found.samples)
            repetitions[key] = found.grams | repetitions.get(key, {})
        pairs = [align_all(grams) for grams in repetitions.values()]
        if any(pairs):
            tasks = all_tasks([ConfigGroup({}, [run]) for run in of_method])
            samples = min(len(gram) for grams in repetitions.values() for gram in grams.values())
            notes = [f"features that the heads see, on {samples} validation samples"]
            matrices.append(fold("cka", tasks, pairs, label=label, notes=notes))
    return matrices
