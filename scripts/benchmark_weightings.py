"""What a gradient method costs: mtlrun's engine against TorchJD's, and against one plain backward pass.

    pip install torchjd
    python scripts/benchmark_weightings.py

One process, one network, one batch. For each number of tasks and method, the forward pass is made anew and what follows
it is timed: the task gradients and the update in `.grad`. The contestants take turns round by round, so that a machine
that changes its speed slows them alike, and the figures are medians of ratios of neighbors:

    plain     one backward pass of the summed losses                                       = 1
    passes    one backward pass of the heads and K of the trunk, nothing combined: the floor of every exact method
    mtlrun    `mtlrun.gradients.backward`
    TorchJD   `mtl_backward` and `jac_to_grad`: by default, where vmap batches the rows; with one row after the other
              (parallel_chunk_size=1); and by its Gram engine, where the aggregator needs the Gram matrix alone

With --vmap, MGDA with K backward passes of the trunk one after the other, and with one call that vmap batches
(`trainer.vmap_backward`). With --solvers, the time of each method's `weights` on a random K x K Gram matrix; with
--memory, by how much the peak memory of a process of its own grows in three steps.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from copy import deepcopy
from itertools import pairwise
from multiprocessing import get_context

import peers
import torch
from results import Results
from timing import Turns, take_turns
from torch import Tensor, nn

import mtlrun.weightings as ours
from mtlrun.gradients import backward
from mtlrun.setup.environment import keep_solvers_on_one_thread
from mtlrun.weightings.primary import HasPrimaryTask


def conv_block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def make_trunk(name: str) -> tuple[nn.Module, tuple[int, ...], int]:
    """Return a trunk, the shape of a batch for it, and the length of its features."""
    if name == "mlp":
        layers = [nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()]
        return nn.Sequential(*layers), (256, 64), 64
    widths, layers = [32, 32, 64, 64, 128, 128], [conv_block(3, 32, 1)]
    layers += [conv_block(a, b, 1 + (a != b)) for a, b in pairwise(widths)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), (64, 3, 32, 32), 128


class Problem:
    """A trunk with K linear heads and one batch."""

    def __init__(self, trunk: str, num_tasks: int, device: torch.device) -> None:
        torch.manual_seed(0)
        self.trunk, shape, width = make_trunk(trunk)
        self.heads = nn.ModuleList(nn.Linear(width, 10) for _ in range(num_tasks))
        self.trunk.to(device)
        self.heads.to(device)
        self.inputs = torch.randn(shape, device=device)
        self.targets = torch.randint(10, (num_tasks, shape[0]), device=device)
        self.shared = list(self.trunk.parameters())
        self.own = [list(head.parameters()) for head in self.heads]

    def forward(self) -> tuple[Tensor, list[Tensor]]:
        self.trunk.zero_grad()
        self.heads.zero_grad()
        features = self.trunk(self.inputs)
        pairs = zip(self.heads, self.targets, strict=True)
        return features, [nn.functional.cross_entropy(head(features), target) for head, target in pairs]


def plain(problem: Problem) -> Callable[[Tensor, list[Tensor]], None]:
    return lambda features, losses: torch.stack(losses).sum().backward()


def passes(problem: Problem) -> Callable[[Tensor, list[Tensor]], None]:
    def run(features: Tensor, losses: list[Tensor]) -> None:
        rows = [
            torch.autograd.grad(loss, [features, *own], retain_graph=True)[0]
            for loss, own in zip(losses, problem.own, strict=True)
        ]
        for number, row in enumerate(rows):
            torch.autograd.grad(features, problem.shared, row, retain_graph=number < len(rows) - 1)

    return run


def mtlrun_engine(
    problem: Problem, weighting: ours.Weighting, *, vmap: bool = False
) -> Callable[[Tensor, list[Tensor]], None]:
    weighting.setup(len(problem.own))
    last = problem.shared[-2:]

    def run(features: Tensor, losses: list[Tensor]) -> None:
        backward(
            weighting,
            losses,
            problem.shared,
            problem.own,
            representation=features,
            last_layer=last,
            vmap=vmap,
        )

    return run


def torchjd_ways(problem: Problem, method: str) -> dict[str, tuple[Problem, Callable[..., None]]]:
    """Return TorchJD's ways to the update of a method, those that it has, each with the problem that it works on."""
    if method not in peers.AGGREGATORS:
        return {}
    default, sequential, engine = peers.WAYS
    ways: dict[str, tuple[Problem, Callable[..., None]]] = {}
    with suppress(ImportError):  # TorchJD, or one of its extras
        ways[default] = problem, peers.by_rows(method, problem.shared, problem.own)
        ways[sequential] = problem, peers.by_rows(method, problem.shared, problem.own, chunk=1)
        hooked = deepcopy(problem)  # whose forward pass is slower
        with suppress(ValueError):
            ways[engine] = hooked, peers.by_gram(method, hooked.trunk, len(problem.own))
    return ways


# Method -> mtlrun's class, which TorchJD's is named like.
METHODS = peers.AGGREGATORS


def measure(contestants: dict[str, tuple[Problem, Callable[..., object]]], rounds: int) -> Turns:
    """Let the contestants take turns at what follows the forward pass, each on its problem."""
    device = next(iter(contestants.values()))[0].inputs.device
    functions = {name: run for name, (_, run) in contestants.items()}
    return take_turns(functions, device, rounds=rounds, before=lambda name: contestants[name][0].forward())


