"""Steps of several seeds at once, as `trainer.vectorized_seeds` makes them, against those made one after the other.

    python scripts/benchmark_seeds.py

Whole training steps, with loading, guard and optimizer, of LeNet on multidigits and of a perceptron 64-64 with two
tasks on a table of 12 numbers, both without dropout. The two ways take turns in one process, and figures are medians of
ratios.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import torch
from results import Results
from timing import take_turns

from mtlrun.config.compose import compose
from mtlrun.datasets import Loaded
from mtlrun.setup.environment import keep_solvers_on_one_thread
from mtlrun.setup.prepare import prepare
from mtlrun.training.together.joint_step import JointStep
from mtlrun.training.trainer import Trainer

HEADER = ["network", "batch", "seeds", "at once, ms", "one after the other, ms", "one after the other / at once"]


def overrides_of(network: str, folder: Path) -> list[str]:
    """Return the words of a network and its data."""
    if network == "lenet":
        return ["dataset=multidigits", "backbone=lenet", "backbone.dropout=0"]
    table = folder / "table.csv"
    if not table.exists():
        numbers = torch.randn(4096, 12, generator=torch.Generator().manual_seed(0))
        targets = torch.stack([numbers[:, :6].sum(1), numbers[:, 6:].prod(1)], dim=1)
        lines = [",".join(f"{value:.5f}" for value in row) for row in torch.cat([numbers, targets], dim=1).tolist()]
        header = ",".join([*(f"x{number}" for number in range(12)), "sum", "product"])
        table.write_text("\n".join([header, *lines]))
    return ["dataset=csv", f"dataset.path={table}", "dataset.predict=[sum,product]", "backbone.hidden=[64,64]",
            "backbone.dropout=0"]  # fmt: skip


def make_trainers(words: list[str], number: int, folder: Path) -> list[Trainer]:
    """Return a trainer for each seed."""
    trainers = []
    for seed in range(number):
        parts = prepare(compose([*words, f"seed={seed}"]))
        parts.model.train()
        trainers.append(Trainer(parts, folder=folder))
    return trainers


def endless(trainer: Trainer) -> Iterator[Loaded]:
    """Yield the batches of a full size of one epoch after the other."""
    loader = trainer.parts.loaders["train"]
    for epoch in count():
        for batch in loader.batches(epoch):
            if len(batch[0]) == loader.batch_size:
                yield batch


def at_once(trainers: list[Trainer]) -> Callable[[], None]:
    """Return a step of all trainers at once."""
    step, batches = JointStep(trainers), [endless(trainer) for trainer in trainers]

    def make() -> None:
        errors = step.make([next(each) for each in batches])
        if errors is None or any(errors):
            raise RuntimeError(f"the step was not made: {errors}")

    return make


def one_after_the_other(trainers: list[Trainer]) -> Callable[[], None]:
    """Return a step of each trainer."""
    batches = [endless(trainer) for trainer in trainers]

    def make() -> None:
        for trainer, each in zip(trainers, batches, strict=True):
            trainer.train_step(next(each))

    return make


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["perceptron", "lenet"], choices=["perceptron", "lenet"])
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=math.inf, help="time budget")
    parser.add_argument("--json", help="write the results to this file as well")
    parser.add_argument("overrides", nargs="*", help="of the config, such as weighting=uncertainty")
    arguments = parser.parse_args()
    keep_solvers_on_one_thread()
    end, results = time.monotonic() + arguments.seconds, Results(arguments.json)
    results.table("Several seeds at once", HEADER)
    cases = [(network, size, number) for network in arguments.networks for size in arguments.batches
             for number in arguments.seeds]  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for network, size, number in cases:
            if time.monotonic() > end:
                results.note(f"The time budget ended before {network}, batch {size}, {number} seeds.")
                break
            words = [*overrides_of(network, folder), f"trainer.batch_size={size}",
                     f"runtime.device={arguments.device}", *arguments.overrides]  # fmt: skip
            ways = {
                "at once": at_once(make_trainers(words, number, folder)),
                "in turn": one_after_the_other(make_trainers(words, number, folder)),
            }
            device = torch.device(arguments.device)
            turns = take_turns(ways, device, rounds=arguments.rounds, calls=5, deadline=end)
            for way, reason in turns.failures.items():
                results.note(f"{network}, batch {size}, {number} seeds, {way}: {reason}")
            ratio = turns.ratio("in turn", "at once")
            results.raw[f"{network}, {size}, {number}"] = {"seconds": turns.seconds}
            results.row(network, size, number, *(1000 * turns.median(way) for way in ways), ratio)


if __name__ == "__main__":
    main()
