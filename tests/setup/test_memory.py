"""What cannot be in memory is refused in one line, before minutes are spent on it; the machine is not filled."""

import sys

import numpy
import pytest
import torch
from torch import nn

from mtlrun.errors import ConfigError, OutOfMemoryError
from mtlrun.setup import memory, optimizer_groups
from mtlrun.setup.machine import limits_of
from mtlrun.setup.memory import within_memory
from mtlrun.setup.optimizer_groups import check_room_for_training

MIB = 2**20
linux = pytest.mark.skipif(
    sys.platform != "linux" or torch.cuda.is_available(), reason="what a process gets is limited on Linux without a GPU"
)


@pytest.fixture
def small_machine(monkeypatch):
    """Return a function that sets how many MiB the machine has, and how many are free."""

    def set_memory(size, free):
        monkeypatch.setattr(memory, "memory_size", lambda: size * MIB)
        monkeypatch.setattr(memory, "free_memory", lambda: free * MIB)

    return set_memory


def make_two():
    first = torch.empty(128 * MIB // 4)
    return first, torch.empty(1000 * MIB // 4)


@linux
def test_what_does_not_fit_is_refused_and_what_only_is_not_free_now_is_another_error(small_machine):
    small_machine(1024, 256)
    for make, error in (
        (lambda: torch.empty(2048 * MIB // 4), ConfigError),
        (lambda: numpy.empty(2048 * MIB // 8), ConfigError),
        (make_two, ConfigError),
        (lambda: torch.empty(512 * MIB // 4), OutOfMemoryError),
        (lambda: bytearray(512 * MIB), OutOfMemoryError),
        (lambda: torch.empty(2**62), ConfigError),
        (lambda: torch.empty(64 * MIB // 4), None),
    ):
        if error is None:
            with within_memory("dataset: its samples", "use fewer"):
                make()
            continue
        with pytest.raises(error, match=r"dataset: its samples cannot fit into the memory .* 1 GiB; .*use fewer"):  # noqa: SIM117
            with within_memory("dataset: its samples", "use fewer"):
                make()
        torch.empty(1024 * MIB // 4)  # the limit has ended with the block
    with pytest.raises(RuntimeError, match="a bug"), within_memory("model", "use another"):
        raise RuntimeError("a bug")


@linux
def test_samples_that_cannot_be_in_memory_are_refused_before_they_are_made(mtlrun, small_machine):
    small_machine(8192, 4096)
    problem = "dataset: its samples cannot fit into the memory of this machine, 8 GiB; "
    for words in (["dataset.pairs_per_image=10000"], ["dataset=gradnorm_toy", "dataset.output_size=1000000"]):
        code, _, err = mtlrun(*words)
        assert (code, len(err.splitlines())) == (2, 1)
        assert err.startswith(f"mtlrun: {problem}")


def test_gradients_and_what_the_optimizer_keeps_are_counted(small_machine, monkeypatch):
    monkeypatch.setattr(optimizer_groups, "_LARGE", 0)
    model = nn.Linear(1024, 1024, bias=False)  # 4 MiB
    cpu = torch.device("cpu")
    for node, needed in (
        ({"_target_": "torch.optim.Adam", "lr": 1}, 12),
        ({"_target_": "torch.optim.SGD", "lr": 1, "momentum": 0.9}, 8),
        ({"_target_": "torch.optim.SGD", "lr": 1}, 4),
    ):
        small_machine(needed, needed)
        check_room_for_training(node, model, cpu)
        small_machine(needed, needed - 1)
        with pytest.raises(OutOfMemoryError, match="what 1,048,576 parameters are trained with need"):
            check_room_for_training(node, model, cpu)
        small_machine(needed - 1, needed - 1)
        with pytest.raises(ConfigError, match="model: what 1,048,576 parameters are trained with need 0 GiB"):
            check_room_for_training(node, model, cpu)
    model.requires_grad_(False)
    check_room_for_training(node, model, cpu)


def test_what_a_control_group_can_give_back_is_not_taken(tmp_path):
    inner = tmp_path / "job" / "task"
    inner.mkdir(parents=True)
    for group, limit in ((tmp_path / "job", 1000), (inner, "max")):
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text("900\n")
        (group / "memory.stat").write_text(
            "anon 300\nfile 400\ninactive_file 100\nactive_file 250\nslab_reclaimable 150\nslab_unreclaimable 100\n"
        )
    assert list(limits_of(inner)) == [(1000, 400)]


def test_a_meta_tensor_takes_no_memory(small_machine):
    small_machine(64, 64)
    with within_memory("model", "use another"):
        nn.Linear(2**14, 2**14, device="meta")  # 1 GiB, if it were anywhere
