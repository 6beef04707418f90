"""The pretended device itself: it refuses what CUDA refuses, and notes what CUDA would wait for."""

import inspect

import pytest
import torch
from pretended import DEVICE, Accelerator, OnDevice
from torch import nn

from mtlrun.weightings.transfer import waited_for

WAITING = {
    "item": ("read", lambda x: x.sum().item()),
    "float": ("read", lambda x: float(x[0])),
    "if": ("read", lambda x: bool((x > 0).any())),
    "tolist": ("read", lambda x: x.tolist()),
    "cpu": ("read", lambda x: x.cpu()),
    "copy": ("read", lambda x: torch.zeros(3).copy_(x)),
    "nonzero": ("read", lambda x: x.nonzero()),
    "mask": ("read", lambda x: x[x > 1]),
    "unique": ("read", lambda x: x.unique()),
    "equal": ("read", lambda x: torch.equal(x, x)),
    "eigenvalues": ("read", lambda x: torch.linalg.eigvalsh(x.diag())),
    "to": ("sent", lambda x: torch.ones(3).to(x)),
    "tensor": ("sent", lambda x: torch.tensor([1, 2], device=x.device)),
    "new_tensor": ("sent", lambda x: x.new_tensor([1.0])),
    "index": ("sent", lambda x: x[torch.tensor([0, 2])]),
    "list as an index": ("sent", lambda x: x[[0, 2]]),
    "filled by an index": ("sent", lambda x: x.index_put_((torch.tensor([1]),), x[:1].clone())),
    "number in where": ("sent", lambda x: torch.where(x > 0, x, torch.tensor(1.0))),
}
FREE = {
    "arithmetic": lambda x: 2 * x + torch.tensor(1.0),
    "factories": lambda x: x.new_zeros(3) + torch.arange(3, device=x.device),
    "views": lambda x: x[1:].view(2, 1).T[0, 1],
    "index": lambda x: x[(x > 1).long()],
    "masked fill": lambda x: torch.where(x > 1, x, 0.0).masked_fill_(x > 2, 1.0),
    "number": lambda x: x.clone().__setitem__(0, 1.0),
    "asynchronous copy": lambda x: x + torch.ones(3).to(x.device, non_blocking=True),
    "lists": lambda x: torch._foreach_add([x, x], [x, x]),
}
MIXED = {
    "sum": lambda x, y: x + y,
    "product": lambda x, y: x @ y,
    "cat": lambda x, y: torch.cat([x, y]),
    "index of the cpu": lambda x, y: y[x.long()],
    "filled by the cpu": lambda x, y: x.index_put_((x.long(),), y),
    "in place": lambda x, y: y.add_(x),
}


@pytest.fixture
def accelerator():
    with Accelerator() as entered:
        yield entered


def on_device():
    return torch.tensor([0.0, 1.0, 2.0]).to(DEVICE, non_blocking=True)


@pytest.mark.parametrize("inference", [False, True])
def test_each_wait_is_noted_and_nothing_else(inference, accelerator):
    wrong = {}
    with torch.inference_mode(inference):
        for name, (what, call) in WAITING.items():
            x = on_device()
            accelerator.waits.clear()
            call(x)
            if [wait.what for wait in accelerator.waits] != [what]:
                wrong[name] = list(accelerator.waits)
        for name, call in FREE.items():
            x = on_device()
            accelerator.waits.clear()
            call(x)
            if accelerator.waits:
                wrong[name] = list(accelerator.waits)
    assert not wrong


def test_devices_are_not_mixed_and_nothing_is_read_unawares(accelerator):
    for call in MIXED.values():
        with pytest.raises(RuntimeError, match=r"on the CPU|by one on the device"):
            call(on_device(), torch.ones(3))
    for convert in (lambda x: x.numpy(), lambda x: x.__array__()):
        with pytest.raises(TypeError, match="numpy"):
            convert(on_device())


def test_a_wait_has_the_line_of_the_program_that_asks_for_it(accelerator):
    waited_for(on_device())
    (wait,) = accelerator.waits
    lines, start = inspect.getsourcelines(waited_for)
    assert wait.place == f"weightings/transfer.py:{start + next(i for i, line in enumerate(lines) if '.cpu()' in line)}"


def test_networks_train_as_on_the_cpu_and_memory_is_counted_once():
    inputs, labels, found = torch.randn(8, 4), torch.arange(8) % 3, {}
    for device in (torch.device("cpu"), DEVICE):
        torch.manual_seed(0)
        with Accelerator() as accelerator:
            network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))
            network.to(device)
            optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
            for _ in range(3):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(inputs.to(device)), labels.to(device)).backward()
                optimizer.step()
            found[device] = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
            with accelerator.measured_memory() as measured:
                x = torch.zeros(1000, device=DEVICE)
                views = x[1:], x.view(10, 100)
                start, most = measured()
            assert most - start == 4000
            assert all(isinstance(view, OnDevice) for view in views)
    first, second = found.values()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_outside_of_its_context_it_is_what_it_always_is():
    assert type(torch.zeros(2, device="meta")) is torch.Tensor
    with Accelerator():
        x = on_device()
    with pytest.raises(RuntimeError, match="outside of its context"):
        x + 1


def test_a_number_that_is_put_at_an_index_is_sent():
    with Accelerator() as accelerator:
        numbers, index = torch.zeros(4, device=DEVICE), torch.arange(2, device=DEVICE)
        numbers[1:] = 1
        numbers[numbers > 0] = 2
        numbers.index_fill_(0, index, 3)
        assert not accelerator.waits
        numbers[index] = 4
        assert [wait.what for wait in accelerator.waits] == ["sent"]
        assert numbers.held.tolist() == [4, 4, 2, 2]
