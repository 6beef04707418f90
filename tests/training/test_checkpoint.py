"""Checkpoints: damage, other versions and other runs, and what best.pt holds."""

import contextlib
import os
import random

import pytest
import torch
from helpers import QUICK, run_folders

from mtlrun.errors import CheckpointError, DamagedCheckpointError
from mtlrun.training.checkpoint import Checkpoints, Generators, check_version
from mtlrun.training.checkpoint_file import FORMAT, load, save


class Part:
    """A part of a training: a number, or whatever it is given."""

    def __init__(self, value=None):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def write(folder, *values, run="a"):
    """Write a checkpoint after the other, of a training with two parts."""
    for value in values:
        Checkpoints(folder, run).save_training({"one": Part(value), "two": Part(-value)})


def restore(folder):
    """Return what is restored, None if nothing is."""
    parts = {"one": Part(), "two": Part()}
    return [part.value for part in parts.values()] if Checkpoints(folder, "a").restore_training(parts) else None


# ---------------------------------------------------------------------------------------------------- one file


def test_no_byte_of_a_checkpoint_can_change_unnoticed(tmp_path):
    path = tmp_path / "last.pt"
    save({"weights": torch.arange(5.0), "more": [torch.ones(2), "text"]}, path)
    content = path.read_bytes()

    def refused():
        with pytest.raises(DamagedCheckpointError, match=r"last\.pt is damaged"):
            load(path)

    with open(path, "r+b", buffering=0) as file:
        for place, byte in enumerate(content):
            for wrong in (byte ^ 1, byte ^ 128):
                os.pwrite(file.fileno(), bytes([wrong]), place)
                refused()
            os.pwrite(file.fileno(), bytes([byte]), place)
        file.seek(0, os.SEEK_END)
        file.write(b"\0")
        refused()
        file.truncate(len(content))
        assert load(path)["weights"].tolist() == [0, 1, 2, 3, 4]
        for size in range(len(content) - 1, -1, -1):
            file.truncate(size)
            refused()


@pytest.mark.parametrize("sizes", [[0], [1, 0, 5], [3] * 40, [3_000_000]])
def test_a_checkpoint_is_what_was_saved_for_pytorch_alone_as_well(sizes, tmp_path):
    state = {str(number): torch.rand(size) for number, size in enumerate(sizes)}
    save(state, tmp_path / "best.pt")
    for found in (load(tmp_path / "best.pt"), *(
        torch.load(tmp_path / "best.pt", weights_only=True, mmap=mapped) for mapped in (False, True)
    )):  # fmt: skip
        assert found.pop("format") == FORMAT
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_what_a_training_is_continued_from_is_that_of_this_format(mtlrun):
    assert mtlrun(*QUICK)[0] == 0
    (folder,) = run_folders()
    state = load(folder / "checkpoints" / "last.pt")
    found = {key: list(part) for key, part in state.items() if isinstance(part, dict)}
    del found["model"], found["task_bests"]  # whose keys are names
    assert (FORMAT, found, [list(part) for part in state["observers"]]) == (6, {
        "progress": ["step", "epoch", "batch", "evaluations", "evaluated_step", "seconds", "waiting", "resumed",
                     "joint_steps", "left_out"],
        "optimizer": ["state", "param_groups"],
        "weighting": ["_extra_state"],
        "step_means": ["losses", "epoch_losses", "weights", "norms", "cosines", "conflicts", "affinities"],
        "skills": ["trivial", "references", "undefined"],
        "selected": ["rules", "model_states"],
        "generators": ["torch", "cuda", "python", "numpy"],
    }, [["size"], ["size"], [], []]), "what is held is new: raise FORMAT"  # fmt: skip
    shapes = {key: state["step_means"][key].shape for key in ("losses", "affinities")}
    assert shapes == {"losses": (2, 2), "affinities": (2, 2, 2)}


def test_what_is_no_file_cannot_be_read(tmp_path):
    assert load(tmp_path / "last.pt") is None
    (tmp_path / "last.pt").mkdir()
    with pytest.raises(DamagedCheckpointError, match=r"last\.pt cannot be read \(Is a directory\)"):
        load(tmp_path / "last.pt")


def test_a_checkpoint_of_another_version_is_refused_with_a_way_out(tmp_path, monkeypatch):
    message = rf"\.pt has checkpoint format %d, and this version of mtlrun reads format {FORMAT}; train that run anew"
    torch.save({"format": 3, "progress": {}}, tmp_path / "previous.pt")
    (tmp_path / "last.pt").write_bytes(b"damaged")
    for refuse in (check_version, restore):
        with pytest.raises(CheckpointError, match=message % 3) as caught:
            refuse(tmp_path)
        assert not isinstance(caught.value, DamagedCheckpointError)
        assert caught.value.exit_code == 2
    monkeypatch.setattr("mtlrun.training.checkpoint_file.FORMAT", FORMAT + 1)
    write(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=message % (FORMAT + 1)):
        check_version(tmp_path)
    write(tmp_path, 2, 3)
    check_version(tmp_path)
    check_version(tmp_path / "nowhere")


# ------------------------------------------------------------------------------------------- the last and before


