"""The problems of a config, collected so that they can be listed together."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from mtlrun.config.schema import SIZE_KEYS
from mtlrun.errors import ConfigError

_GROUPS = ("optimizer", "tasks")


class Problems(list[str]):
    """The problems of a config, collected over all steps so that they can be listed together."""

    def attempt(self, make: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Return what `make` returns, or None if it raises ConfigError, whose problems are added."""
        try:
            return make(*arguments, **options)
        except ConfigError as error:
            self.extend(error.problems)
            return None

    def drop_inherited(self, nodes: Mapping[str, Any]) -> None:
        """Remove the problems of values that come from other keys, whose problems are listed: one for each cause."""
        optimizer, tasks = (nodes[group] if isinstance(nodes.get(group), Mapping) else {} for group in _GROUPS)
        lr = repr(optimizer.get("lr"))
        tasks = {name: node for name, node in tasks.items() if isinstance(node, Mapping)}
        same_rate = "|".join(re.escape(name) for name, node in tasks.items() if repr(node.get("lr")) == lr)
        inherited = {
            r"optimizer\.lr ": rf"tasks\.({same_rate})\.lr ",
            r"tasks\.\w+\.weight ": r"weighting\.(weights|preferences)\b",
            rf"tasks\.\w+\.({'|'.join(SIZE_KEYS)}) ": r"dataset\.sizes\b",
        }
        for source, key in inherited.items():
            if any(re.match(source, problem) for problem in self):
                self[:] = [problem for problem in self if not re.match(key, problem)]

    def raise_if_any(self) -> None:
        """Raise ConfigError if there are problems."""
        if self:
            raise ConfigError(list(dict.fromkeys(self)))
