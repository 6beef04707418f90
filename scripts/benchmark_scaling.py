"""How the cost of a training step grows with the number of tasks, and with the number of parameters, as a picture.

    pip install 'mtlrun[report]' torchjd
    python scripts/benchmark_scaling.py --device cuda --picture docs/cost.png
    python scripts/benchmark_scaling.py --divide 16 --width 0.25 --picture docs/cost.png

`hard` with ResNet-18 on 32 x 32 pixels; whole steps, relative to a plain loop with the sum of the losses, by the
contestants of benchmark_networks.py. K grows at the width of --width, the width at K = 4.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import peers
import torch
from networks import (
    NETWORKS,
    Network,
    Step,
    loop_step,
    mtlrun_step,
    passes,
    plain,
    prepare_run,
    torchjd_steps,
    with_weighting,
)
from results import Results
from timing import Turns, take_turns

from mtlrun.setup.environment import keep_solvers_on_one_thread
from mtlrun.setup.model_size import count_parameters

_LINES = {
    "K passes": "K plain passes",
    "mgda": "mgda",
    "graddrop": "graddrop",
    "representation": "mgda, grad_wrt=representation",
    "equal": "equal",
    peers.WAYS[0]: "TorchJD, MGDA",
    peers.WAYS[1]: "TorchJD, MGDA, sequential",
}
#: {contestant: [(x, times the loop)]}.
Lines = dict[str, list[tuple[float, float]]]


def measure(network: Network, num_tasks: int, device: torch.device, rounds: int, deadline: float) -> tuple[Turns, int]:
    """Return the turns of all contestants, and the number of parameters."""
    parts = prepare_run(network, num_tasks, "equal", device)
    cheap = prepare_run(network, num_tasks, "mgda", device, ["weighting.grad_wrt=representation"]).weighting
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        steps: dict[str, Step] = {"loop": loop_step(parts, plain), "K passes": loop_step(parts, passes(parts))}
        for weighting in ("equal", "mgda", "graddrop"):
            steps[weighting] = mtlrun_step(with_weighting(parts, network, num_tasks, weighting), folder)
        steps["representation"] = mtlrun_step(replace(parts, weighting=cheap), folder)
        steps |= torchjd_steps(parts, "mgda", peers.WAYS[:2])
        turns = take_turns(steps, device, rounds=rounds, warmup=1, deadline=deadline)
    return turns, count_parameters(parts.model.parameters())


def draw(path: str, lines: Mapping[str, Lines], title: str) -> None:
    """Draw one chart for each of the axes, both logarithmic."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(lines), figsize=(11, 3.6), layout="constrained")
    for axis, (label, found) in zip(axes, lines.items(), strict=True):
        for name, points in found.items():
            if points:
                axis.plot(*zip(*sorted(points), strict=True), marker="o", markersize=3, label=_LINES[name])
        axis.set(xlabel=label, ylabel="time of a step / plain loop", xscale="log", yscale="log")
        axis.grid(which="major", alpha=0.3)
        ticks = sorted({x for points in found.values() for x, _ in points})
        axis.set_xticks(ticks, [f"{x:g}" if x < 1000 else f"{x / 1e6:.2g} M" for x in ticks])
        axis.minorticks_off()
        heights = [2**n for n in range(-1, 8) if any(2**n <= 1.2 * y for points in found.values() for _, y in points)]
        axis.set_yticks(heights, [f"{height:g}" for height in heights])
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=7, loc="outside right center")
    figure.suptitle(title, fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[2, 4, 8, 16, 32])
    parser.add_argument("--widths", type=float, nargs="+", default=[0.25, 0.5, 1.0, 2.0], help="times --width")
    parser.add_argument("--width", type=float, default=1.0, help="factor on the channels")
    parser.add_argument("--divide", type=int, default=1, help="the batch, for smaller machines")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=math.inf, help="time budget")
    parser.add_argument("--picture", help="write the picture to this file: .png or .svg")
    parser.add_argument("--json", help="write the results to this file as well")
    arguments = parser.parse_args()
    keep_solvers_on_one_thread()
    end, results, device = time.monotonic() + arguments.seconds, Results(arguments.json), torch.device(arguments.device)
    base = replace(NETWORKS["resnet18"], batch_size=max(2, NETWORKS["resnet18"].batch_size // arguments.divide))
    results.table("Whole steps, relative to a plain loop", ["K", "parameters", *_LINES.values()])
    of_tasks: Lines = {name: [] for name in _LINES}
    of_width: Lines = {name: [] for name in _LINES}
    points = [(4, factor) for factor in arguments.widths] + [(count, 1.0) for count in arguments.tasks if count != 4]
    for num_tasks, factor in points:
        if time.monotonic() > end:
            results.note(f"The time budget ended before K = {num_tasks}, width {factor * arguments.width:g}")
            continue
        words = (*base.backbone, f"backbone.width={factor * arguments.width:g}")
        network = replace(base, backbone=words)
        turns, count = measure(network, num_tasks, device, arguments.rounds, end)
        found = {name: turns.ratio(name, "loop") for name in _LINES}
        results.raw[f"K = {num_tasks}, {count} parameters"] = {"seconds": turns.seconds, "failures": turns.failures}
        results.row(num_tasks, count, *found.values())
        for name, ratio in found.items():
            if math.isnan(ratio):
                continue
            if num_tasks == 4:
                of_width[name].append((count, ratio))
            if factor == 1.0:
                of_tasks[name].append((num_tasks, ratio))
        if arguments.picture and any(of_tasks.values()):
            charts = {"number of tasks K": of_tasks, "parameters, K = 4": of_width}
            draw(arguments.picture, charts, f"ResNet-18, batch {base.batch_size}; {results.machine}")


if __name__ == "__main__":
    main()
