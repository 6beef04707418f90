"""Where a training step spends its time: the costliest kernels, launches, and how long the GPU has nothing to do.

    python scripts/profile_step.py --device cuda --trace traces

Whole steps of the trainer with ResNet-18 on 32 x 32 pixels, batch 256, by PyTorch's profiler; `equal` and a method of
the Gram matrix. On the CPU, which has no kernels, the costliest operators.
"""

import argparse
import math
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from networks import NETWORKS, mtlrun_step, prepare_run, shrunk
from results import Results
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from mtlrun.setup.environment import keep_solvers_on_one_thread

STEPS = 5
#: Calls of CUDA in which the host waits for the GPU.
_WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def busy(events: list[Any]) -> tuple[float, float]:
    """Return the microseconds in which at least one kernel or copy runs, and those from the first to the last."""
    spans = sorted((event.time_range.start, event.time_range.end) for event in events)
    if not spans:
        return math.nan, math.nan
    total, reached = 0.0, spans[0][0]
    for start, end in spans:
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total, reached - spans[0][0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weightings", nargs="+", default=["equal", "mgda"])
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--words", nargs="+", default=[], help="overrides, such as trainer.precision=bf16")
    parser.add_argument("--divide", type=int, default=1, help="the batch, for smaller machines")
    parser.add_argument("--width", type=float, default=1.0, help="factor on the channels, with --divide")
    parser.add_argument("--trace", help="folder for traces that chrome://tracing shows")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", help="write the results to this file as well")
    arguments = parser.parse_args()
    keep_solvers_on_one_thread()
    results, device = Results(arguments.json), torch.device(arguments.device)
    network = NETWORKS["resnet18"]
    if arguments.divide > 1:
        network = shrunk(network, arguments.divide, arguments.width)
    on_gpu = device.type == "cuda"
    for weighting in arguments.weightings:
        parts = prepare_run(network, arguments.tasks, weighting, device, arguments.words)
        with tempfile.TemporaryDirectory() as folder:
            step = mtlrun_step(parts, Path(folder))
            for _ in range(5):
                step()
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
            if on_gpu:
                torch.cuda.synchronize(device)
            with profile(activities=activities) as profiler:
                for _ in range(STEPS):
                    step()
                if on_gpu:
                    torch.cuda.synchronize(device)
        report(results, list(profiler.events()), weighting, on_gpu)
        if arguments.trace:
            Path(arguments.trace).mkdir(parents=True, exist_ok=True)
            profiler.export_chrome_trace(str(Path(arguments.trace) / f"{weighting}.json.gz"))


def report(results: Results, events: list[Any], weighting: str, on_gpu: bool) -> None:
    """Add the tables of one profile."""
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
    # Spans that programs name, such as an optimizer's step, stand beside the kernels that they are made of.
    named = ("Optimizer.", "ProfilerStep")
    on_device = [
        event
        for event in events
        if event.device_type == kind
        and not (on_gpu and (getattr(event, "is_user_annotation", False) or event.name.startswith(named)))
    ]
    if on_gpu:
        working, whole = busy(on_device)
        kernels = [event for event in on_device if not event.name.startswith(("Memcpy", "Memset"))]
        waits = Counter(event.name for event in events if event.name in _WAITS)
        back = [event for event in on_device if event.name.startswith("Memcpy DtoH")]
        results.table(f"A step of {weighting}, K and network as above", ["what", "per step"])
        results.row("kernels", len(kernels) / STEPS)
        results.row("copies to the host", len(back) / STEPS)
        for name, count in waits.items():
            results.row(name, count / STEPS)
        results.row("milliseconds from first to last kernel", whole / STEPS / 1000)
        results.row("of these the GPU is idle", 1 - working / whole if on_device else math.nan)
    total: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for event in on_device:
        total[event.name] += event.time_range.elapsed_us() if on_gpu else event.self_cpu_time_total
        calls[event.name] += 1
    everything = sum(total.values()) or 1
    header = ["kernel" if on_gpu else "operator", "of the time", "ms per step", "calls per step"]
    results.table(f"{weighting}: where the time goes", header)
    for name, microseconds in total.most_common(12):
        cells = (microseconds / everything, microseconds / STEPS / 1000, calls[name] / STEPS)
        results.row(name[:90].replace("|", "/"), *cells)


if __name__ == "__main__":
    main()
