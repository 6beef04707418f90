"""What mtlrun costs over a bare PyTorch loop that makes the same steps.

    python scripts/benchmark_overhead.py

Trains lenet with a shared trunk and equal weights on multidigits, batch 256, on one device: once by mtlrun's Trainer
with all its guards, logging to TensorBoard and metrics.jsonl, and once by a loop with nothing but forward, losses,
backward and step. The two take turns, an epoch each, so that a machine that changes its speed slows both. Prints the
median of the ratios of neighbors, and their spread.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

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


def timed(device: torch.device, function: Callable[[], None]) -> float:
    """Return how long `function` takes, in seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


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
        ours, theirs = [], []
        for epoch in range(arguments.rounds + 2):
            ours.append(timed(parts.device, lambda: mtlrun_epoch(trainer, epoch)))  # noqa: B023 (called at once)
            theirs.append(timed(parts.device, lambda: bare_epoch(bare, optimizer, epoch)))  # noqa: B023
        for observer in observers:
            observer.closed()

    ours, theirs = ours[2:], theirs[2:]  # the first ones warm up
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    steps, quarter = trainer.steps_per_epoch, len(ratios) // 4
    print(f"device {parts.device}, {torch.get_num_threads()} threads, torch {torch.__version__}, {steps} steps a round")
    print(f"mtlrun  {1000 * statistics.median(ours) / steps:.3f} ms per step (median of {arguments.rounds} rounds)")
    print(f"bare    {1000 * statistics.median(theirs) / steps:.3f} ms per step")
    print(f"ratio   {statistics.median(ratios):.3f} (middle half {ratios[quarter]:.3f} to {ratios[-1 - quarter]:.3f})")


if __name__ == "__main__":
    main()
