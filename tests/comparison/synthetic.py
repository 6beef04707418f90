"""Synthetic records, made without a run: as many as a test needs, each with what a run's record has.

make_record(seed=1, weighting="mgda", test={"left": {"accuracy": 0.9}})
make_study({"equal": 0.90, "mgda": 0.92}, seeds=3)        # accuracies around these means
write_records(tmp_path, records, evaluations=5)           # folders with record.json and metrics.jsonl
"""

import copy
import dataclasses
import json
import random
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from mtlrun.records.identity import run_id
from mtlrun.records.record import Record

DIRECTIONS = {"accuracy": "max", "loss": "min"}
CLASSES = {"hard": "HardSharing", "single": "SingleTask", "mmoe": "MMoE"}
HEAD = {"_target_": "mtlrun.models.heads.MLPHead", "_partial_": True, "hidden": []}
TASK = {"lr": 0.001, "weight": 1.0, "_target_": "mtlrun.tasks.Classification", "num_classes": 10, "head": HEAD,
        "label_smoothing": 0.0, "class_weights": "none"}  # fmt: skip
CONFIG = {
    "names": {"dataset": "multidigits", "model": "hard", "backbone": "lenet", "weighting": "equal"},
    "runtime": {"root": "outputs", "study": "runs", "device": "auto", "num_workers": 0, "num_threads": None,
                "checkpoint_minutes": 10.0, "predictions": "csv", "rerun": False, "quiet": False},
    "trainer": {"epochs": 30, "steps": None, "batch_size": 256, "micro_batches": 1, "vmap_backward": False,
                "eval_batch_size": 1024, "evaluate_every": 1, "evaluate_every_steps": None, "monitor": "mean_skill",
                "patience": None, "min_delta": 0.0, "clip_norm": None, "log_every": 10, "log_gradients_every": None,
                "log_pictures": 4, "max_fallbacks": 0.1, "limit_batches": None, "deterministic": False,
                "baselines": "auto"},
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.001, "betas": [0.9, 0.999], "eps": 1e-08,
                  "weight_decay": 0.0},
    "scheduler": {"warmup_epochs": 0.0, "_target_": "mtlrun.training.optim.Constant"},
    "backbone": {"_target_": "mtlrun.models.backbones.LeNet", "channels": [10, 20], "features": 50, "dropout": 0.5,
                 "width": 1.0},
    "model": {"_target_": "mtlrun.models.HardSharing", "shared_stages": None},
    "weighting": {"loss_transform": "identity", "_target_": "mtlrun.weightings.Equal", "reduction": "sum"},
    "dataset": {"_target_": "mtlrun.datasets.MultiDigits", "num_train": 6000, "num_val": 1000, "num_test": 1000,
                "split_seed": 0},
}  # fmt: skip
_BEGINNING, _COUNTER = datetime(2026, 1, 1, tzinfo=UTC), count()  # one run after the other
ENVIRONMENT = {
    "mtlrun": {"commit": "0" * 40, "dirty": False},
    "git": None,
    "versions": {"python": "3.11.7", "mtlrun": "0.1.0", "torch": "2.11.0"},
    "platform": "Linux-x86_64",
    "host": "host",
    "device": "cpu",
    "cpus": 2,
    "threads": 1,
    "command": ["mtlrun", "weighting=equal"],
}


