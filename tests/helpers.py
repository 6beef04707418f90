"""What tests of the command line have in common."""

import copy
import json
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

CONF = Path(__file__).parents[1] / "conf"

# A run of a second or two: 3 epochs of 4 steps, a tiny network.
QUICK = [
    "backbone=mlp",
    "backbone.hidden=[16]",
    "dataset.pairs_per_image=1",
    "dataset.size=10",
    "trainer.epochs=3",
    "trainer.limit_batches=4",
    "trainer.log_every=3",
    "runtime.quiet=true",
]


def slow_unless(fast, cases):
    """Return the cases of a test as parameters, `slow` those for which `fast(*case)` is False."""
    return [pytest.param(*case, marks=() if fast(*case) else pytest.mark.slow) for case in cases]


def sample_of(kept, cases):
    """Return the cases of a test as parameters: `slow` those for which `kept(*case)` is True, others `exhaustive`."""
    return [pytest.param(*case, marks=pytest.mark.slow if kept(*case) else pytest.mark.exhaustive) for case in cases]


def diagonal(first, second, step=1):
    """Return pairs in which each of `first` and each of `second` occurs, every `step`-th of the pairs of a diagonal."""
    length = max(len(first), len(second))
    pairs = [(first[index % len(first)], second[index % len(second)]) for index in range(length)]
    return set(pairs[::step])


def run_folders(root="outputs"):
    """Return all run folders below `root`."""
    return [path.parent for path in Path(root).glob("**/record.json")]


def read_record(folder):
    """Return the record of a run as a dictionary; RecordError if the program would not take it for one."""
    from mtlrun.records.record import Record

    Record.read(Path(folder))
    return json.loads((Path(folder) / "record.json").read_text())


def start(*arguments):
    """Start a command line in a process of its own."""
    command = [sys.executable, "-m", "mtlrun", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def train_until_step(config, step, monkeypatch):
    """Ask for a stop after so many steps, as SIGTERM does."""
    from mtlrun.errors import RunInterruptedError
    from mtlrun.runs import run as module

    made = []
    make = module.Trainer

    def make_stopping(*arguments, **options):
        trainer = make(*arguments, **options)
        trainer.stop_signal = lambda: signal.SIGTERM if trainer.progress.step >= step else None
        made.append(trainer)
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(module, "Trainer", make_stopping)
        with pytest.raises(RunInterruptedError):
            module.run(config)
    return made[0]


def read_lines(folder, split):
    """Return what metrics.jsonl says of a split."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == split]


def curves(folder):
    """Return the curves of a run as TensorBoard reads them."""
    (path,) = folder.glob("events.out.tfevents.*")
    return EventAccumulator(str(path), size_guidance={"tensors": 0}).Reload()


@cache
def _read(path):
    return yaml.safe_load(path.read_text())


def shipped_node(group, name):
    """Return the node of a shipped option with the keys that it shares with others, interpolations as they stand.

    Hydra takes a hundred times as long; tests/config/test_configs.py compares.
    """
    node = copy.deepcopy(_read(CONF / group / f"{name}.yaml"))
    defaults = node.pop("defaults", [])
    merged = {}
    for default in defaults if "_self_" in defaults else ["_self_", *defaults]:
        if default == "_self_":
            merged |= node
        else:
            option, package = default.split("@")
            below = shipped_node(group, option)
            merged |= below if package == "_here_" else {package: below}
    if merged.pop("variants", None):
        del merged["variant"]
    return {key: _default(value) for key, value in merged.items()}


def _default(value):
    """Return what `${variant:value}` is without a variant."""
    prefix = "${variant:"
    is_default = isinstance(value, str) and value.startswith(prefix)
    return yaml.safe_load(value.removeprefix(prefix).removesuffix("}")) if is_default else value


def weighting_node(name):
    """Return the node of a shipped weighting, without a run: with equal preferences, and the first task as primary."""
    node = shipped_node("weighting", name)
    return node | {key: value for key, value in {"preferences": None, "primary": 0}.items() if key in node}


def choose_weighting(name, primary):
    """Return the words that choose a weighting, with its primary task if it needs one."""
    needs_primary = "primary" in shipped_node("weighting", name)
    return [f"weighting={name}", *[f"weighting.primary={primary}"] * needs_primary]
