"""What the keys of `trainer` that are about speed and memory do to a training step.

    python scripts/benchmark_keys.py --device cuda
    python scripts/benchmark_keys.py --networks resnet18 --divide 32 --width 0.25 --columns bf16 checkpoint_activations

Each row makes the same run twice, with the words of its column and without, as the command line would, and lets the two
take turns: whole steps of the trainer on one batch of noise. `speed` is how many times faster the step is; memory is by
how much a step raises what is in use on a GPU. What a run refuses is named below the table.
"""

import argparse
import math
import tempfile
import time
from pathlib import Path

import torch
from networks import NETWORKS, add_options, mtlrun_step, prepare_run, shrunk
from results import Results
from timing import take_turns

from mtlrun.setup.environment import keep_solvers_on_one_thread

COLUMNS = {
    "bf16": ["trainer.precision=bf16"],
    "bf16, compile": ["trainer.precision=bf16", "trainer.compile=true"],
    "bf16, compile, channels_last": ["trainer.precision=bf16", "trainer.compile=true", "trainer.channels_last=true"],
    "tf32": ["trainer.precision=tf32"],
    "fp16": ["trainer.precision=fp16"],
    "bf16, channels_last": ["trainer.precision=bf16", "trainer.channels_last=true"],
    "channels_last": ["trainer.channels_last=true"],
    "compile": ["trainer.compile=true"],
    "fused optimizer": ["+optimizer.fused=true"],
    "cuda_graph": ["trainer.cuda_graph=true"],
    "two_pass": ["trainer.two_pass=true"],
    "checkpoint_activations": ["trainer.checkpoint_activations=true"],
    "stream_rows": ["trainer.stream_rows=true"],
    "micro_batches=2": ["trainer.micro_batches=2"],
}
#: The column that an aim is about.
COMPILED = "bf16, compile"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["resnet50", "resnet18"], choices=list(NETWORKS))
    parser.add_argument("--weightings", nargs="+", default=["equal", "mgda"])
    parser.add_argument("--columns", nargs="+", default=list(COLUMNS), choices=list(COLUMNS))
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    add_options(parser)
    arguments = parser.parse_args()
    keep_solvers_on_one_thread()
    compiled: dict[str, float] = {}
    end, results = time.monotonic() + arguments.seconds, Results(arguments.json)
    header = ["network", "weighting", "words", "ms", "speed", "middle half", "to first step, s", "MiB", "MiB without"]
    results.table(f"Keys of trainer, K = {arguments.tasks}", header)
    skipped: list[str] = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            for name, weighting, column in jobs(arguments):
                label = f"{name}, {weighting}, {column}"
                if time.monotonic() > end:
                    skipped.append(label)
                    continue
                try:
                    speed = add_row(results, arguments, Path(folder), (name, weighting, column), end)
                except Exception as error:  # refused, or the compiler fails
                    results.note(f"{label}: {str(error).splitlines()[0][:150]}")
                    continue
                if name == "resnet50" and column == COMPILED:
                    compiled[weighting] = speed
    finally:  # also where it is cut off
        if skipped:
            results.note(f"The time budget ended before these {len(skipped)}: {'; '.join(skipped)}")
        text = "Compiled bf16 has at least 2 times the throughput of float32, ResNet-50 (smallest ratio)"
        worst = min(compiled.values()) if set(compiled) == set(arguments.weightings) else math.nan
        results.aim(text, worst, worst >= 2)


def jobs(arguments: argparse.Namespace) -> list[tuple[str, str, str]]:
    """Return (network, weighting, column), first what the aim is about, last what takes long to compile."""
    made = [
        (network, weighting, column)
        for network in arguments.networks
        for column in arguments.columns
        for weighting in arguments.weightings
    ]
    return sorted(made, key=lambda job: 0 if job[2] == COMPILED else 2 if "compile" in job[2] else 1)


def add_row(
    results: Results, arguments: argparse.Namespace, folder: Path, job: tuple[str, str, str], end: float
) -> float:
    """Let a run with the words of a column and one without take turns; return how many times faster the first is."""
    name, weighting, column = job
    device, network = torch.device(arguments.device), NETWORKS[name]
    if arguments.divide > 1:
        network = shrunk(network, arguments.divide, arguments.width)
    without = mtlrun_step(prepare_run(network, arguments.tasks, weighting, device), folder)
    begin = time.monotonic()
    changed = mtlrun_step(prepare_run(network, arguments.tasks, weighting, device, COLUMNS[column]), folder)
    changed()
    to_first_step = time.monotonic() - begin  # with the compilation
    calls = 3 if device.type == "cuda" else 1
    steps = {"without": without, "with": changed}
    turns = take_turns(steps, device, rounds=arguments.rounds, calls=calls, deadline=end)
    for contestant, reason in turns.failures.items():
        results.note(f"{name}, {weighting}, {column}, {contestant}: {reason}")
    low, high = turns.middle_half("without", "with")
    speed = turns.ratio("without", "with")
    peaks = [turns.peak_bytes.get(one, math.nan) / 2**20 for one in ("with", "without")]
    results.raw[", ".join(job)] = {
        "seconds": turns.seconds,
        "peak_bytes": turns.peak_bytes,
        "to_first_step": to_first_step,
    }
    quartiles = f"{low:.2f} to {high:.2f}"
    results.row(network.name, weighting, column, 1000 * turns.median("with"), speed, quartiles, to_first_step, *peaks)
    return speed


if __name__ == "__main__":
    main()
