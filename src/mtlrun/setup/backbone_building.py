"""The backbone of a run, made for the inputs of its dataset."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from mtlrun.config.instantiate import build, constructor_parameters
from mtlrun.config.targets import locate
from mtlrun.datasets.input_columns import InputColumn, categories_in
from mtlrun.errors import ConfigError
from mtlrun.models.backbones import Backbone, BackboneFactory


class DescribesInputs(Protocol):
    """The attributes of a dataset that networks are built by; see `mtlrun.datasets.MultiTaskDataset`."""

    @property
    def input_shape(self) -> tuple[int, ...]: ...

    @property
    def columns(self) -> Sequence[InputColumn] | None: ...

    @property
    def protocol(self) -> str: ...


def build_backbone(node: Mapping[str, Any], dataset: DescribesInputs) -> BackboneFactory:
    """Return a function that makes the backbone, which gets a description of the input's columns if it takes one.

    Args:
        node: of the config.
        dataset: whose inputs it is for.

    Raises:
        ConfigError: the node has problems, or inputs hold indices of categories, which the backbone would take for
            numbers.
    """
    given: dict[str, Any] = {"input_shape": dataset.input_shape}
    columns = dataset.columns
    if columns is not None and (len(columns),) != tuple(dataset.input_shape):
        raise ConfigError(
            f"dataset: it describes {len(columns)} columns of inputs of shape {tuple(dataset.input_shape)}; "
            "columns must have an entry for each number of a vector"
        )
    if "_target_" in node:
        if "columns" in constructor_parameters(locate(node["_target_"], "backbone._target_", Backbone)):
            given["columns"] = columns
        elif categories := categories_in(columns):
            listing = ", ".join(categories[:3]) + (", ..." if len(categories) > 3 else "")
            raise ConfigError(
                f"backbone: {node['_target_']} would take the indices of categories for numbers ({listing}); use "
                "backbone=embedding_mlp, or for a table dataset.category_encoding=one_hot"
            )
    factory: BackboneFactory = build(node, "backbone", Backbone, partial=True, **given)
    return factory
