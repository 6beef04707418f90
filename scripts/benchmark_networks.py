"""What a whole training step costs under every weighting, on networks of the usual sizes, beside other ways to make it.

    pip install torchjd
    python scripts/benchmark_networks.py --device cuda
    python scripts/benchmark_networks.py --divide 32 --width 0.25 --weightings equal mgda pcgrad upgrad --tasks 2 3

`hard` with ResNet-18 on 32 x 32 pixels, batch 256, and with ResNet-50 and a map for each task on 288 x 384 pixels,
batch 8; images and labels are noise. The contestants make whole steps on the same batch, in turns, in one process:

    loop      forward, sum of the losses, backward, and one optimizer over all parameters
    passes    the same with one backward pass of the heads and K of the trunk, and nothing combined
    mtlrun    a step of the trainer with its guard and its curves
    TorchJD   `mtl_backward` and `jac_to_grad` in the loop, where it has the method: by default, where vmap batches the
              rows; and, for the first weightings of --ways-of, one row after the other, and by its Gram engine

Times on a GPU are those that pass until it has done its work, on the CPU processor time. Peak memory is by how much a
step raises the memory in use on a GPU. A time budget (--seconds) ends the measurements with what was asked for first.
"""

import argparse
import math
import tempfile
import time
from pathlib import Path

import peers
import torch
from networks import (
    NETWORKS,
    Network,
    Step,
    add_options,
    loop_step,
    mtlrun_step,
    passes,
    plain,
    prepare_run,
    shrunk,
    torchjd_steps,
    with_weighting,
)
from results import Results
from timing import Turns, take_turns

from mtlrun.config.options import entries
from mtlrun.setup.environment import keep_solvers_on_one_thread
from mtlrun.training.parts import Parts
from mtlrun.weightings.base import TaskGradientWeighting

CORE = ["equal", "mgda", "pcgrad", "upgrad", "graddrop"]
HEADER = [
    "network", "K", "weighting", "mtlrun, ms", "mtlrun / loop", "mtlrun / passes", "TorchJD / mtlrun",
    "sequential / mtlrun", "Gram engine / mtlrun", "MiB: mtlrun", "passes", "TorchJD",
]  # fmt: skip


def jobs(arguments: argparse.Namespace) -> list[tuple[str, int, str]]:
    """Return (network, K, weighting), in the order of what matters most: few methods, then many, then many tasks."""
    every = arguments.weightings or [entry.name for entry in entries("weighting")]
    core = [name for name in CORE if name in every]
    few, many = ([count for count in arguments.tasks if (count > 8) == large] for large in (False, True))
    others = [name for name in every if name not in core]
    blocks = [(few, core), (few[:1], others), (many, core), (few[1:] + many, others)]
    return [
        (network, num_tasks, name)
        for counts, names in blocks
        for num_tasks in counts
        for network in arguments.networks
        for name in names
    ]


