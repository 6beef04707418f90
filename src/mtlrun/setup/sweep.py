"""The values of a sweep that cannot be composed, tried in combinations that may work, without loading data.

What is wrong with a value in every combination is said beside what keeps the sweep from being composed.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from mtlrun.config.compose import compose
from mtlrun.config.instantiate import build
from mtlrun.config.root import check_root
from mtlrun.config.settings import Runtime, Settings
from mtlrun.errors import ConfigError, MtlrunError
from mtlrun.setup.optimizer_groups import check_optimizer
from mtlrun.setup.prepare import build_components, build_plain
from mtlrun.setup.problems import Problems
from mtlrun.training.optim import Schedule
from mtlrun.weightings.base import Weighting

_TRIES = 8  # combinations of a value, at most, before it is called wrong
_ALL_TRIES = 50  # of all values together

#: {key: the overrides of each of its values}.
Values = Mapping[str, Sequence[str]]


def by_key(overrides: Sequence[str]) -> Values:
    """Return overrides, each with one value, as the values of their keys."""
    values: dict[str, list[str]] = {}
    for text in overrides:
        values.setdefault(OverridesParser.create().parse_override(text).key_or_group, []).append(text)
    return values


def find_wrong_values(values: Values, config_dir: str | None) -> list[str]:
    """Return the problems of values that are wrong in whatever combination of the sweep they stand.

    Args:
        values: as `by_key` returns them.
        config_dir: the folder of the user's YAML.
    """
    tried: dict[tuple[str, ...], list[str]] = {}
    good: set[str] = set()
    wrong: dict[str, list[tuple[str, ...]]] = {}  # values without a combination that works, and those that were tried
    base: dict[str, Any] | None = None
    for key, texts in values.items():
        for text in texts if len(texts) > 1 or base is None else ():
            if text in good or (base is not None and _is_right(base, key, text)):
                continue
            wrong[text] = []
            for combination in islice(_combinations(values, key, text, good), _TRIES):
                if combination not in tried:
                    if len(tried) == _ALL_TRIES:
                        break
                    config, tried[combination] = _try(combination, values, config_dir)
                    base = base or (None if tried[combination] else config)
                wrong[text].append(combination)
                if not tried[combination]:
                    good.update(combination)
                    break
    for text in good & wrong.keys():
        del wrong[text]
    problems: list[str] = []
    for text, combinations in wrong.items():
        without_others = [one for one in combinations if not wrong.keys() & {*one} - {text}] or combinations
        found = [tried[one] for one in without_others]
        problems += [problem for problem in found[0] if all(problem in others for others in found)] if found else []
    return list(dict.fromkeys(problems))


def _combinations(values: Values, key: str, text: str, good: set[str]) -> Iterator[tuple[str, ...]]:
    """Yield the combinations with one value of one key; those with values that are known to work come first."""
    others = [
        sorted(texts, key=lambda one: one not in good) if name != key else [text] for name, texts in values.items()
    ]
    return product(*(texts for texts in others if texts))


def _try(combination: Sequence[str], values: Values, config_dir: str | None) -> tuple[dict[str, Any], list[str]]:
    """Return the config of a run, and the problems of its values, but none of how they go together."""
    try:
        config = compose(list(combination), config_dir)
        problems = Problems(check_root(config))
        build_components(config, problems)
        problems.drop_inherited(config)
    except ConfigError as error:
        return {}, error.problems
    except MtlrunError as error:
        return {}, [str(error)]
    # A network that cannot be may be due to the combination, unless it is a key of the sweep that the message is about.
    networks = ("model", "backbone", "match_parameters")
    keys = tuple(f"{key} " for key in values if "." in key)
    return config, [problem for problem in problems if not problem.startswith(networks) or problem.startswith(keys)]


def _is_right(base: Mapping[str, Any], key: str, text: str) -> bool:
    """Return True if a value can take the place of another in a config that works; False if that is not known."""
    config = copy.deepcopy(dict(base))
    node: Any = config
    *path, last = key.split(".")
    for name in path:
        node = node.get(name) if isinstance(node, dict) else None
    value = OverridesParser.create().parse_override(text).value()
    if not isinstance(node, dict) or last not in node or isinstance(node[last], dict) or isinstance(value, dict | list):
        return False
    if isinstance(value, str) and "${" in value:
        return False
    node[last] = value
    return not check_root(config) if key == "seed" else _is_built(config, key.split(".")[0])


def _is_built(config: Mapping[str, Any], group: str) -> bool:
    """Return True if a group whose class needs no other can be built."""
    try:
        if group in ("runtime", "trainer"):
            build_plain(Runtime if group == "runtime" else Settings, config[group], group)
        elif group in ("weighting", "scheduler"):
            build(config[group], group, Weighting if group == "weighting" else Schedule)
        elif group == "optimizer":
            check_optimizer(config[group])
        else:
            return False
    except ConfigError:
        return False
    return True