def make_record(seed=0, *, model="hard", weighting="equal", tasks=("left", "right"), test=None, directions=None,
                status="completed", changes=None, dataset="multidigits", **fields):  # fmt: skip
    """Return the record of a run.

    Args:
        seed: of the run.
        model: its name.
        weighting: its name.
        tasks: their names.
        test: {task: {metric: value}}; by default an accuracy and a loss that depend on nothing.
        directions: {metric: "max" or "min"} of metrics other than accuracy and loss. The first metric of a task is its
            main one.
        status: of the run; all but completed runs have no result.
        changes: {dotted key of the config: value}.
        dataset: its name.
        fields: of the record, in place of the values here.
    """
    test = {task: {"accuracy": 0.9, "loss": 0.1} for task in tasks} if test is None else test
    directions = DIRECTIONS | (directions or {})
    config = copy.deepcopy(CONFIG)
    config["names"] |= {"model": model, "weighting": weighting, "dataset": dataset}
    config["model"]["_target_"] = f"mtlrun.models.{CLASSES.get(model, model.title())}"
    config["weighting"]["_target_"] = f"mtlrun.weightings.{weighting.title()}"
    config |= {"tasks": {task: copy.deepcopy(TASK) for task in tasks}, "seed": seed}
    for key, value in (changes or {}).items():
        *path, last = key.split(".")
        node = config
        for name in path:
            node = node.setdefault(name, {})
        node[last] = value
    completed = status == "completed"
    values = {
        "overrides": [
            f"model={model}", f"weighting={weighting}", f"seed={seed}",
            *(f"{key}={value}" for key, value in (changes or {}).items()),
        ],
        "status": status,
        "directions": {task: {metric: directions[metric] for metric in metrics} for task, metrics in test.items()},
        "main_metrics": {task: next(iter(metrics)) for task, metrics in test.items()},
        "selection": [{"tasks": list(tasks), "rule": "mean_skill", "epoch": 20, "step": 480, "skill": 0.9}],
        "val": copy.deepcopy(test) if completed else {},
        "test": copy.deepcopy(test) if completed else {},
        "splits": {
            split: {"samples": 1000, "labeled": dict.fromkeys(tasks, 1000), "fingerprint": split, "available": 1000,
                    "repeated": 0, "repeated_in_val": 0}
            for split in ("train", "val", "test")
        },
        "total_steps": 720,
        "steps": 720 if completed else 100,
        "epochs": 30 if completed else 4,
        "parameters": {"shared": 20_000, **dict.fromkeys(tasks, 500)},
        "learning_rates": {"shared": 0.001, **dict.fromkeys(tasks, 0.001)},
        "macs": 500_000,
        "passes_per_step": {"forward": 1, "backward": 1},
        "seconds": {"train": 36.0, "to_first_step": 3.0, "test": 0.1},
        "peak_memory_mib": {"process": 800.0},
        "started": (start := _BEGINNING + timedelta(minutes=next(_COUNTER))).isoformat(),
        "ended": (start + timedelta(seconds=50)).isoformat(),
        "environment": copy.deepcopy(ENVIRONMENT),
    }  # fmt: skip
    return Record(run_id(config), config, **values | fields)


def make_study(methods, *, seeds=3, spread=0.01, tasks=("left", "right"), key="weighting", **arguments):
    """Return records of several methods, whose accuracies are normal around a mean, with seed effects in common.

    Args:
        methods: {name: mean accuracy, or one mean per task}.
        seeds: number of them, from 0 on.
        spread: standard deviation over seeds.
        tasks: their names.
        key: "weighting" or "model", whose names these are.
        arguments: of `make_record`.
    """
    records = []
    for name, means in methods.items():
        means = means if isinstance(means, (list, tuple)) else [means] * len(tasks)
        for seed in range(seeds):
            common = random.Random(f"{seed}").gauss(0, spread)
            draw = random.Random(f"{name}-{seed}")
            test = {}
            for task, mean in zip(tasks, means, strict=True):
                accuracy = mean + common + draw.gauss(0, spread / 2)
                test[task] = {"accuracy": accuracy, "loss": 1 - accuracy}
            records.append(make_record(seed, tasks=tasks, test=test, **{key: name}, **arguments))
    return records


def write_records(root, records, *, evaluations=0):
    """Write each record into a folder of its own below `root`, and return the folders.

    Args:
        root: the folder of the study.
        records: what to write.
        evaluations: number of lines on validation in metrics.jsonl, each with a training line before it; 0 for no file.
    """
    folders = []
    for record in records:
        folder = Path(root, record.run_id)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "record.json").write_text(json.dumps(dataclasses.asdict(record), indent=2))
        if evaluations:
            (folder / "metrics.jsonl").write_text("".join(_curve(record, evaluations)))
        folders.append(folder)
    return folders


def _curve(record, evaluations):
    tasks = list(record.main_metrics)
    for epoch in range(1, evaluations + 1):
        place = {"step": 24 * epoch, "epoch": epoch}
        losses = {f"train/{task}/loss": 1 / epoch for task in tasks}
        weights = {f"weight/{task}": 1.0 for task in tasks}
        yield json.dumps({"split": "train", **place, **losses, **weights}) + "\n"
        values = {
            f"val/{task}/{metric}": value * epoch / evaluations
            for task, metrics in record.val.items()
            for metric, value in metrics.items()
        }
        yield json.dumps({"split": "val", **place, "selected": epoch == evaluations, **values}) + "\n"
