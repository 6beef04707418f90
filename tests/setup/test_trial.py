"""The trial of a step's memory on a GPU, before anything is on disk."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import QUICK

from mtlrun.config.compose import compose
from mtlrun.errors import ConfigError, OutOfMemoryError
from mtlrun.setup import trial
from mtlrun.setup.prepare import prepare

CONFIG = compose([*QUICK[2:], "backbone=resnet18", "backbone.width=0.1", "weighting=pcgrad"])


@pytest.fixture(scope="module")
def parts():
    return prepare(CONFIG)


def test_the_trial_leaves_everything_as_it_was(parts):
    before = {name: tensor.clone() for name, tensor in parts.model.state_dict().items()}
    generator = torch.random.get_rng_state()
    trial._make_passes(parts)
    assert torch.equal(torch.random.get_rng_state(), generator)
    assert all(torch.equal(tensor, before[name]) for name, tensor in parts.model.state_dict().items())
    assert all(parameter.grad is None for parameter in parts.model.parameters())


def test_too_little_memory_is_an_error_that_names_keys_before_anything_is_written(parts, monkeypatch):
    def fail(parts):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trial, "_make_passes", fail)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 2**33))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    trial.try_memory(parts, CONFIG)  # on the CPU nothing is tried
    on_gpu = replace(parts, device=torch.device("cuda:0"))
    with pytest.raises(OutOfMemoryError, match=r"1\.0 of 8\.0 GiB are free.*trainer\.micro_batches=2"):
        trial.try_memory(on_gpu, CONFIG)
    assert not Path("outputs").exists()


def test_what_cannot_be_done_on_a_gpu_is_refused(parts, monkeypatch):
    def fail(parts):
        raise RuntimeError("upsample does not have a deterministic implementation\nmore")

    monkeypatch.setattr(trial, "_make_passes", fail)
    on_gpu = replace(parts, device=torch.device("cuda:0"))
    with pytest.raises(ConfigError, match=r"back on cuda:0: upsample does not have a deterministic implementation$"):
        trial.try_memory(on_gpu, CONFIG)