class Bench:
    """The networks, each made once and kept until another one or another K is asked for."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.arguments, self.folder, self.device = arguments, folder, torch.device(arguments.device)
        self._made: tuple[Network, int, Parts] | None = None

    def parts(self, name: str, num_tasks: int, weighting: str) -> Parts:
        """Return the components of a run."""
        network = NETWORKS[name]
        if self.arguments.divide > 1:
            network = shrunk(network, self.arguments.divide, self.arguments.width)
        if self._made is None or self._made[:2] != (network, num_tasks):
            self._made = None  # frees its memory
            self._made = (network, num_tasks, prepare_run(network, num_tasks, "equal", self.device))
        return with_weighting(self._made[2], network, num_tasks, weighting)

    def measure(self, name: str, num_tasks: int, weighting: str, deadline: float | None) -> tuple[Turns, Parts]:
        """Let the contestants for one weighting take turns."""
        parts = self.parts(name, num_tasks, weighting)
        steps: dict[str, Step] = {"loop": loop_step(parts, plain), "mtlrun": mtlrun_step(parts, self.folder)}
        if isinstance(parts.weighting, TaskGradientWeighting):
            steps["passes"] = loop_step(parts, passes(parts))
            ways = peers.WAYS if weighting in self.arguments.ways_of else peers.WAYS[:1]
            steps |= torchjd_steps(parts, weighting, ways)
        # A method that never waits for the GPU gets several steps in a row, so that the host runs ahead as in training.
        calls = 1 if "passes" in steps or self.device.type == "cpu" else 5
        turns = take_turns(
            steps, self.device, rounds=self.arguments.rounds, warmup=self.arguments.warmup, calls=calls,
            deadline=deadline,
        )  # fmt: skip
        return turns, parts


def is_exact(parts: Parts) -> bool:
    """Return True if the method compares the gradients of all shared parameters, which takes K passes."""
    return isinstance(parts.weighting, TaskGradientWeighting) and parts.weighting.grad_wrt == "shared"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--tasks", type=int, nargs="+", default=[3, 2, 8, 40])
    parser.add_argument("--weightings", nargs="+", default=[], help="the default is all of them")
    parser.add_argument("--ways-of", nargs="*", default=["mgda"], help="TorchJD in all its ways")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1)
    add_options(parser)
    arguments = parser.parse_args()
    keep_solvers_on_one_thread()
    end, results = time.monotonic() + arguments.seconds, Results(arguments.json)
    exact: dict[str, tuple[float, float]] = {}  # ratios to passes, and of TorchJD's default
    to_loop: list[float] = []
    skipped: list[str] = []
    results.table("Whole training steps", HEADER)
    try:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(arguments, Path(folder))
            for name, num_tasks, weighting in jobs(arguments):
                label = f"{name}, K = {num_tasks}, {weighting}"
                if time.monotonic() > end:
                    skipped.append(label)
                    continue
                try:
                    turns, parts = bench.measure(name, num_tasks, weighting, end)
                except Exception as error:  # refused, or no room; the other rows are to be found all the same
                    results.note(f"{label}: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}")
                    continue
                add_row(results, turns, label, (NETWORKS[name].name, num_tasks, weighting))
                if is_exact(parts):
                    exact[label] = (turns.ratio("mtlrun", "passes"), turns.ratio(peers.WAYS[0], "mtlrun"))
                if weighting == "equal":
                    to_loop.append(turns.ratio("mtlrun", "loop"))
    finally:  # also where it is cut off
        if skipped:
            results.note(f"The time budget ended before these {len(skipped)}: {'; '.join(skipped)}")
        report_aims(results, exact, to_loop)


def add_row(results: Results, turns: Turns, label: str, cells: tuple[object, ...]) -> None:
    """Add what one contest found."""
    for contestant, reason in turns.failures.items():
        results.note(f"{label}, {contestant}: {reason}")
    found = [turns.ratio("mtlrun", "loop"), turns.ratio("mtlrun", "passes")]
    found += [turns.ratio(way, "mtlrun") for way in peers.WAYS]
    peaks = [turns.peak_bytes.get(one, math.nan) / 2**20 for one in ("mtlrun", "passes", peers.WAYS[0])]
    results.raw[label] = {"seconds": turns.seconds, "peak_bytes": turns.peak_bytes}
    results.row(*cells, 1000 * turns.median("mtlrun"), *found, *peaks)


def report_aims(results: Results, exact: dict[str, tuple[float, float]], to_loop: list[float]) -> None:
    """Add what was to be reached on a GPU, and by what it was: the worst of all rows."""
    passes_found = {label: ratio for label, (ratio, _) in exact.items() if not math.isnan(ratio)}
    peers_found = {label: ratio for label, (_, ratio) in exact.items() if not math.isnan(ratio)}
    worst = max(passes_found.values(), default=math.nan)
    results.aim("Every exact method is no slower than K plain passes (largest ratio)", worst, worst <= 1.0)
    above = [f"{label} {ratio:.2f}" for label, ratio in passes_found.items() if ratio > 1.0]
    if above:
        results.note(f"Above 1 of K plain passes, {len(above)} of {len(passes_found)}: {'; '.join(above)}")
    worst = min(peers_found.values(), default=math.nan)
    results.aim("Every exact method is 1.3 times as fast as TorchJD's default (smallest ratio)", worst, worst >= 1.3)
    worst = max((ratio for ratio in to_loop if not math.isnan(ratio)), default=math.nan)
    results.aim("`equal` takes at most 1.02 of a hand-written loop (largest ratio)", worst, worst <= 1.02)


if __name__ == "__main__":
    main()
