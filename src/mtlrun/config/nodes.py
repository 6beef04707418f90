"""Nodes of shipped options, read without Hydra: for what is asked for once a config is composed, or without one."""

from collections.abc import Iterator
from importlib.resources import files

from omegaconf import DictConfig, OmegaConf

from mtlrun.config.schema import CONFIG_MODULE

_ITSELF = "_self_"


def load_option(group: str, name: str) -> DictConfig:
    """Return the node of a shipped option with the keys that it has in common with others, interpolations as they are.

    It is what Hydra composes for files whose defaults lists name others of their group, as in `_gram@_here_` and
    `imtl_l@losses`.
    """
    file = files(CONFIG_MODULE).joinpath(group, f"{name}.yaml")
    node = OmegaConf.create(file.read_text(encoding="utf-8"))
    assert isinstance(node, DictConfig)
    merged = OmegaConf.merge(*_layers(group, node))
    assert isinstance(merged, DictConfig)
    return merged


def _layers(group: str, node: DictConfig) -> Iterator[DictConfig]:
    """Yield what an option consists of, in the order of its defaults list."""
    defaults = [str(entry) for entry in node.pop("defaults", [])]
    for entry in defaults if _ITSELF in defaults else [_ITSELF, *defaults]:
        if entry == _ITSELF:
            yield node
        else:
            option, _, package = entry.partition("@")
            below = load_option(group, option)
            yield below if package in ("", "_here_") else OmegaConf.create({package: below})
