"""What mtlrun costs over a bare PyTorch loop that makes the same steps.

    python scripts/benchmark_overhead.py

Trains lenet with a shared trunk and equal weights on multidigits, batch 256, on one device: once by mtlrun's Trainer
with all its guards, logging to TensorBoard and metrics.jsonl, and once by a loop with nothing but forward, losses,
backward and step. The two take turns, an epoch each, so that a machine that changes its speed slows both. Prints the
median of the ratios within rounds, and their spread.
"""

import argparse
import tempfile
from itertools import count
from pathlib import Path

import torch
from results import describe_machine
from timing import take_turns

from mtlrun.config.compose import compose
from mtlrun.setup.prepare import prepare
from mtlrun.training.observers import MetricsFile, TensorBoard
from mtlrun.training.parts import Parts
from mtlrun.training.trainer import Trainer


def mtlrun_epoch(trainer: Trainer, epoch: int) -> None:
    """Make the steps of an epoch as `Trainer.fit` does."""
    for batch in trainer.parts.loaders["train"].batches(epoch):
        trainer.train_step(batch)
        trainer.progress.step += 1
        trainer.log_step()
        trainer.pause_if_asked()


def bare_epoch(parts: Parts, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    """Make the steps of an epoch as a plain training script does."""
    split = parts.loaders["train"].split
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(epoch))
    for indices in order.split(parts.settings.batch_size):
        inputs = split.inputs[indices].to(parts.device)
        targets = {task: target[indices].to(parts.device) for task, target in split.targets.items()}
        optimizer.zero_grad()
        predictions = parts.model(inputs).predictions
        loss = sum(torch.nn.functional.cross_entropy(predictions[task], targets[task]) for task in targets)
        loss.backward()
        optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="epochs of each")
    parser.add_argument("overrides", nargs="*", help="of the config, such as backbone=resnet18")
    arguments = parser.parse_args()
    overrides = ["model=hard", "weighting=equal", "backbone=lenet", "trainer.batch_size=256", *arguments.overrides]

    with tempfile.TemporaryDirectory() as folder:
        parts, bare = prepare(compose(overrides)), prepare(compose(overrides))
        observers = [MetricsFile(Path(folder)), TensorBoard(Path(folder))]
        trainer = Trainer(parts, folder=Path(folder), observers=observers)
        optimizer = torch.optim.Adam(bare.model.parameters(), lr=1e-3)
        parts.model.train()
        bare.model.train()
        ours, theirs = count(), count()
        epochs = {
            "mtlrun": lambda: mtlrun_epoch(trainer, next(ours)),
            "bare": lambda: bare_epoch(bare, optimizer, next(theirs)),
        }
        turns = take_turns(epochs, parts.device, rounds=arguments.rounds)
        for observer in observers:
            observer.closed()
    steps, (low, high) = trainer.steps_per_epoch, turns.middle_half("mtlrun", "bare")
    print(f"{describe_machine()}, {steps} steps a round")
    print(f"mtlrun  {1000 * turns.median('mtlrun') / steps:.3f} ms per step (median of {arguments.rounds} rounds)")
    print(f"bare    {1000 * turns.median('bare') / steps:.3f} ms per step")
    print(f"ratio   {turns.ratio('mtlrun', 'bare'):.3f} (middle half {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
