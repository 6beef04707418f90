"""Variants of an option: named sets of values, such as those of the authors' code, for keys that are not set otherwise.

    variant: default
    variants: {official: {reduction: sum}}
    reduction: ${variant:mean}

`weighting.variant=official` makes `weighting.reduction` sum, and `weighting.reduction=mean` on the command line still
wins. Both keys are gone from the resolved config, which holds the values: a run is the same however it was asked for.
"""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig

from mtlrun.config.suggest import suggest

DEFAULT = "default"


def value_of_variant(default: Any, *, _node_: Any, _parent_: DictConfig) -> Any:
    """Return what the chosen variant gives a key, or else `default`; the resolver of `${variant:default}`."""
    if _parent_.variant == DEFAULT:
        return default
    return _parent_.variants[_parent_.variant].get(_node_._key(), default)


def check_variants(cfg: DictConfig, key: str = "") -> list[str]:
    """Return a problem for each node of an unresolved config whose variant is none of its `variants`."""
    problems = []
    for place, node in _nodes(cfg, key):
        known = [DEFAULT, *map(str, node.variants)]
        chosen = str(node.variant)
        if chosen not in known:
            hint = suggest(chosen, known, "the variants are")
            problems.append(f"{place}.variant={chosen}: unknown variant; {hint}")
    return problems


def without_variants(config: Any) -> Any:
    """Return a resolved config without the keys that chose among variants."""
    if not isinstance(config, dict):
        return config
    chosen = ("variant", "variants") if "variants" in config else ()
    return {key: without_variants(value) for key, value in config.items() if key not in chosen}


def _nodes(cfg: DictConfig, key: str) -> Iterator[tuple[str, DictConfig]]:
    if "variants" in cfg:
        yield key, cfg
    for name, node in cfg.items_ex(resolve=False):
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_interpolation():
            yield from _nodes(node, f"{key}.{name!s}" if key else str(name))
