"""What a training step of mtlrun costs on a CPU, beside plain loops, TorchJD, and the bookkeeping of LibMTL's trainer.

    pip install torchjd
    python scripts/benchmark_step.py
    python scripts/benchmark_step.py --networks perceptron --methods equal upgrad --rounds 40

One process, one thread. Each contestant trains the same network on the same data by the same optimizer, ten steps at a
time, in turns, so that a machine that changes its speed slows them alike. The figures are CPU time relative to
mtlrun's, medians of the ratios within rounds; above 1, mtlrun is faster:

    mtlrun      the steps of `Trainer.fit`, with its guard, its loader, and curves written every 10 steps
    plain       the batch, forward, sum of the losses, backward, step
    libmtl      plain, and what LibMTL's trainer does besides in each step under equal weights: it collects the losses
                in a tensor, multiplies them by one of weights, and reads each loss and each metric
    passes      one backward pass of the heads and K of the trunk, nothing combined: the floor of every exact method
    torchjd     `mtl_backward` and `jac_to_grad`, with their defaults: the K passes are batched by vmap
    sequential  the same with `parallel_chunk_size=1`: one pass after the other
    gram        TorchJD's `autogram.Engine`: the Gram matrix, then one backward pass of the weighted losses; it supports
                no BatchNorm that keeps running statistics
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import peers
import torch
from networks import Backward, Step, parameters, passes, plain
from results import Results
from timing import take_turns
from torch import Tensor

from mtlrun.config.compose import compose
from mtlrun.errors import MtlrunError
from mtlrun.setup.environment import keep_solvers_on_one_thread
from mtlrun.setup.prepare import prepare
from mtlrun.training.observers import MetricsFile
from mtlrun.training.parts import Parts
from mtlrun.training.trainer import Trainer

STEPS = 10  # of each contestant in a round
NETWORKS = {
    "perceptron": ["dataset=csv", "backbone=mlp", "backbone.hidden=[64,64]", "trainer.batch_size=256"],
    "lenet": ["dataset=multidigits", "backbone=lenet", "trainer.batch_size=256"],
    "convnet": ["dataset=multidigits", "backbone=convnet", "trainer.batch_size=32"],
    "resnet18": ["dataset=multidigits", "backbone=resnet18", "backbone.width=.25", "trainer.batch_size=64"],
}
METHODS = ["equal", "uncertainty", *peers.AGGREGATORS]


def write_table(path: Path, num_tasks: int = 8) -> list[str]:
    """Write a table with 20 inputs and a number to predict for each task; return overrides that name both."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(4096, 20, generator=generator)
    targets = (inputs @ torch.randn(20, num_tasks, generator=generator)).tanh()
    names = [f"target{number}" for number in range(num_tasks)]
    rows = [",".join(f"{value:.6g}" for value in row) for row in torch.cat([inputs, targets], dim=1).tolist()]
    path.write_text("\n".join([",".join([*(f"input{number}" for number in range(20)), *names]), *rows]) + "\n")
    return [f"dataset.path={path}", f"dataset.predict=[{','.join(names)}]"]


def mtlrun_step(overrides: Sequence[str], folder: Path) -> Step:
    """Return a function that makes a step as `Trainer.fit` does."""
    parts = prepare(compose(list(overrides)))
    folder.mkdir()
    trainer = Trainer(parts, folder=folder, observers=[MetricsFile(folder)])
    trainer.observers.start_anew()
    progress = trainer.progress
    parts.model.train()

    def batches() -> Iterator[Any]:
        for progress.epoch in count():
            yield from parts.loaders["train"].batches(progress.epoch)

    stream = batches()

    def step() -> None:
        trainer.train_step(next(stream))
        progress.step += 1
        trainer.log_step()
        trainer.pause_if_asked()

    return step


