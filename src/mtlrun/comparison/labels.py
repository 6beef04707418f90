"""Labels of configs: the keys in which the rows of a table differ, without those that follow from others."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

#: Keys that the YAML fills in from those of the tasks, which are shown.
DERIVED = ("dataset.tasks", "dataset.kinds", "dataset.sizes", "dataset.positives")
#: Key -> the keys that the YAML fills it in from, unless it is set: it is shown only where it has another value.
FOLLOWS = {
    r"tasks\.[^.]+\.lr": ("optimizer.lr",),
    r"tasks\.[^.]+\.num_classes": ("dataset.num_classes", "dataset.classes"),
    r"tasks\.[^.]+\.num_outputs": ("dataset.output_size",),
    r"tasks\.[^.]+\.size": ("dataset.size",),
    r"dataset\.category_encoding": ("backbone.category_encoding",),
}
# Keys that the YAML fills in with the weights of all tasks.
_LISTS_OF_WEIGHTS = ("weighting.preferences", "weighting.weights")

Flat = dict[str, Any]


def follows(key: str, config: Mapping[str, Any]) -> bool:
    """Return True if a key of a flat config has the value that the YAML takes from other keys."""
    if key in DERIVED:
        return True
    if key in _LISTS_OF_WEIGHTS:
        weights = [value for other, value in config.items() if re.fullmatch(r"tasks\.[^.]+\.weight", other)]
        return bool(weights) and config.get(key) == weights
    sources = next((sources for pattern, sources in FOLLOWS.items() if re.fullmatch(pattern, key)), ())
    return any(source in config and config.get(key) == config[source] for source in sources)


def label_configs(configs: Sequence[Flat], contents: Sequence[str]) -> list[Flat]:
    """Return for each of several flat configs the keys in which it differs from others, with its values.

    Args:
        configs: with dotted keys, and `names.<group>` for the names of options; without what is repeated.
        contents: of the data that each was trained on; shown as `data` where configs are equal.
    """
    shown = _with_tasks(configs)
    twins: dict[str, set[str]] = {}
    identities = [repr(sorted(config.items(), key=lambda item: item[0])) for config in shown]
    for identity, content in zip(identities, contents, strict=True):
        twins.setdefault(identity, set()).add(content)
    for config, identity, content in zip(shown, identities, contents, strict=True):
        if len(twins[identity]) > 1:
            config["data"] = content
    keys = dict.fromkeys(key for config in shown for key in config)
    differing = [key for key in keys if len({repr(config.get(key)) for config in shown}) > 1]
    telling = [key for key in differing if not all(follows(key, config) for config in configs if key in config)]
    if "data" in differing or "tasks" in differing:
        telling = [key for key in differing if key in ("data", "tasks") or key in telling]
    names = [key for key in telling if key.startswith("names.")]
    # The keys of an option add nothing to its name, unless they differ between configs that use the same option.
    chosen = names + [key for key in telling if key not in names and not _follows_from_name(key, shown)]
    labels = [_select(config, chosen) for config in shown]
    if len({repr(label) for label in labels}) < len(labels):  # a key that was left out tells them apart, after all
        labels = [_select(config, chosen + [key for key in differing if key not in chosen]) for config in shown]
    return labels


def _select(config: Flat, keys: Sequence[str]) -> Flat:
    return {key.removeprefix("names."): config[key] for key in keys if key in config}


def _with_tasks(configs: Sequence[Flat]) -> list[Flat]:
    """Return copies of flat configs; where their tasks differ, with a key `tasks` that has the names.

    The keys of a task that only some of the configs have are left out, unless they differ between configs of the same
    tasks.
    """
    tasks = [list(dict.fromkeys(key.split(".")[1] for key in flat if key.startswith("tasks."))) for flat in configs]
    common = set(tasks[0]).intersection(*tasks[1:])
    if all(set(names) == common for names in tasks):
        return [dict(flat) for flat in configs]
    kinds = [
        repr([(task, flat.get(f"tasks.{task}._target_")) for task in names])
        for flat, names in zip(configs, tasks, strict=True)
    ]
    values: dict[tuple[str, str], set[str]] = {}
    for kind, flat in zip(kinds, configs, strict=True):
        for key, value in flat.items():
            values.setdefault((kind, key), set()).add(repr(value))
    telling = {key for (_, key), different in values.items() if len(different) > 1}
    shown = []
    for flat, names in zip(configs, tasks, strict=True):
        dropped = tuple(f"tasks.{task}." for task in names if task not in common)
        kept = {key: value for key, value in flat.items() if not key.startswith(dropped) or key in telling}
        shown.append({"tasks": ", ".join(names)} | kept)
    return shown


def _follows_from_name(key: str, configs: Sequence[Flat]) -> bool:
    """Return True if the value of `key` is the same in all configs whose option of that group has the same name."""
    name = f"names.{key.split('.')[0]}"
    values: dict[Any, set[str]] = {}
    for config in configs:
        if name not in config:
            return False
        values.setdefault(config[name], set()).add(repr(config.get(key)))
    return all(len(different) == 1 for different in values.values())