def benchmark_engines(arguments: argparse.Namespace, device: torch.device, results: Results) -> None:
    header = ["K", "method", "passes", "mtlrun", *peers.WAYS, "mtlrun / passes", "fastest TorchJD / mtlrun"]
    results.table(f"After the forward pass, trunk {arguments.trunk}; one plain backward pass is 1", header)
    for num_tasks in arguments.tasks:
        problem = Problem(arguments.trunk, num_tasks, device)
        for method in arguments.methods:
            contestants = {
                "plain": (problem, plain(problem)),
                "passes": (problem, passes(problem)),
                "mtlrun": (problem, mtlrun_engine(problem, getattr(ours, METHODS[method])())),
                **torchjd_ways(problem, method),
            }
            turns = measure(contestants, arguments.rounds)
            fastest = min(
                (way for way in peers.WAYS if turns.seconds.get(way)), key=turns.median, default=peers.WAYS[0]
            )
            results.row(
                num_tasks,
                method,
                *(turns.ratio(name, "plain") for name in ("passes", "mtlrun", *peers.WAYS)),
                turns.ratio("mtlrun", "passes"),
                turns.ratio(fastest, "mtlrun"),
            )
        cheap = mtlrun_engine(problem, ours.MGDA(grad_wrt="representation"))
        turns = measure({"plain": (problem, plain(problem)), "mtlrun": (problem, cheap)}, arguments.rounds)
        ratio, missing = turns.ratio("mtlrun", "plain"), float("nan")
        results.row(num_tasks, "mgda, grad_wrt=representation", missing, ratio, *[missing] * 5)


def benchmark_vmap(arguments: argparse.Namespace, device: torch.device, results: Results) -> None:
    results.table("K rows in one call that vmap batches, relative to one after the other", ["trunk", "K", "ratio"])
    for trunk in ("conv", "mlp"):
        for num_tasks in arguments.tasks:
            problem = Problem(trunk, num_tasks, device)
            engines = {name: mtlrun_engine(problem, ours.MGDA(), vmap=name == "vmap") for name in ("passes", "vmap")}
            turns = measure({name: (problem, engine) for name, engine in engines.items()}, arguments.rounds)
            results.row(trunk, num_tasks, turns.ratio("vmap", "passes"))


def peak_growth(trunk: str, num_tasks: int, contestant: str, method: str) -> float:
    """Return by how many MiB three steps raise the peak memory of this process; meant for a fresh one."""

    def engine(problem: Problem) -> Callable[[Tensor, list[Tensor]], None]:
        if contestant == "TorchJD":
            return peers.by_rows(method, problem.shared, problem.own)
        return mtlrun_engine(problem, getattr(ours, METHODS[method])()) if contestant == "mtlrun" else plain(problem)

    # What is imported or loaded at first use is no contestant's: a small step, and a forward pass, come first.
    small, problem = Problem("mlp", num_tasks, torch.device("cpu")), Problem(trunk, num_tasks, torch.device("cpu"))
    engine(small)(*small.forward())
    with torch.no_grad():
        problem.forward()
    run = engine(problem)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        run(*problem.forward())
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10


def benchmark_memory(arguments: argparse.Namespace, results: Results) -> None:
    contestants = ("plain", "mtlrun", "TorchJD")
    results.table("Growth of the peak memory, MiB", ["K", "method", *contestants])
    for num_tasks in arguments.tasks:
        for method in arguments.methods:
            cells = []
            for contestant in contestants:
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    growth = pool.submit(peak_growth, arguments.trunk, num_tasks, contestant, method).result()
                cells.append(f"{growth:.0f}")
            results.row(num_tasks, method, *cells)


def benchmark_solvers(results: Results) -> None:
    results.table("Median processor time of one call of `weights`, ms", ["method", "K = 3", "K = 40"])
    for name in sorted(ours.__all__):
        made = getattr(ours, name)
        if not (isinstance(made, type) and issubclass(made, ours.GradientWeighting)) or made is ours.GradientWeighting:
            continue
        cells = []
        for num_tasks in (3, 40):
            weighting = made(primary=0) if issubclass(made, HasPrimaryTask) else made()
            weighting.setup(num_tasks)
            times = []
            for seed in range(60):
                rows = torch.randn(num_tasks, 2000, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
                gram, losses = rows @ rows.T, torch.ones(num_tasks, dtype=torch.float64)
                with torch.no_grad():
                    start = time.process_time()
                    weighting.task_weights(gram, losses)
                    times.append(time.process_time() - start)
            cells.append(f"{1000 * statistics.median(times):.2f}")
        results.row(name, *cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[2, 3, 8, 40])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--trunk", default="conv", choices=["conv", "mlp"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--vmap", action="store_true")
    parser.add_argument("--solvers", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--json", help="write the results to this file as well")
    arguments = parser.parse_args()
    keep_solvers_on_one_thread()  # as a run does
    device, results = torch.device(arguments.device), Results(arguments.json)
    if arguments.solvers:
        benchmark_solvers(results)
    elif arguments.vmap:
        benchmark_vmap(arguments, device, results)
    elif arguments.memory:
        benchmark_memory(arguments, results)
    else:
        benchmark_engines(arguments, device, results)


if __name__ == "__main__":
    main()
