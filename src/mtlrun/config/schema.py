"""The closed root of a config: its allowed keys."""

from collections.abc import Mapping
from typing import Any

from mtlrun.config.suggest import suggest

CONFIG_MODULE = "mtlrun.conf"

# The groups of conf/ that a run consists of, in the order in which they are shown.
GROUPS = ("dataset", "model", "backbone", "weighting", "optimizer", "scheduler", "trainer", "runtime")
# Chosen by name only: their keys are placed elsewhere in the config.
NAMING_GROUPS = ("experiment", "study", "task", "weighting/losses", "model@match_parameters")
OPTIONAL_KEYS = ("match_parameters",)
# How many values a task predicts: the keys that may be null for what the dataset knows, such as the labels of a table.
SIZE_KEYS = ("num_classes", "num_levels", "num_labels")
ROOT_KEYS = ("names", "seed", "tasks", *GROUPS)


def check_root(config: Mapping[str, Any]) -> list[str]:
    """Return the problems of a resolved config's root, such as `+typo=1` and `~group`, which Hydra accepts."""
    known = (*ROOT_KEYS, *OPTIONAL_KEYS)
    problems = [f"{key}: unknown key; {suggest(key, known[1:])}" for key in config if key not in known]
    missing = [key for key in ROOT_KEYS if config.get(key) in (None, {})]
    problems += [f"{key} is missing; every run needs it{_choose(key)}" for key in missing]
    seed = config.get("seed")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or seed < 0):
        problems.append(f"seed must be a whole number >= 0, found {seed!r}")
    return problems


def _choose(key: str) -> str:
    return f": choose one with {key}=<name> (see: mtlrun --help)" if key in GROUPS else ""
