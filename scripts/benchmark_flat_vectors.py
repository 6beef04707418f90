"""A training step of mtlrun beside the same step as LibMTL's trainer makes it, for EW, GradNorm, MGDA and PCGrad.

    python scripts/benchmark_flat_vectors.py --device cuda
    python scripts/benchmark_flat_vectors.py --networks resnet18 --divide 32 --width 0.25 --tasks 2 8

LibMTL's step is written here from its description, and has its costs, not its code: each loss and the accuracy of each
prediction are read from the device at once; a method of gradients makes K whole backward passes, after each of which
every parameter's gradient is copied to its place in a flat vector on the CPU; the K vectors go to the device as a
matrix, numbers for decisions are read one by one, and the result is cut up again into the parameters' gradients.
GradNorm compares all shared parameters there, and makes one more pass for the weighted losses.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from networks import (
    NETWORKS,
    Step,
    add_options,
    first_batch,
    mtlrun_step,
    parameters,
    prepare_run,
    shrunk,
    with_weighting,
)
from results import Results
from timing import take_turns
from torch import Tensor, nn

from mtlrun.setup.environment import keep_solvers_on_one_thread
from mtlrun.setup.model_size import count_parameters
from mtlrun.training.parts import Parts

#: LibMTL's name -> mtlrun's.
METHODS = {"EW": "equal", "GradNorm": "gradnorm", "MGDA": "mgda", "PCGrad": "pcgrad"}


def copy_to_vector(shared: Sequence[nn.Parameter]) -> Tensor:
    """Return the gradients of all parameters as one vector on the CPU, copied parameter by parameter."""
    vector, start = torch.zeros(count_parameters(shared)), 0
    for parameter in shared:
        if parameter.grad is not None:
            vector[start : start + parameter.numel()] = parameter.grad.flatten()
        start += parameter.numel()
    return vector


def task_gradients(losses: Sequence[Tensor], shared: Sequence[nn.Parameter], *, retain: bool) -> Tensor:
    """Return the matrix [K, P] of the task gradients on the losses' device, after K whole backward passes."""
    rows = []
    for number, loss in enumerate(losses):
        loss.backward(retain_graph=retain or number < len(losses) - 1)
        rows.append(copy_to_vector(shared))
        for parameter in shared:
            parameter.grad = None
    return torch.stack(rows).to(losses[0].device)


def put_back(direction: Tensor, shared: Sequence[nn.Parameter]) -> None:
    """Cut a vector up into the gradients of the parameters."""
    start = 0
    for parameter in shared:
        parameter.grad = direction[start : start + parameter.numel()].view_as(parameter).clone()
        start += parameter.numel()


def equal(losses: Sequence[Tensor], shared: Sequence[nn.Parameter]) -> None:
    """Weigh all losses by 1."""
    stacked = torch.stack(list(losses))
    torch.mul(stacked, torch.ones_like(stacked)).sum().backward()


def pcgrad(losses: Sequence[Tensor], shared: Sequence[nn.Parameter]) -> None:
    """Project each task gradient off those that it conflicts with, pair by pair; the host decides on each pair."""
    rows = task_gradients(losses, shared, retain=False)
    projected = rows.clone()
    for i in range(len(rows)):
        for j in random.sample(range(len(rows)), len(rows)):
            inner = projected[i].dot(rows[j])
            if i != j and inner.item() < 0:
                projected[i] -= inner * rows[j] / rows[j].norm().pow(2)
    put_back(projected.sum(dim=0), shared)


def mgda(losses: Sequence[Tensor], shared: Sequence[nn.Parameter]) -> None:
    """Take the combination of least norm, by Frank-Wolfe on inner products that are read one by one."""
    rows = task_gradients(losses, shared, retain=False)
    count = len(rows)
    inner = [[rows[i].dot(rows[j]).item() if i <= j else 0.0 for j in range(count)] for i in range(count)]
    gram = torch.tensor(inner)
    gram = gram + gram.triu(1).T
    weights = torch.full((count,), 1 / count)
    for _ in range(250):
        slopes = gram @ weights
        best = int(slopes.argmin())
        here, there, across = float(weights @ slopes), float(gram[best, best]), float(slopes[best])
        length = min(max((here - across) / max(here - 2 * across + there, 1e-12), 0.0), 1.0)
        if length * (here - across) < 1e-5 * max(here, 1e-12):
            break
        weights *= 1 - length
        weights[best] += length
    put_back((weights.to(rows.device).unsqueeze(1) * rows).sum(dim=0), shared)


