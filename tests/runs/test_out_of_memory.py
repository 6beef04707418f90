"""A training that runs out of memory ends with one line that names keys; the peak of a run is in its record."""

import re
import resource
import sys
from pathlib import Path

import pytest
import torch
from helpers import QUICK, read_record, run_folders

from mtlrun.training import trainer

CUDA = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1 MiB is free."
KEYS = {
    ("weighting=upgrad",): [
        "trainer.micro_batches=2", "trainer.two_pass=true", "weighting.grad_wrt=representation",
        "trainer.stream_rows=true", "trainer.checkpoint_activations=true",
    ],
    ("weighting=upgrad", "trainer.stream_rows=true"): ["trainer.checkpoint_activations=true"],
    ("weighting=mgda_ub",): ["trainer.two_pass=true", "trainer.checkpoint_activations=true"],
    ("weighting=pcgrad", "model=cross_stitch", "trainer.vmap_backward=true"): [
        "trainer.micro_batches=2", "trainer.two_pass=true",
    ],
    ("weighting=modo", "trainer.checkpoint_activations=true"): [],
    ("weighting=equal", "trainer.micro_batches=4"): ["trainer.micro_batches=8", "trainer.checkpoint_activations=true"],
}  # fmt: skip


def out_of_memory(*_, **__):
    raise torch.OutOfMemoryError(CUDA)


def interrupted(*_):
    raise KeyboardInterrupt


@pytest.fixture
def failing(mtlrun, monkeypatch):
    """Return a function that runs a command line in which something fails, and returns its one line and its record."""

    def run(owner, name, error, *arguments):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, error)
            code, _, err = mtlrun(*QUICK, "dataset.size=64", *arguments)
        assert code == 1
        (folder,) = run_folders()
        return err.strip(), read_record(folder)

    return run


@pytest.mark.parametrize("arguments", KEYS)
def test_a_step_without_memory_names_keys_with_which_the_run_is_accepted(arguments, failing, mtlrun):
    err, record = failing(trainer.Trainer, "train_step", out_of_memory, *arguments)
    names = record["config"]["names"]
    assert "\n" not in err
    described = (
        rf"weighting={names['weighting']} with model={names['model']} \([\d,]+ parameters, 2 tasks\) and "
        r"trainer.batch_size=\d+ does not fit into the memory of cpu: a step ran out of it when 2.50 GiB more were "
        "asked for; what would help"
    )
    assert re.search(described, err)
    assert (record["status"], record["error"]) == ("failed", err.removeprefix("mtlrun: "))
    keys = err.partition("first things first: ")[2].split(", ")
    assert keys[:-2] == KEYS[arguments]
    assert keys[-2:] == [
        "trainer.precision=bf16",
        f"trainer.batch_size={record['config']['trainer']['batch_size'] // 2}",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Trainer, "steps", interrupted)  # whatever is refused is refused before
        for key in keys:
            given = [word for word in (*QUICK, *arguments) if word.partition("=")[0] != key.partition("=")[0]]
            assert mtlrun(*given, "dataset.size=64", key)[0] == 130, key


def test_an_evaluation_without_memory_names_the_keys_of_evaluations(failing):
    err, _ = failing(trainer, "evaluate", out_of_memory, "trainer.precision=bf16", "trainer.eval_batch_size=32")
    assert "trainer.eval_batch_size=32 does not fit into the memory of cpu: an evaluation ran out of it" in err
    assert err.endswith("first things first: trainer.eval_batch_size=16")


@pytest.mark.skipif(sys.platform != "linux", reason="the message is that of PyTorch on Linux")
def test_the_allocator_of_the_cpu_is_understood_and_other_errors_are_not_touched(failing, monkeypatch):
    err, _ = failing(trainer.Trainer, "train_step", lambda *_: torch.empty(2**60))
    assert "a step ran out of it when 4,398,046,511,104 MiB more were asked for" in err
    err, record = failing(trainer.Trainer, "train_step", lambda *_: torch.ones(2) @ torch.ones(3))
    assert record["error"].startswith("RuntimeError: ")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone forgets the peak of a process")
def test_the_peak_of_a_run_is_its_own_and_is_shown(mtlrun):
    taken = torch.ones(2**27)  # 512 MiB
    del taken
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    code, out, err = mtlrun(
        "trainer=smoke", "dataset=kendall_toy", "backbone=mlp", "trainer.baselines=false", "runtime.predictions=none"
    )
    assert code == 0, err
    peak = read_record(run_folders()[0])["peak_memory_mib"]["process"]
    assert 50 < peak < before - 100
    assert f" s, at most {peak:,.0f} MiB in memory; " in out