def damage(kind, path):
    """Damage the file of a checkpoint in one of many ways."""
    match kind:
        case "empty" | "other content":
            path.write_bytes(b"" if kind == "empty" else b"\xff\xfeno archive\n" * 9)
        case "half":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        case "without the digest":
            torch.save(load(path), path)
        case "a list":
            torch.save([1, 2], path)
        case "best.pt":
            Checkpoints(path.parent, "a").save_best({"model_states": []})
            (path.parent / "best.pt").replace(path)
        case "of another run":
            Checkpoints(path.parent / "other", "b")
            (path.parent / "other").mkdir()
            write(path.parent / "other", 9, run="b")
            (path.parent / "other" / "last.pt").replace(path)
        case "of no run":
            save({"one": {"value": 9}, "two": {"value": 9}}, path)
        case "a key is missing" | "a key too many" | "a wrong type":
            state = load(path)
            if kind == "a key is missing":
                del state["two"]
            elif kind == "a key too many":
                state["three"] = {}
            else:
                state["two"] = [1]
            save(state, path)


DAMAGE = ["empty", "other content", "half", "without the digest", "a list", "best.pt", "of another run", "of no run",
          "a key is missing", "a key too many", "a wrong type"]  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_whatever_the_damage_the_one_before_it_is_used_and_takes_its_place(kind, tmp_path, caplog):
    write(tmp_path, 1, 2)
    assert restore(tmp_path) == [2, -2]
    damage(kind, tmp_path / "last.pt")
    assert restore(tmp_path) == [1, -1]
    (warning,) = caplog.messages
    assert str(tmp_path / "last.pt") in warning
    assert warning.endswith("; going back to the one before it")
    assert restore(tmp_path) == [1, -1]
    assert not (tmp_path / "previous.pt").exists()  # so that the damaged file cannot become it
    assert len(caplog.messages) == 1


def test_without_an_undamaged_checkpoint_nothing_is_restored(tmp_path, caplog):
    assert restore(tmp_path) is None
    assert not caplog.messages
    write(tmp_path, 1, 2)
    damage("half", tmp_path / "last.pt")
    damage("best.pt", tmp_path / "previous.pt")
    assert restore(tmp_path) is None
    assert "previous.pt holds a selected model, and not a training state; there is none before it" in caplog.messages[1]
    assert caplog.messages[2] == "without an undamaged checkpoint the run cannot be continued; it starts anew"


def test_a_state_that_was_written_so_and_does_not_fit_is_not_thrown_away(tmp_path):
    """The code of a component may have changed: then nothing is damaged, and days of training would be lost."""
    write(tmp_path, 1, 2)
    content = {}
    for name in ("last.pt", "previous.pt"):
        damage("a wrong type", tmp_path / name)
        content[name] = (tmp_path / name).read_bytes()
    message = r"last\.pt does not fit this run \(TypeError: .*if the code of a component has changed since"
    with pytest.raises(CheckpointError, match=message):
        restore(tmp_path)
    assert content == {name: (tmp_path / name).read_bytes() for name in content}


# ------------------------------------------------------------------------------------------------ best and others


def test_the_selected_model_is_put_together_from_the_states_of_its_parts(tmp_path):
    states = [{"a": torch.zeros(2)}, {"b": torch.ones(3)}]
    Checkpoints(tmp_path, "a").save_best({"evaluations": [1, 2], "model_states": states})
    assert Checkpoints(tmp_path, "a").load_best().keys() == {"a", "b"}
    assert Checkpoints(tmp_path / "nowhere", "a").load_best() is None
    with pytest.raises(CheckpointError, match=r"best\.pt is of another run, a"):
        Checkpoints(tmp_path, "b").load_best()


def test_global_generators_continue_where_they_were():
    import numpy

    generators = Generators(torch.device("cpu"))
    state = generators.state_dict()
    first = torch.rand(1).item(), random.random(), numpy.random.rand()
    generators.load_state_dict(state)
    assert (torch.rand(1).item(), random.random(), numpy.random.rand()) == first


class FakeGPUs:
    """What `torch.cuda` keeps of the generators of several GPUs."""

    def __init__(self, patch):
        self.states = {torch.device("cuda", index): torch.tensor([index], dtype=torch.uint8) for index in range(2)}
        self.seeds = []
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "get_rng_state", self.states.__getitem__)
        patch.setattr(torch.cuda, "set_rng_state", lambda state, device: self.states.__setitem__(device, state))
        patch.setattr(torch.cuda, "device", contextlib.nullcontext)
        patch.setattr(torch.cuda, "manual_seed", self.seeds.append)


def test_generators_of_the_gpu_of_the_run_alone_are_saved_and_restored(monkeypatch):
    gpus = FakeGPUs(monkeypatch)
    first, second = gpus.states
    on_gpu, on_cpu = Generators(second).state_dict(), Generators(torch.device("cpu")).state_dict()
    assert on_gpu["cuda"].tolist() == [1]
    assert on_cpu["cuda"] is None
    Generators(first).load_state_dict(on_gpu)  # a machine with another number of GPUs, or another one of them
    assert gpus.states == {first: on_gpu["cuda"], second: on_gpu["cuda"]}
    assert not gpus.seeds
    Generators(torch.device("cpu")).load_state_dict(on_gpu)
    assert not gpus.seeds
    for _ in range(2):
        Generators(first).load_state_dict(on_cpu)
    torch.rand(1)
    Generators(first).load_state_dict(Generators(torch.device("cpu")).state_dict())
    assert gpus.seeds[0] == gpus.seeds[1] != gpus.seeds[2]  # from what the CPU's has drawn by then
