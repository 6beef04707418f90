"""Training steps and runs on a GPU: nothing but a solver's copy is waited for, and a run moves to it and from it."""

import warnings

import pytest
import torch
from helpers import read_record, run_folders
from small_trainings import DIGITS, SCENES, Preparation
from test_models_and_kinds import MODELS
from test_models_and_kinds import WAITING as WAITING_MODELS
from test_runs import advance
from test_waits import VARIANTS, WEIGHTINGS, train

from mtlrun.setup.environment import set_seed

GPU, CPU = torch.device("cuda:0"), torch.device("cpu")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU"),
]

RUNS = {
    "table": ["dataset=kendall_toy", "backbone.hidden=[8]"],
    "vectors": DIGITS,
    "images": ["dataset=multidigits", "dataset.pairs_per_image=1", "backbone=lenet", "trainer.limit_batches=2"],
    "samples on the device": [*DIGITS, "dataset.cache=device"],
    "maps and boxes": SCENES,
    "maps on the device": [*SCENES, "dataset.cache=device"],
    "workers": [*DIGITS, "dataset.cache=memory", "runtime.num_workers=1", "trainer.limit_batches=2"],
}


@pytest.fixture(scope="module")
def digits():
    return Preparation([*DIGITS, "weighting=equal"])


@pytest.fixture
def waits_are_errors():
    """Return a function that makes each wait for the GPU an error, or not."""

    def use(mode):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that not all waits are found
            torch.cuda.set_sync_debug_mode(mode)

    yield use
    use("default")


def steps_without_waits(trainer, preparation, waits_are_errors):
    """Make steps of which all but the first one may wait for nothing."""
    steps = train(trainer, preparation)
    next(steps)
    torch.cuda.synchronize()
    waits_are_errors("error")
    for _ in steps:
        pass
    waits_are_errors("default")


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_a_step_waits_for_a_solver_alone_and_gives_what_it_gives_on_the_cpu(
    weighting, digits, tmp_path, waits_are_errors
):
    here = digits.trainer(tmp_path, weighting, device=GPU)
    steps_without_waits(here, digits, waits_are_errors)
    if weighting == "graddrop":  # it draws on the device
        return
    there = digits.trainer(tmp_path, weighting, device=CPU)
    for _ in train(there, digits):
        pass
    state = here.parts.model.state_dict()
    close = [
        torch.isclose(state[name].cpu(), tensor, rtol=1e-2, atol=1e-4).flatten()
        for name, tensor in there.parts.model.state_dict().items()
    ]
    assert torch.cat(close).double().mean() > 0.99  # Adam makes much of the sign of a gradient of almost zero


@pytest.mark.parametrize(("weighting", "options", "settings"), VARIANTS)
def test_other_paths_wait_for_nothing_else(weighting, options, settings, digits, tmp_path, waits_are_errors):
    steps_without_waits(digits.trainer(tmp_path, weighting, options, device=GPU, **settings), digits, waits_are_errors)


@pytest.mark.parametrize("data", ["digits", "scenes"])
def test_steps_of_all_models_are_deterministic_and_wait_for_nothing(data, digits, tmp_path, waits_are_errors):
    preparation = digits if data == "digits" else Preparation(SCENES)
    found = {}
    try:
        for model in MODELS if data == "scenes" else [name for name in MODELS if name != "mti_net"]:
            states = []
            for _ in range(2):
                set_seed(0, deterministic=True)
                trainer = preparation.trainer(tmp_path, model=model, device=GPU)
                if model in WAITING_MODELS:
                    for _ in train(trainer, preparation):
                        pass
                else:
                    steps_without_waits(trainer, preparation, waits_are_errors)
                states.append(trainer.parts.model.state_dict())
            if not all(map(torch.equal, states[0].values(), states[1].values())):
                found[model] = "other numbers the second time"
    finally:
        set_seed(0, deterministic=False)
    assert not found


@pytest.mark.parametrize("weighting", ["graddrop", "moco", "uncertainty", "rlw"])
def test_a_run_is_continued_on_the_gpu_and_moves_to_the_cpu_and_back(weighting, digits, tmp_path):
    dropping = Preparation([*DIGITS, "backbone.dropout=0.5", "weighting=equal"])
    set_seed(1, deterministic=True)
    try:
        expected = advance(dropping.trainer(tmp_path / "whole", weighting, device=GPU), dropping, 4)
        set_seed(1, deterministic=True)
        begun = dropping.trainer(tmp_path, weighting, device=GPU)
        advance(begun, dropping, 2)
        begun.save()
        torch.cuda.manual_seed(5)  # which the checkpoint undoes
        continued = dropping.trainer(tmp_path, weighting, device=GPU)
        assert continued.resume()
        found = advance(continued, dropping, 2)
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, msg=name)
        for device in (CPU, GPU):
            moved = dropping.trainer(tmp_path, weighting, device=device)
            assert moved.resume()
            assert all(tensor.isfinite().all() for tensor in advance(moved, dropping, 2).values())
            moved.save()
    finally:
        set_seed(0, deterministic=False)


def test_a_run_on_the_cpu_leaves_the_gpu_alone(mtlrun):
    """In a process of its own it would not be initialized; here its generator must stay as it is."""
    before = torch.cuda.get_rng_state()
    code, _, err = mtlrun(*RUNS["table"], "trainer.epochs=1", "runtime.quiet=true", "runtime.device=cpu")
    assert code == 0, err
    assert torch.equal(torch.cuda.get_rng_state(), before)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("kind", RUNS)
def test_a_run_completes(kind, deterministic, mtlrun):
    words = [f"trainer.deterministic={str(deterministic).lower()}", "trainer.epochs=2", "runtime.quiet=true"]
    try:
        code, _, err = mtlrun(*RUNS[kind], *words, "trainer.log_every=1", "runtime.device=cuda")
    finally:
        set_seed(0, deterministic=False)
    assert code == 0, err
    record = read_record(*run_folders())
    assert record["status"] == "completed"
    assert str(record["environment"]["device"]).startswith("cuda")
