"""Two processes with half of the batch each make the update that one process makes of the whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small import TASKS, Network, batch, losses_of, part

import mtlrun

METHODS = ("uncertainty", "cagrad", "graddrop", "db_mtl")
STEPS = 3
#: In the second step, the second process has no label of this task.
ABSENT = "depth"


def train(name, rank=None, **options):
    """Return the parameters after some steps, on the whole batch or on one half."""
    network, balance = Network(), mtlrun.weighting(name, tasks=TASKS, **options)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    for number in range(STEPS):
        data = batch(number)
        halves = [losses_of(network, part(data, half, 2))[1] for half in range(2)]
        if rank is None:
            losses = {task: (halves[0][task] + halves[1][task]) / 2 for task in TASKS}
            if number == 1:
                losses[ABSENT] = halves[0][ABSENT]
        else:
            losses = {task: loss for task, loss in halves[rank].items() if (number, rank, task) != (1, 1, ABSENT)}
        optimizer.zero_grad()
        balance.backward(losses, shared=network.trunk.parameters())
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def main(rank):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{Path('meeting').resolve()}", rank=rank, world_size=2
    )
    group = torch.distributed.group.WORLD
    torch.save({name: train(name, rank, process_group=group) for name in METHODS}, f"{rank}.pt")
    try:  # a loss that is not finite ends both
        network = Network()
        _, losses = losses_of(network, batch(0))
        bad = losses["seg"] * (float("nan") if rank else 1)
        mtlrun.weighting("cagrad", process_group=group).backward(losses | {"seg": bad})
    except mtlrun.errors.DivergedError as error:
        Path(f"{rank}.txt").write_text(str(error))
    torch.distributed.destroy_process_group()
    os._exit(0)  # PyTorch's threads of the group may abort a process that ends while they do


@pytest.mark.slow
def test_processes_make_the_update_of_the_whole_batch():
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    started = [subprocess.Popen([sys.executable, __file__, str(rank)], env=environment) for rank in range(2)]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    first, second = (torch.load(f"{rank}.pt", weights_only=True) for rank in range(2))
    for name in METHODS:
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(
            first[name], train(name), rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert {Path(f"{rank}.txt").read_text() for rank in range(2)} == {
        "step 1: the loss of task seg is not finite (NaN or infinite); no update was made"
    }


if __name__ == "__main__":
    import mtlrun.errors

    main(int(sys.argv[1]))
