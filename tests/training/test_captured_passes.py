"""Captured passes: what is replayed is what is computed as ever; on the CPU with a stand-in for CUDA graphs."""

import time
from dataclasses import replace
from itertools import count, islice

import pytest
import torch
from helpers import run_folders

from mtlrun.config.compose import compose
from mtlrun.errors import ConfigError
from mtlrun.setup.cuda_graph import check_cuda_graph
from mtlrun.setup.prepare import prepare
from mtlrun.training import trainer as module
from mtlrun.training.trainer import Trainer

TOY = [
    "dataset=kendall_toy",
    "backbone.hidden=[6]",
    "trainer.batch_size=40",
    "scheduler=cosine",
]  # batches of two sizes
DIGITS = ["dataset=multidigits", "dataset.pairs_per_image=1", "dataset.size=10", "trainer.batch_size=12",
          "trainer.limit_batches=4", "backbone=mlp", "backbone.hidden=[8]"]  # fmt: skip
CASES = {
    "learned weights": [*TOY, "weighting=uncertainty"],
    "random weights, clipping": [*TOY, "weighting=rlw", "trainer.clip_norm=1"],
    "batch norm, dropout": [*DIGITS, "backbone.norm=batch", "backbone.dropout=0.5", "optimizer=sgd"],
    "regularizer": [*DIGITS, "model=soft", "optimizer=sgd"],
}


class Recorder:
    """Repeats work by doing it again, and leaves the results where the first ones are, as a CUDA graph does."""

    def __init__(self, device=None):
        self.replays = 0

    def warm_up(self, work):
        work()

    def capture(self, work):
        results = work()

        def replay():
            self.replays += 1
            for result, again in zip(results, work(), strict=True):
                result.detach().copy_(again.detach())

        return results, replay


def make_trainer(words, folder, *, captured, device="cpu"):
    parts = prepare(compose([*words, f"runtime.device={device}"]))
    parts.model.train()
    return Trainer(replace(parts, settings=replace(parts.settings, cuda_graph=captured)), folder=folder)


def make_steps(trainer, number):
    epochs = (trainer.parts.loaders["train"].batches(epoch) for epoch in count())
    for batch in islice((batch for epoch in epochs for batch in epoch), number):
        trainer.train_step(batch)
        trainer.progress.step += 1
    trainer.guard.raise_if_bad(trainer.batch_of_step)


def assert_same(trainer, other, rtol):
    for one, twin in ((trainer.parts.model, other.parts.model), (trainer.parts.weighting, other.parts.weighting)):
        for key, tensor in one.state_dict().items():
            if isinstance(tensor, torch.Tensor):
                torch.testing.assert_close(tensor, twin.state_dict()[key], rtol=rtol, atol=1e-6, msg=key)
    assert trainer.step_means.means() == pytest.approx(other.step_means.means(), rel=rtol)


