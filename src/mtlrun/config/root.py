"""The closed root of a config: which keys it must have, and which it may have."""

from collections.abc import Mapping
from typing import Any

from mtlrun.config.bounds import Seed
from mtlrun.config.places import unknown_root_key
from mtlrun.config.schema import GROUPS, OPTIONAL_KEYS, ROOT_KEYS
from mtlrun.config.values import find_problems


def check_root(config: Mapping[str, Any]) -> list[str]:
    """Return the problems of a resolved config's root, such as `+typo=1` and `~group`, which Hydra accepts."""
    known = (*ROOT_KEYS, *OPTIONAL_KEYS)
    unknown = [key for key in config if key not in known]
    problems = [f"{key}: {unknown_root_key(key, config.get('names', {}))}" for key in unknown]
    missing = [key for key in ROOT_KEYS if config.get(key) is None or (key != "seed" and config[key] == {})]
    finds_tasks = "targets" in (config.get("dataset") or {})
    problems += [explain_missing(key, finds_tasks=finds_tasks) for key in missing]
    if "seed" not in missing:
        problems += find_problems(config["seed"], Seed, "seed")
    return problems


def explain_missing(key: str, *, finds_tasks: bool = False) -> str:
    """Return that a config lacks a key of its root, and what to write.

    Args:
        key: which is missing.
        finds_tasks: whether the dataset finds out what kind of task predicts a column.
    """
    if key == "tasks":
        how = "dataset.predict=[<column>]" if finds_tasks else "+task@tasks.<name>=<kind>"
        return f"tasks is missing; every run needs one or more, as in {how}"
    choose = f"; choose one with {key}=<name> (see: mtlrun --help)" if key in GROUPS else f", as in {key}=0"
    return f"{key} is missing; every run needs one{choose}"
