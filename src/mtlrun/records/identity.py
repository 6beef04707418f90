"""A run is its config: the name of its folder is made from the resolved config and nothing else."""

import hashlib
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from mtlrun.config.root import check_root

# What cannot change a result is not part of a run's identity: the number of workers, the folder; nor is how the kinds
# of its tasks were found, or what else is computed beside the result. Nor is the device, which is recorded instead, so
# that a study may be trained on several machines: results of a CPU and of a GPU differ by rounding. So do those of
# seeds that are trained together.
_HARMLESS = ("runtime", "found", "trainer.baselines", "trainer.vectorized_seeds")
# Nor is where samples lie once they were read, for which one of these values stands. (Files that are read whenever
# needed have another fingerprint than what was read of them, so none differs from the others.)
_CACHE, _READ = "dataset.cache", {"auto": "memory", "device": "memory"}
#: No name has a rate above it, which would be none to train at.
_LARGEST_LR = 1e6


def config_hash(config: Mapping[str, Any]) -> str:
    """Return the first 8 hex digits of the SHA-256 of `config` without what cannot change a result.

    `config` is the resolved config as plain containers. Key order does not matter; 1 and 1.0 differ, since
    they may mean different things to a constructor.
    """
    return hashlib.sha256(_canonical(config).encode()).hexdigest()[:8]


def is_same_run(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return True if two configs differ at most in what cannot change a result."""
    return _canonical(one) == _canonical(other)


def _canonical(config: Mapping[str, Any]) -> str:
    return json.dumps(_identity(config), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return {"optimizer.lr": 0.001, ...}: every value that can change a result, under its dotted key.

    `_partial_` is left out: it is implied by the place in the config. `_target_` stays, because a name such as
    `optimizer=sgd` appears nowhere else in the config.
    """
    flat: dict[str, Any] = {}
    _flatten(config, "", flat)
    return flat | ({"runtime.num_threads": threads} if (threads := _several_threads(config)) else {})


def _flatten(config: Mapping[str, Any], prefix: str, flat: dict[str, Any]) -> None:
    for key, value in config.items():
        name = f"{prefix}{key}"
        if name in _HARMLESS or key == "_partial_":
            continue
        if isinstance(value, dict):
            _flatten(value, f"{name}.", flat)
        else:
            flat[name] = _same_value(name, value)


def _identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes a run: what can change a result, and several threads, whose sums are rounded otherwise."""
    threads = _several_threads(config)
    return _relevant(config) | ({"runtime": {"num_threads": threads}} if threads else {})


def _several_threads(config: Mapping[str, Any]) -> Any:
    """Return the number of threads of a run, None for the default."""
    threads = config.get("runtime", {}).get("num_threads")
    return None if threads in (None, 1) else threads


def _relevant(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    return {
        key: _relevant(value, f"{prefix}{key}.") if isinstance(value, Mapping) else _same_value(f"{prefix}{key}", value)
        for key, value in config.items()
        if f"{prefix}{key}" not in _HARMLESS
    }


def _same_value(name: str, value: Any) -> Any:
    """Return the value that stands for all values of a key that give the same results."""
    return _READ.get(value, value) if name == _CACHE and isinstance(value, str) else value


def run_id(config: Mapping[str, Any]) -> str:
    """Return `<model>-<weighting>-lr<lr>-s<seed>-<data>-<hash8>`, the name of the run and of its folder.

    What is swept over most stands first, since lists of runs cut long names. Where there are folds, `-f<fold>` follows
    the seed. The data are named after their dataset, or a table of the user's after its file.
    """
    names = config["names"]
    lr, fold = _look_up(config, "optimizer", "lr"), _look_up(config, "dataset", "fold")
    words = [
        names["model"],
        names["weighting"],
        *([f"lr{_digits(lr)}"] if isinstance(lr, int | float) and abs(lr) < _LARGEST_LR else []),
        f"s{config['seed']}",
        *([f"f{fold}"] if isinstance(fold, int) else []),
        names.get("data", names["dataset"]),
        config_hash(config),
    ]
    return "-".join(re.sub(r"[^\w.]+", "_", str(word)) for word in words)


def _look_up(config: Mapping[str, Any], group: str, key: str) -> Any:
    node = config.get(group)
    return node.get(key) if isinstance(node, Mapping) else None


def _digits(number: float) -> str:
    """Return a number with three digits, such as 0.00003, where that is short."""
    rounded = f"{number:.3g}"
    return f"{Decimal(rounded):f}" if abs(number) >= 1e-6 else rounded


def run_folder(config: Mapping[str, Any]) -> Path:
    """Return `<runtime.root>/<runtime.study>/<run id>`."""
    runtime = config["runtime"]
    return Path(runtime["root"], runtime["study"], run_id(config))


def find_folder(config: Mapping[str, Any]) -> Path | None:
    """Return the folder of a run; None if the config lacks what names it, or no path can be so.

    Preparing such a run raises ConfigError, with all problems that there are.
    """
    if check_root(config) or not all(isinstance(config["runtime"].get(key), str) for key in ("root", "study")):
        return None
    folder = run_folder(config)
    try:
        folder.exists()
    except OSError:  # a name that is too long, or a folder that one may not look into
        return None
    return folder
