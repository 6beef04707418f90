"""Changes of single keys of a config that was resolved long ago, as they are typed: `dataset.root=/data/photos`."""

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from mtlrun.config.arguments import as_plain, quote_overrides
from mtlrun.config.suggest import suggest
from mtlrun.errors import ConfigError


def change(
    config: Mapping[str, Any], overrides: Sequence[str], group: str, keys: Collection[str] | None = None
) -> dict[str, Any]:
    """Return a config with these values in place of its own.

    Args:
        config: resolved.
        overrides: `<group>.<key>=<value>`; of a key that holds a mapping, one of its entries can be set.
        group: the only one that may be changed.
        keys: those of its keys that may be changed; None for all.

    Raises:
        ConfigError: with all overrides that are none, or change something else.
    """
    new: dict[str, Any] = copy.deepcopy(dict(config))
    allowed = sorted(key for key in new.get(group, {}) if not key.startswith("_") and (keys is None or key in keys))
    problems = []
    for text in quote_overrides(overrides):
        try:
            parsed = OverridesParser.create().parse_override(text)
            path, value = parsed.key_or_group.split("."), as_plain(parsed.value())
        except HydraException:
            problems.append(f"{text}: is no override; write {group}.<key>=<value>")
            continue
        if parsed.is_sweep_override() or parsed.is_delete():
            problems.append(f"{text}: one value is needed")
        elif path[0] != group or len(path) < 2:
            problems.append(f"{text}: only keys of {group} can be given here, since all else would be another run")
        elif path[1] not in allowed:
            problems.append(f"{text}: cannot be given here; {suggest(path[1], allowed, f'keys of {group}')}")
        else:
            node: Any = new
            for name in path[:-1]:
                node = node.setdefault(name, {}) if isinstance(node, dict) else None
            if not isinstance(node, dict):
                problems.append(f"{text}: {'.'.join(path[:-1])} is a value and has no keys")
                continue
            node[path[-1]] = value
    if problems:
        raise ConfigError(problems)
    return new
