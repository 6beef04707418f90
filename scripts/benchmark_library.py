"""What `mtlrun.weighting` costs in a loop of one's own, over the backward passes that it is made of.

    python scripts/benchmark_library.py

A convolutional trunk with three heads, batch 64. The bare loops: one `loss.backward()` of the sum of the losses for a
weighting of losses, and one `torch.autograd.grad` per task, without any combination, for methods that combine
gradients. All take turns, so that a machine that changes its speed slows all. Prints medians in milliseconds, and the
ratios.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import mtlrun

TASKS = ("seg", "depth", "normals")


def make_network(width: int) -> tuple[nn.Module, nn.ModuleDict]:
    trunk = nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1), nn.BatchNorm2d(4 * width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    return trunk, nn.ModuleDict({name: nn.Linear(4 * width, 10) for name in TASKS})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--side", type=int, default=32, help="of the images")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    trunk, heads = make_network(arguments.width)
    trunk, heads = trunk.to(device), heads.to(device)
    inputs = torch.randn(64, 3, arguments.side, arguments.side, device=device)
    targets = torch.randint(10, (len(TASKS), 64), device=device)
    parameters = list(trunk.parameters())

    def summed(losses: dict[str, Tensor], _: Tensor) -> None:
        torch.stack(list(losses.values())).sum().backward()

    def separately(losses: dict[str, Tensor], _: Tensor) -> None:
        for name, loss in losses.items():
            torch.autograd.grad(loss, [*parameters, *heads[name].parameters()], retain_graph=name != TASKS[-1])

    balances = {name: mtlrun.weighting(name) for name in ("equal", "uncertainty", "upgrad", "cagrad")}
    found, named, through = (mtlrun.weighting("pcgrad") for _ in range(3))
    ways: dict[str, Callable[[dict[str, Tensor], Tensor], object]] = {
        "loss.backward()": summed,
        **{name: lambda losses, _, name=name: balances[name].backward(losses) for name in ("equal", "uncertainty")},
        "a pass per task": separately,
        **{name: lambda losses, _, name=name: balances[name].backward(losses) for name in ("upgrad", "cagrad")},
        "pcgrad": lambda losses, _: found.backward(losses),
        "pcgrad, shared named": lambda losses, _: named.backward(losses, shared=parameters),
        "pcgrad, with representation": lambda losses, features: through.backward(losses, representation=features),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds + 3):
        for name, backward in ways.items():
            features = trunk(inputs)
            losses = {
                task: nn.functional.cross_entropy(heads[task](features), target)
                for task, target in zip(TASKS, targets, strict=True)
            }
            trunk.zero_grad()
            heads.zero_grad()
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            backward(losses, features)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values[3:]) for name, values in seconds.items()}
    reference = ""
    for name, median in medians.items():
        reference = name if name in ("loss.backward()", "a pass per task") else reference
        print(f"{name:28} {1000 * median:8.2f} ms  {median / medians[reference]:5.2f} x {reference}")


if __name__ == "__main__":
    main()
