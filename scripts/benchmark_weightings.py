"""What a gradient method costs: mtlrun's engine against TorchJD's default, and against one plain backward pass.

    pip install torchjd
    python scripts/benchmark_weightings.py

One process, one network, one batch. For each number of tasks and method, the forward pass is made anew and what follows
it is timed: the task gradients and the update in `.grad`. The contestants take turns round by round, so that a machine
that changes its speed slows them alike, and the figures are medians of ratios of neighbors:

    plain     one backward pass of the summed losses                                       = 1
    passes    one backward pass of the heads and K of the trunk, nothing combined: the floor of every exact method
    mtlrun    `mtlrun.gradients.backward`
    torchjd   `mtl_backward` and `jac_to_grad`, with their defaults

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
from itertools import pairwise
from multiprocessing import get_context

import torch
from torch import Tensor, nn

import mtlrun.weightings as ours
from mtlrun.gradients import backward
from mtlrun.setup.environment import keep_solvers_on_one_thread


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


def torchjd_engine(problem: Problem, aggregator: Callable[[Tensor], Tensor]) -> Callable[[Tensor, list[Tensor]], None]:
    from torchjd.autojac import jac_to_grad, mtl_backward

    def run(features: Tensor, losses: list[Tensor]) -> None:
        mtl_backward(losses, features, tasks_params=problem.own, shared_params=problem.shared)
        jac_to_grad(problem.shared, aggregator)

    return run


# Method -> mtlrun's class, and the name of TorchJD's aggregator.
METHODS = {
    "mgda": ("MGDA", "MGDA"),
    "pcgrad": ("PCGrad", "PCGrad"),
    "graddrop": ("GradDrop", "GradDrop"),
    "imtl_g": ("IMTLG", "IMTLG"),
    "aligned_mtl": ("AlignedMTL", "AlignedMTL"),
    "config": ("ConFIG", "ConFIG"),
    "cagrad": ("CAGrad", "CAGrad"),
    "nash_mtl": ("NashMTL", "NashMTL"),
    "fairgrad": ("FairGrad", "FairGrad"),
    "dualproj": ("DualProj", "DualProj"),
    "upgrad": ("UPGrad", "UPGrad"),
    "gradvac": ("GradVac", "GradVac"),
}


def aggregator(name: str, num_tasks: int) -> Callable[[Tensor], Tensor]:
    import torchjd.aggregation

    made = getattr(torchjd.aggregation, name)
    if name == "CAGrad":
        return made(c=0.5)
    if name == "NashMTL":
        return made(n_tasks=num_tasks)
    return made()


def measure(problem: Problem, contestants: dict[str, Callable[[Tensor, list[Tensor]], None]], rounds: int) -> dict:
    """Return the median time of each contestant, relative to the first one in the same round."""

    def wait() -> None:
        if problem.inputs.is_cuda:
            torch.cuda.synchronize()

    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 2):
        for name, run in contestants.items():
            features, losses = problem.forward()
            wait()
            start = time.perf_counter()
            run(features, losses)
            wait()
            if number >= 2:  # the first ones warm up
                times[name].append(time.perf_counter() - start)
    first = next(iter(times.values()))
    return {
        name: statistics.median(own / base for own, base in zip(values, first, strict=True))
        for name, values in times.items()
    }


def benchmark_engines(arguments: argparse.Namespace, device: torch.device) -> None:
    print(f"device {device}, {torch.get_num_threads()} threads, torch {torch.__version__}, trunk {arguments.trunk}\n")
    print("| K | method | plain | passes | mtlrun | torchjd | mtlrun/passes | torchjd/mtlrun |")
    print("|---|---|---|---|---|---|---|---|")
    for num_tasks in arguments.tasks:
        problem = Problem(arguments.trunk, num_tasks, device)
        for method in arguments.methods:
            mine, theirs = METHODS[method]
            if not hasattr(ours, mine):
                continue
            contestants = {
                "plain": plain(problem),
                "passes": passes(problem),
                "mtlrun": mtlrun_engine(problem, getattr(ours, mine)()),
            }
            with suppress(ImportError, AttributeError, TypeError):  # needs one of TorchJD's extras, or is not there
                contestants["torchjd"] = torchjd_engine(problem, aggregator(theirs, num_tasks))
            found = measure(problem, contestants, arguments.rounds)
            row = [f"{found[name]:.2f}" if name in found else "-" for name in ("plain", "passes", "mtlrun", "torchjd")]
            row.append(f"{found['mtlrun'] / found['passes']:.3f}")
            row.append(f"{found['torchjd'] / found['mtlrun']:.2f}" if "torchjd" in found else "-")
            print(f"| {num_tasks} | {method} | " + " | ".join(row) + " |", flush=True)
        cheap = ours.MGDA(grad_wrt="representation")
        found = measure(problem, {"plain": plain(problem), "mtlrun": mtlrun_engine(problem, cheap)}, arguments.rounds)
        print(f"| {num_tasks} | mgda, grad_wrt=representation | 1.00 | - | {found['mtlrun']:.2f} | - | - | - |")


def benchmark_vmap(arguments: argparse.Namespace, device: torch.device) -> None:
    print(f"device {device}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| trunk | K | batched / one after the other |\n|---|---|---|")
    for trunk in ("conv", "mlp"):
        for num_tasks in arguments.tasks:
            problem = Problem(trunk, num_tasks, device)

            contestants = {
                name: mtlrun_engine(problem, ours.MGDA(), vmap=name == "vmap") for name in ("passes", "vmap")
            }
            found = measure(problem, contestants, arguments.rounds)
            print(f"| {trunk} | {num_tasks} | {found['vmap']:.2f} |", flush=True)


def peak_growth(trunk: str, num_tasks: int, contestant: str, method: str) -> float:
    """Return by how many MiB three steps raise the peak memory of this process; meant for a fresh one."""
    mine, theirs = METHODS[method]

    def engine(problem: Problem) -> Callable[[Tensor, list[Tensor]], None]:
        if contestant == "torchjd":
            return torchjd_engine(problem, aggregator(theirs, len(problem.own)))
        return mtlrun_engine(problem, getattr(ours, mine)()) if contestant == "mtlrun" else plain(problem)

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


def benchmark_memory(arguments: argparse.Namespace) -> None:
    contestants = ("plain", "mtlrun", "torchjd")
    print(f"| K | method | {' | '.join(contestants)} |\n|---|---|---|---|---|")
    for num_tasks in arguments.tasks:
        for method in arguments.methods:
            cells = []
            for contestant in contestants:
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    growth = pool.submit(peak_growth, arguments.trunk, num_tasks, contestant, method).result()
                cells.append(f"{growth:.0f}")
            print(f"| {num_tasks} | {method} | " + " | ".join(cells) + " |", flush=True)


def benchmark_solvers(arguments: argparse.Namespace) -> None:
    print("| method | K = 3, ms | K = 40, ms |")
    print("|---|---|---|")
    for name in sorted(ours.__all__):
        made = getattr(ours, name)
        if not (isinstance(made, type) and issubclass(made, ours.GradientWeighting)) or made is ours.GradientWeighting:
            continue
        cells = []
        for num_tasks in (3, 40):
            weighting = made()
            weighting.setup(num_tasks)
            times = []
            for seed in range(60):
                rows = torch.randn(num_tasks, 2000, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
                gram, losses = rows @ rows.T, torch.ones(num_tasks, dtype=torch.float64)
                with torch.no_grad():
                    start = time.perf_counter()
                    weighting.task_weights(gram, losses)
                    times.append(time.perf_counter() - start)
            cells.append(f"{1000 * statistics.median(times):.2f}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


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
    arguments = parser.parse_args()
    keep_solvers_on_one_thread()  # as a run does
    if arguments.solvers:
        benchmark_solvers(arguments)
    elif arguments.vmap:
        benchmark_vmap(arguments, torch.device(arguments.device))
    elif arguments.memory:
        benchmark_memory(arguments)
    else:
        benchmark_engines(arguments, torch.device(arguments.device))


if __name__ == "__main__":
    main()