def bare_step(overrides: Sequence[str], make: Callable[[Parts], Backward], *, meter: bool = False) -> Step:
    """Return a function that makes a step as a plain training script does; with `meter` it reads losses and metrics."""
    parts = prepare(compose(list(overrides)))
    model, tasks, split = parts.model, parts.tasks, parts.loaders["train"].split
    options = {key: value for key, value in parts.optimizer.defaults.items() if key != "decoupled_weight_decay"}
    optimizer = type(parts.optimizer)(model.parameters(), **options)
    backward = make(parts)
    model.train()

    def batches() -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        for epoch in count():
            order = torch.randperm(len(split), generator=torch.Generator().manual_seed(epoch))
            for indices in order.split(parts.settings.batch_size):
                yield split.inputs[indices], {name: target[indices] for name, target in split.targets.items()}

    stream = batches()

    def step() -> None:
        inputs, targets = next(stream)
        optimizer.zero_grad()
        output = model(inputs)
        losses = [tasks[name].loss(output.predictions[name], target) for name, target in targets.items()]
        backward(output.representation, losses)
        optimizer.step()
        if meter:
            for (name, target), loss in zip(targets.items(), losses, strict=True):
                predicted = output.predictions[name].detach()
                error = predicted[:, 0] - target if target.is_floating_point() else predicted.argmax(dim=1) != target
                loss.item()
                error.abs().sum().item() if target.is_floating_point() else error.sum().item()

    return step


def collected(_: Tensor, losses: Sequence[Tensor]) -> None:
    stacked = torch.zeros(len(losses))
    for position, loss in enumerate(losses):
        stacked[position] = loss
    torch.mul(stacked, torch.ones_like(stacked)).sum().backward()


def contestants(overrides: list[str], method: str, folder: Path) -> dict[str, Step]:
    """Return {name: step} of those that can train this network, after two steps of each."""
    made: dict[str, Callable[[], Step]] = {
        "mtlrun": lambda: mtlrun_step([*overrides, f"weighting={method}"], folder),
        "plain": lambda: bare_step(overrides, lambda _: plain),
    }
    if method in peers.AGGREGATORS:
        made["passes"] = lambda: bare_step(overrides, passes)
        made["torchjd"] = lambda: bare_step(overrides, lambda parts: peers.by_rows(method, *parameters(parts)))
        made["sequential"] = lambda: bare_step(
            overrides, lambda parts: peers.by_rows(method, *parameters(parts), chunk=1)
        )
        made["gram"] = lambda: bare_step(
            overrides, lambda parts: peers.by_gram(method, parts.model.trunk, len(parts.tasks))
        )
        made["representation"] = lambda: mtlrun_step(
            [*overrides, f"weighting={method}", "weighting.grad_wrt=representation"], folder / "representation"
        )
    else:
        made["libmtl"] = lambda: bare_step(overrides, lambda _: collected, meter=True)
    steps = {}
    for name, make_step in made.items():
        try:
            steps[name] = make_step()
            for _ in range(2):
                steps[name]()
        except (ImportError, AttributeError, RuntimeError, MtlrunError, TypeError, ValueError) as error:
            if name == "mtlrun":
                raise
            steps.pop(name, None)  # TorchJD needs an extra for it, or cannot train such a network
            print(f"<!-- {method}, {name}: {str(error).splitlines()[0][:100]} -->")
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--rounds", type=int, default=30, help=f"of {STEPS} steps of each contestant")
    parser.add_argument("--overrides", nargs="*", default=[], help="of the config, such as optimizer=sgd")
    parser.add_argument("--json", help="write the results to this file as well")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_solvers_on_one_thread()  # as a run does
    names = ["plain", "libmtl", "passes", "torchjd", "sequential", "gram", "representation"]
    results = Results(arguments.json)
    results.table("CPU time of a step, relative to mtlrun's", ["network", "method", "mtlrun, ms", *names])
    with tempfile.TemporaryDirectory() as folder:
        table = write_table(Path(folder) / "table.csv")
        for network in arguments.networks:
            overrides = [*NETWORKS[network], "trainer.epochs=100000", "runtime.device=cpu", *arguments.overrides]
            if network == "perceptron":
                overrides += table
            for method in arguments.methods:
                steps = contestants(overrides, method, Path(folder) / f"{network}-{method}")
                turns = take_turns(steps, torch.device("cpu"), rounds=arguments.rounds, warmup=0, calls=STEPS)
                ratios = [turns.ratio(name, "mtlrun") for name in names]
                results.row(network, method, 1000 * turns.median("mtlrun"), *ratios)


if __name__ == "__main__":
    main()