class GradNorm:
    """Loss weights learned so that the norms of the task gradients follow the tasks' rates of training.

    Args:
        num_tasks: K.
        device: of the losses.
    """

    def __init__(self, num_tasks: int, device: torch.device) -> None:
        self.scales = torch.ones(num_tasks, device=device, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.scales], lr=1e-3)
        self.first: Tensor | None = None

    def __call__(self, losses: Sequence[Tensor], shared: Sequence[nn.Parameter]) -> None:
        stacked = torch.stack(list(losses))
        self.first = stacked.detach() if self.first is None else self.first
        rows = task_gradients(losses, shared, retain=True)
        scales = len(losses) * self.scales.softmax(dim=0)
        norms = (scales.unsqueeze(1) * rows).norm(dim=1)
        rates = stacked.detach() / self.first
        target = norms.mean().detach() * (rates / rates.mean()).pow(1.5)
        self.optimizer.zero_grad()
        (norms - target).abs().sum().backward()
        (scales.detach() * stacked).sum().backward()
        self.optimizer.step()


def flat_step(parts: Parts, backward: Callable[[Sequence[Tensor], Sequence[nn.Parameter]], None]) -> Step:
    """Return a step of a trainer that reads every loss and accuracy at once."""
    model, device = parts.model, parts.device
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    inputs, targets, *_ = first_batch(parts)
    shared, _ = parameters(parts)
    logged: list[float] = []

    def step() -> None:
        predictions = model(inputs.to(device, non_blocking=True)).predictions
        losses = []
        for name, task in parts.tasks.items():
            target = targets[name].to(device, non_blocking=True)
            losses.append(task.loss(predictions[name], target))
            logged.append(losses[-1].item())
            predicted = predictions[name].detach()
            right = predicted.argmax(dim=1) == target if not target.is_floating_point() else predicted.abs()
            logged.append(right.float().mean().item())
        optimizer.zero_grad(set_to_none=True)
        backward(losses, shared)
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--tasks", type=int, nargs="+", default=[3, 8])
    parser.add_argument("--rounds", type=int, default=5)
    add_options(parser)
    arguments = parser.parse_args()
    keep_solvers_on_one_thread()
    end, results, device = time.monotonic() + arguments.seconds, Results(arguments.json), torch.device(arguments.device)
    header = ["network", "K", "method", "mtlrun, ms", "the same with flat vectors / mtlrun", "middle half"]
    results.table("Whole steps, with flat vectors on the CPU relative to mtlrun", header)
    with tempfile.TemporaryDirectory() as folder:
        for num_tasks in arguments.tasks:
            for name in arguments.networks:
                network = NETWORKS[name]
                if arguments.divide > 1:
                    network = shrunk(network, arguments.divide, arguments.width)
                parts = prepare_run(network, num_tasks, "equal", device)
                ways = {"EW": equal, "GradNorm": GradNorm(num_tasks, device), "MGDA": mgda, "PCGrad": pcgrad}
                for method, weighting in METHODS.items():
                    if time.monotonic() > end:
                        results.note(f"The time budget ended before {name}, K = {num_tasks}, {method}")
                        continue
                    own = with_weighting(parts, network, num_tasks, weighting)
                    steps = {"mtlrun": mtlrun_step(own, Path(folder)), "flat": flat_step(own, ways[method])}
                    turns = take_turns(steps, device, rounds=arguments.rounds, deadline=end)
                    low, high = turns.middle_half("flat", "mtlrun")
                    results.raw[f"{name}, K = {num_tasks}, {method}"] = {"seconds": turns.seconds}
                    ratio, quartiles = turns.ratio("flat", "mtlrun"), f"{low:.2f} to {high:.2f}"
                    results.row(network.name, num_tasks, method, 1000 * turns.median("mtlrun"), ratio, quartiles)
                    for contestant, reason in turns.failures.items():
                        results.note(f"{name}, K = {num_tasks}, {method}, {contestant}: {reason}")


if __name__ == "__main__":
    main()
