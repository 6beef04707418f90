"""A weighting from the name and the keys of its YAML, for a training loop without a run."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mtlrun.config.aliases import ALIASES
from mtlrun.config.instantiate import build
from mtlrun.config.nodes import load_option
from mtlrun.config.options import loss_scalings, shipped
from mtlrun.config.suggest import suggest
from mtlrun.config.variants import check_variants, value_of_variant, without_variants
from mtlrun.errors import ConfigError
from mtlrun.weightings import Weighting
from mtlrun.weightings.capabilities import LooksAhead, RotatesRepresentation

#: Weightings that need a run, and why.
_NEED_A_RUN = {
    LooksAhead: "tries out each step on two batches before it is made",
    RotatesRepresentation: "turns the representation in front of each head, inside of the model",
}


def choose(name: str, keys: Mapping[str, Any], tasks: Sequence[str] | None) -> tuple[Weighting, list[str] | None]:
    """Return the weighting that a name and its keys describe, before `setup`, and the tasks where they are known.

    Args:
        name: of an option of `weighting`, or an alias of it.
        keys: as in its YAML, whose defaults hold for the others. A value with one entry per task may be {task: entry}.
            `losses`, the weighting that scales the losses of a gradient method, is a name or {"name": name, key: ...}.
        tasks: the names of all tasks; None if they are not known yet.

    Raises:
        ConfigError: all problems of name and keys together.
    """
    name = _known(name, shipped("weighting"), "weighting")
    node = load_option("weighting", name)
    given = dict(keys)
    if "losses" in given:
        node.losses = _losses(given.pop("losses"))
    for key, value in given.items():
        if isinstance(value, Mapping):
            value, tasks = _in_order(key, value, tasks)
        if value == "size" or (isinstance(value, list | tuple) and "size" in value):
            raise ConfigError(f"weighting.{key}: size is known of the data of a run only; give numbers")
        node[key] = list(value) if isinstance(value, tuple) else value
    weighting: Weighting = build(_plain(node), "weighting", Weighting)
    refuse_what_needs_a_run(weighting, name)
    return weighting, None if tasks is None else list(tasks)


def refuse_what_needs_a_run(weighting: Weighting, name: str) -> None:
    """Raise ConfigError for a weighting that a training loop of one's own cannot give what it needs."""
    for capability, reason in _NEED_A_RUN.items():
        if weighting.capable_of(capability):
            raise ConfigError(
                f"weighting={name} {reason}: it works in a run only (mtlrun weighting={name}); use another weighting"
            )


def _known(name: str, options: Sequence[str], key: str) -> str:
    name = ALIASES["weighting"].get(name, name)
    if name not in options:
        raise ConfigError(f"{key}={name}: unknown option; {suggest(name, options, 'available')}")
    return name


def _losses(given: Any) -> DictConfig | None:
    """Return the node of the weighting that scales the losses."""
    if given is None:
        return None
    keys = dict(given) if isinstance(given, Mapping) else {"name": given}
    node = load_option("weighting", _known(str(keys.pop("name", "")), loss_scalings(), "weighting.losses"))
    for key, value in keys.items():
        node[key] = value
    return node


def _in_order(key: str, values: Mapping[str, Any], tasks: Sequence[str] | None) -> tuple[list[Any], list[str]]:
    """Return the entries of {task: entry} in the order of the tasks, and the tasks."""
    names = list(values) if tasks is None else list(tasks)
    if set(names) != set(values):
        raise ConfigError(
            f"weighting.{key} must hold an entry for each task ({', '.join(names)}), found "
            f"{', '.join(map(str, values))}"
        )
    return [values[name] for name in names], names


def _plain(node: DictConfig) -> Any:
    """Return a node as plain containers, without what only the tasks of a run could fill in."""
    for owner in (node, node.get("losses")):
        for key in list(owner) if isinstance(owner, DictConfig) else []:
            if OmegaConf.is_interpolation(owner, key) and "per_task:" in str(owner._get_node(key)):
                del owner[key]
    if problems := check_variants(node, "weighting"):
        raise ConfigError(problems)
    OmegaConf.register_new_resolver("variant", value_of_variant, replace=True)
    return without_variants(OmegaConf.to_container(node, resolve=True))
