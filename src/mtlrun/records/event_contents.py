"""What the event file of a run shows: how its curves are called, the hyperparameters, and the charts of all tasks.

TensorBoard sorts by name: the first two groups of curves are open, and the table of runs has the first five
hyperparameters, those that differ between runs before others, and the first five metrics. Hence these names.
"""

import re
from collections.abc import Mapping
from typing import Any

from mtlrun.records.event_file import Chart
from mtlrun.records.identity import flatten
from mtlrun.records.record import Record

# What an update of the parameters is made of, and the groups of other curves.
_UPDATE = "update/"
_AS_THEY_ARE = ("train", "val", "test_selected")
_MISSING = object()


def tag_of_curve(tag: str) -> str:
    """Return what a curve of metrics.jsonl is called in the event file.

    Groups of tags that all runs have come first, in alphabetical order: result, train, update, val. `update` has what
    makes up an update: learning rates, weights, norms and cosines of task gradients.
    """
    group, _, rest = tag.partition("/")
    if group in _AS_THEY_ARE:
        return tag
    return _UPDATE + (rest if group == "weighting" else tag)


def tag_of_picture(task: str) -> str:
    """Return what the pictures of a task are called."""
    return f"val_pictures/{task}"


def result_curves(record: Record, test: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return {tag: value} of a run's result, with the metrics on validation of the selected checkpoint.

    First come the main metrics, on test and on validation: they are the first columns of the table of runs.
    """
    splits: dict[str, Mapping[str, Mapping[str, float]]] = {record.result_tag: test, "val": record.val}
    values = {}
    for split, tasks in splits.items():
        for task, metrics in tasks.items():
            for metric, value in metrics.items():
                values[f"result/{split}/{task}/{metric}"] = value
                if metric == record.main_metrics[task]:
                    values[f"result/main/{split}/{task}/{metric}"] = value
    return values


def hyperparameters(record: Record) -> dict[str, bool | int | float | str]:
    """Return what tells a run apart from others, for the table of runs.

    That is weighting, model, backbone, seed and learning rates, in capitals, which are sorted before all others, and
    what was set on the command line, under the keys that were typed.
    """
    config, names = record.config, record.config["names"]
    rates = {name: rate for name, rate in record.learning_rates.items() if name != "weighting"}
    rate = config.get("optimizer", {}).get("lr", next(iter(rates.values()), None))
    found: dict[str, Any] = {
        "Weighting": names["weighting"],
        "Model": names["model"],
        "Backbone": names.get("backbone"),
        "Seed": str(config.get("seed")),  # a text is shown as it is, and can be chosen by a click
        "LR": rate,
        **{f"LR {name}": other for name, other in rates.items() if other != rate},
        "dataset": names.get("data", names["dataset"]),
    }
    return {key: _plain(value) for key, value in (found | _typed(record)).items()}


_SHOWN = {"weighting", "model", "backbone", "seed", "optimizer.lr", "dataset"}


def _typed(record: Record) -> dict[str, Any]:
    """Return {key: value} of what was set on the command line and can change the result."""
    flat = flatten(record.config)
    typed: dict[str, Any] = {}
    for override in record.overrides:
        key, _, text = override.strip("'\"").lstrip("+~").partition("=")
        key = key.rpartition("@")[2]
        is_harmless = key not in flat and _find(record.config, key) is not _MISSING and not _below(flat, key)
        if key in _SHOWN or key.startswith("hydra") or is_harmless:
            continue
        typed[key] = "removed" if override.startswith("~") else flat.get(key, text)
    return typed


def _below(flat: Mapping[str, Any], key: str) -> bool:
    return any(name.startswith(f"{key}.") for name in flat)


def _find(config: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key, or `_MISSING`."""
    node: Any = config
    for name in key.split("."):
        node = node.get(name, _MISSING) if isinstance(node, Mapping) else _MISSING
    return node


def _plain(value: Any) -> bool | int | float | str:
    if value is None:
        return "null"
    return value if isinstance(value, bool | int | float | str) else str(value)


def charts(record: Record) -> dict[str, list[Chart]]:
    """Return the charts of the page Custom Scalars, {title: charts}: training next to validation, and all tasks."""
    evaluation, tasks = record.evaluation_tag, list(record.main_metrics)
    name = "validation" if evaluation == "val" else "test, evaluated during training"
    mains = [f"{evaluation}/{task}/{metric}" for task, metric in record.main_metrics.items()]
    losses = [
        Chart(f"{task}: loss in training and on {name}", [_exactly(f"train/{task}/loss", f"{evaluation}/{task}/loss")])
        for task in tasks
    ]
    pairs, has_affinities = len(tasks) > 1, record.config.get("trainer", {}).get("log_affinity_every") is not None
    return {
        "all tasks": [
            Chart(f"main metrics on {name}", [_exactly(*mains)]),
            Chart("losses in training", [_exactly(*(f"train/{task}/loss" for task in tasks))]),
        ],
        "training and evaluation": losses,
        "weighting": [
            Chart("weights of the tasks", ["update/weight/"]),
            Chart("norms of the task gradients", ["update/grad_norm/"]),
            *([Chart("cosines between task gradients", ["update/grad_cosine/"])] if pairs else []),
            *([Chart("lookahead affinities", ["update/affinity/"])] if pairs and has_affinities else []),
            Chart("learning rates", ["update/lr/"]),
        ],
    }


def _exactly(*tags: str) -> str:
    return f"(?:{'|'.join(map(re.escape, tags))})$"


def tags_of_band(tag: str) -> tuple[str, str]:
    """Return what the lower and upper edge of the band around a mean curve are called; they come after all others."""
    return f"with_band/lower/{tag}", f"with_band/upper/{tag}"


def tags_with_band(record: Record) -> list[str]:
    """Return the tags of the mean curves that have a band, for runs such as this one: main metrics and losses."""
    evaluation = record.evaluation_tag
    mains = [f"{evaluation}/{task}/{metric}" for task, metric in record.main_metrics.items()]
    losses = [f"{split}/{task}/loss" for split in ("train", evaluation) for task in record.main_metrics]
    return list(dict.fromkeys([*mains, *losses]))


def band_charts(record: Record) -> dict[str, list[Chart]]:
    """Return the charts of mean curves and their bands, {title: charts}, for runs such as this one."""
    shown = [Chart(tag, bands=[(tag, *tags_of_band(tag))]) for tag in tags_with_band(record)]
    return {"methods: mean and band": shown[::-1]}  # the page shows charts with bands from the last to the first
