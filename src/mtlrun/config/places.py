"""The places of keys: where a key of the user's stands in the config, if not where it was written."""

import difflib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from mtlrun.config.options import shipped
from mtlrun.config.schema import CONFIG_MODULE, GROUPS, ROOT_KEYS
from mtlrun.config.suggest import suggest

#: The groups of what Hydra calls for a sweep.
PLUGINS = ("hydra/launcher", "hydra/sweeper")

_SHOWN_PLACES, _SHOWN_OPTIONS = 4, 3
# What other programs call a key.
_OTHER_NAMES = {
    "learning_rate": "lr",
    "num_epochs": "epochs",
    "max_epochs": "epochs",
    "max_steps": "steps",
    "batchsize": "batch_size",
    "wd": "weight_decay",
    "workers": "num_workers",
    "accumulate": "micro_batches",
    "output": "root",
    "out": "root",
    "outputs": "root",
    "grad_clip": "clip_norm",
}


def unknown_root_key(name: str, chosen: Mapping[str, Any]) -> str:
    """Return that the config has no such key at its root, and where there are keys of this name.

    Args:
        name: the key.
        chosen: the option that is chosen in each group.
    """
    places = find_places(name, chosen)
    hint = f"did you mean {_listed(places)}?" if places else suggest(name, (*ROOT_KEYS[1:], "match_parameters"))
    return f"unknown key '{name}'; {hint}"


def find_places(name: str, chosen: Mapping[str, Any], without: str = "") -> list[str]:
    """Return the paths of the keys of a name, with the options that have them where the chosen ones do not.

    Args:
        name: a key, or what is similar to one, unless it is similar to a key of the root.
        chosen: the option that is chosen in each group, as far as it is known.
        without: a group whose chosen option is left out.
    """
    groups = _keys_of_options()
    names = {key for options in groups.values() for keys in options.values() for key in keys}
    name = usual_name(name)
    if name not in names:
        roots = difflib.get_close_matches(name.casefold(), ROOT_KEYS, n=1, cutoff=0.6)
        close = [] if roots else difflib.get_close_matches(name.casefold(), sorted(names), n=1, cutoff=0.75)
        if not close:
            return []
        name = close[0]
    first, others = [], []
    for group, options in groups.items():
        having = [option for option, keys in options.items() if name in keys]
        if not having:
            continue
        path = f"tasks.<task>.{name}" if group == "task" else f"{group}.{name}"
        if group not in chosen or chosen[group] in having:
            first += [path] if group != without else []
        else:
            more = f" and {len(having) - _SHOWN_OPTIONS} more" if len(having) > _SHOWN_OPTIONS else ""
            others.append(f"{path} (of {group}={', '.join(having[:_SHOWN_OPTIONS])}{more})")
    return (first + others)[:_SHOWN_PLACES]


def usual_name(name: str) -> str:
    """Return what mtlrun calls a key that has another name in other programs; any other name as it is."""
    return _OTHER_NAMES.get(name, name)


def hint_at_places(name: str, chosen: Mapping[str, Any], without: str = "") -> str:
    """Return `did you mean optimizer.lr? ` for a key that stands in another place; an empty text if there is none."""
    places = [place for place in find_places(name, chosen, without) if place.split(".")[-1].split(" ")[0] == name]
    return f"did you mean {_listed(places)}? " if places else ""


def _listed(places: list[str]) -> str:
    return " or ".join([", ".join(places[:-1]), places[-1]] if len(places) > 1 else places)


@cache
def _keys_of_options() -> dict[str, dict[str, frozenset[str]]]:
    """Return {group: {option: its keys}} of all shipped options."""
    return {group: {name: keys_of_option(group, name) for name in shipped(group)} for group in (*GROUPS, "task")}


@cache
def keys_of_option(group: str, name: str) -> frozenset[str]:
    """Return the keys of an option, and of those that its defaults list begins with."""
    node = yaml.safe_load(files(CONFIG_MODULE).joinpath(group, f"{name}.yaml").read_text(encoding="utf-8")) or {}
    keys: set[str] = set()
    for entry in node.get("defaults", []):
        if isinstance(entry, str) and entry != "_self_" and not entry.startswith("/"):
            keys |= keys_of_option(group, entry.partition("@")[0])
    own = node.get(group, {}) if group == "dataset" else node
    return frozenset(keys | {str(key) for key in own if key not in ("defaults", "_target_", "_partial_", "variants")})
