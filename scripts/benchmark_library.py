"""What `mtlrun.weighting` costs in a loop of one's own, over the backward passes that it is made of.

    python scripts/benchmark_library.py

A convolutional trunk with three heads, batch 64. The bare loops: one `loss.backward()` of the sum of the losses for a
weighting of losses, and one `torch.autograd.grad` per task, without any combination, for methods that combine
gradients. All take turns, so that a machine that changes its speed slows all. Prints medians in milliseconds, and the
ratios.
"""

import argparse
from collections.abc import Callable

import torch
from results import Results
from timing import take_turns
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
    parser.add_argument("--json", help="write the results to this file as well")
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

    def forward(_: str) -> tuple[dict[str, Tensor], Tensor]:
        trunk.zero_grad()
        heads.zero_grad()
        features = trunk(inputs)
        pairs = zip(TASKS, targets, strict=True)
        return {task: nn.functional.cross_entropy(heads[task](features), target) for task, target in pairs}, features

    turns = take_turns(ways, device, rounds=arguments.rounds, before=forward)
    results = Results(arguments.json)
    results.table("After the forward pass", ["", "ms", "ratio", "to"])
    reference = ""
    for name in ways:
        reference = name if name in ("loss.backward()", "a pass per task") else reference
        results.row(name, 1000 * turns.median(name), turns.ratio(name, reference), reference)


if __name__ == "__main__":
    main()
