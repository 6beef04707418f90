"""The model of a run, built on the CPU, as large as a reference if that is asked for."""

from collections.abc import Mapping
from typing import Any

from mtlrun.config.instantiate import build
from mtlrun.errors import ConfigError
from mtlrun.models import MultiTaskModel
from mtlrun.records.record import Match
from mtlrun.setup.backbone_building import DescribesInputs, build_backbone
from mtlrun.setup.memory import within_memory
from mtlrun.setup.model_size import match_width
from mtlrun.setup.problems import Problems
from mtlrun.setup.warm_start import AUTO, start_from
from mtlrun.tasks import Task


@within_memory("model: its parameters", "use a smaller backbone, or fewer of them")
def build_model(
    nodes: Mapping[str, Any],
    reference: Mapping[str, Any] | None,
    tasks: Mapping[str, Task],
    dataset: DescribesInputs,
    problems: Problems,
) -> tuple[MultiTaskModel | None, Match | None]:
    """Return the model with its initial parameters, and the width at which it is as large as the reference, if any.

    Args:
        nodes: the groups of the config.
        reference: the node `match_parameters`, if there is one.
        tasks, dataset: of the run.
        problems: to which those of the model are added; what cannot be built is None.

    Raises:
        ConfigError, OutOfMemoryError: the parameters do not fit into the memory.
    """
    if "backbone" not in nodes:
        return None, None
    node, match = nodes["backbone"], None
    backbone = problems.attempt(build_backbone, node, dataset)
    if backbone is None or not tasks or "model" not in nodes:
        return None, None
    if reference is not None:
        match = problems.attempt(_match, nodes, reference, tasks, dataset)
        if match is not None:
            node = {**node, "width": match.width}
            backbone = problems.attempt(build_backbone, node, dataset)
    if backbone is None:
        return None, match
    model = problems.attempt(build, nodes["model"], "model", MultiTaskModel, tasks=tasks, backbone=backbone)
    if model is not None and model.init_from not in (None, AUTO):  # a first stage that is still to be trained
        problems.attempt(start_from, model, model.init_from, legacy=dataset.protocol == "legacy")
    return model, match


def _match(
    nodes: Mapping[str, Any], reference: Mapping[str, Any], tasks: Mapping[str, Task], dataset: DescribesInputs
) -> Match:
    """Return the backbone width at which this run's model has as many parameters as the reference."""
    node = nodes["backbone"]
    if "width" not in node:
        raise ConfigError(f"match_parameters needs a backbone with a width, and {node.get('_target_')} has none")

    def make(model_node: Mapping[str, Any], key: str, width: float) -> MultiTaskModel:
        backbone = build_backbone({**node, "width": width}, dataset)
        model: MultiTaskModel = build(model_node, key, MultiTaskModel, tasks=tasks, backbone=backbone)
        return model

    width = float(node["width"])
    return match_width(
        lambda: make(reference, "match_parameters", width), lambda width: make(nodes["model"], "model", width), width
    )