@pytest.mark.parametrize("case", CASES)
def test_replayed_steps_are_those_that_are_made_as_ever(case, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CudaGraphs", Recorder)
    trainers = []
    for captured in (True, False):
        trainer = make_trainer(CASES[case], tmp_path, captured=captured)
        make_steps(trainer, 5)
        trainers.append(trainer)
    assert_same(*trainers, rtol=1e-5)
    # Of the toy's three batches the last one has another size.
    assert trainers[0].captured._graphs.replays == 2 * (4 if trainers[0].steps_per_epoch == 3 else 5)
    assert trainers[1].captured is None


def test_no_graph_outlives_the_passes_it_was_made_for(tmp_path, monkeypatch):
    """What adds to `.grad` lives as long as a graph, and belongs to the stream on which the first one was made."""

    def has_a_graph(parameter):
        (accumulating, _), *_ = parameter.view_as(parameter).grad_fn.next_functions
        found, accumulating.metadata["found"] = "found" in accumulating.metadata, True
        return found

    class Watching(Recorder):
        def warm_up(self, work):
            super().warm_up(work)
            outlived.append(has_a_graph(parameter))

        def capture(self, work):
            results, replay = super().capture(work)
            return [result.detach() for result in results], replay

    outlived = []
    monkeypatch.setattr(module, "CudaGraphs", Watching)
    trainer = make_trainer(CASES["learned weights"], tmp_path, captured=True)
    parameter = next(trainer.parts.model.parameters())
    kept = parameter.view_as(parameter)
    assert [has_a_graph(parameter), has_a_graph(parameter)] == [False, True]
    del kept
    make_steps(trainer, 1)
    outlived.append(has_a_graph(parameter))
    assert outlived == [False, False]


def test_a_run_without_a_gpu_is_refused(mtlrun):
    code, _, err = mtlrun(*TOY, "trainer.cuda_graph=true", "runtime.device=cpu")
    assert (code, run_folders()) == (2, [])
    line = "mtlrun: trainer.cuda_graph=true: it needs a GPU, and the run is on the device cpu; leave it out\n"
    assert err == line


REFUSED = {
    "weighting=mgda": "MGDA combines gradients, and CUDA graphs are for weightings of losses",
    "weighting=famo": "FAMO needs more of a step than the losses",
    "trainer.micro_batches=2": "trainer.micro_batches=2 is not for CUDA graphs, only 1",
}


def test_what_cannot_be_captured_is_refused():
    for word, reason in REFUSED.items():
        parts = prepare(compose([*TOY, word]))
        with pytest.raises(ConfigError, match=reason):
            check_cuda_graph(replace(parts, settings=replace(parts.settings, cuda_graph=True)), Recorder())
    parts = prepare(compose(TOY))
    parts = replace(parts, settings=replace(parts.settings, cuda_graph=True))
    before = {key: tensor.clone() for key, tensor in parts.model.state_dict().items()}
    check_cuda_graph(parts, Recorder())
    assert all(torch.equal(tensor, before[key]) for key, tensor in parts.model.state_dict().items())

    class Unable(Recorder):
        def capture(self, work):
            try:
                raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nand more")
            finally:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    with pytest.raises(
        ConfigError, match=r"cannot be captured \(CUDA error: operation not permitted when stream is capturing\)"
    ):
        check_cuda_graph(parts, Unable())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("words", [
    [*TOY, "weighting=uncertainty"],
    [*DIGITS, "backbone.norm=batch", "optimizer=sgd"],
    ["dataset=multidigits", "dataset.pairs_per_image=1", "trainer.batch_size=64", "trainer.limit_batches=4",
     "backbone.dropout=0", "optimizer=sgd", "weighting=dwa"],
], ids=["learned weights", "batch norm", "convolutions"])  # fmt: skip
def test_cuda_graphs_give_the_steps_of_kernels_launched_one_by_one(words, tmp_path):
    words = [*words, "trainer.deterministic=true"]
    trainers = [make_trainer(words, tmp_path, captured=captured, device="cuda") for captured in (True, False)]
    for trainer in trainers:
        check_cuda_graph(trainer.parts)
        make_steps(trainer, 6)
    assert_same(*trainers, rtol=1e-4)
    seconds = []
    for trainer in trainers:
        make_steps(trainer, 20)
        torch.cuda.synchronize()
        start = time.perf_counter()
        make_steps(trainer, 100)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    print(f"{' '.join(words)}: {10 * seconds[0]:.3g} ms a step with CUDA graphs, {10 * seconds[1]:.3g} ms without")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_replayed_dropout_drops_other_channels_each_time(tmp_path):
    trainer = make_trainer([*DIGITS, "backbone.dropout=0.5"], tmp_path, captured=True, device="cuda")
    batch = trainer.load(next(iter(trainer.parts.loaders["train"].batches(0))))
    losses = [trainer.captured.forward(batch) and trainer.captured.losses.clone() for _ in range(3)]
    assert len({tuple(each.tolist()) for each in losses}) == 3
