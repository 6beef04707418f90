"""Compiled models: the numbers, the state and the task gradients of the model as it is written."""

import importlib
import logging

import pytest
import torch
from helpers import QUICK, choose_weighting, read_lines, run_folders, sample_of
from test_precision import APART, KINDS, MODELS, chosen, update

from mtlrun.models import HardSharing, compiled
from mtlrun.models.backbones import MLP
from mtlrun.models.compiled import CompiledFunctions
from mtlrun.tasks import Classification, Regression
from mtlrun.training.forward import run_inputs

TWO = [*QUICK, "backbone.hidden=[16,8]", "trainer.epochs=2", "trainer.baselines=false"]


@pytest.fixture
def _quick_compiler(monkeypatch):
    """Compile by what traces both passes and leaves the graphs to PyTorch, which takes a second and not a minute."""
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")


@pytest.mark.usefixtures("_quick_compiler")
@pytest.mark.parametrize(
    ("model", "weighting"),
    sample_of(
        lambda *case: case == ("hard", "db_mtl"),
        [(model, weighting) for model in MODELS for weighting in ([APART[model]] if model in APART else KINDS)],
    ),
)
def test_the_update_of_a_compiled_model_is_that_of_the_model_as_it_is_written(model, weighting):
    words = chosen(model, weighting)
    parts, made, gradients = update(*words, "trainer.compile=true")
    # A region for the trunk and each head, or one for all, of two sizes of batches.
    assert parts.model.computation.compiled.num_graphs == (6 if model == "hard" else 2)
    written, expected, exact = update(*words)
    assert list(parts.model.state_dict()) == list(written.model.state_dict())
    torch.testing.assert_close(made.losses, expected.losses)
    torch.testing.assert_close(gradients, exact)


def trained(mtlrun, *words):
    """Return the weights that a run of two epochs has selected, and its folder."""
    before = set(run_folders())
    code, _, err = mtlrun(*TWO, *words)
    assert code == 0, err
    (folder,) = set(run_folders()) - before
    (state,) = torch.load(folder / "checkpoints" / "best.pt", weights_only=True)["model_states"]
    return state, folder


#: What asks for more than one pass forward or backward, and what changes between steps.
SEVERAL = [
    ("famo",), ("auto_lambda",), ("modo",), ("imtl",), ("rotograd",), ("gradnorm",),
    ("pcgrad", "trainer.two_pass=true"), ("pcgrad", "trainer.micro_batches=3"), ("pcgrad", "model=ltb"),
    ("upgrad", "weighting.grad_wrt=representation"), ("equal", "trainer.log_affinity_every=2", "backbone.dropout=0.3"),
    ("uncertainty", "trainer.log_gradients_every=2"), ("pcgrad", "trainer.precision=bf16", "model.shared_stages=1"),
]  # fmt: skip


@pytest.mark.usefixtures("_quick_compiler")
@pytest.mark.parametrize("words", sample_of(lambda words: words == SEVERAL[-1], [(words,) for words in SEVERAL]))
def test_a_compiled_run_is_another_run_with_the_same_weights(mtlrun, words):
    words = [*choose_weighting(words[0], "left"), *words[1:]]
    state, folder = trained(mtlrun, *words, "trainer.compile=true")
    expected, written = trained(mtlrun, *words)
    assert folder.name != written.name
    assert list(state) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value)
    assert len(read_lines(folder, "train")) == len(read_lines(written, "train"))
    code, _, err = mtlrun("evaluate", str(folder))
    assert code == 0, err
    assert "differ" not in err


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("weighting", KINDS)
def test_what_inductor_makes_is_the_same_up_to_rounding(mtlrun, weighting):
    words = [*choose_weighting(weighting, "left"), "backbone.dropout=0.3"]
    with importlib.import_module("torch._inductor.config").patch(compile_threads=1):
        state, _ = trained(mtlrun, *words, "trainer.compile=true")
    expected, _ = trained(mtlrun, *words)
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value)


@pytest.mark.usefixtures("_quick_compiler")
def test_compiling_again_is_logged_until_pytorch_stops(caplog):
    tasks = {"a": Regression(), "b": Regression()}
    model = HardSharing(tasks, lambda: MLP((3,), hidden=[4]))
    functions = CompiledFunctions(model, single_backward=True)
    caplog.set_level(logging.INFO)
    with torch._dynamo.config.patch(recompile_limit=2):
        run_inputs(model, torch.randn(4, 3), ())
        functions.started()
        assert caplog.messages == ["the model is compiled: 3 graphs"]
        caplog.clear()
        for dtype in (torch.float64, torch.float16, torch.bfloat16):
            model.to(dtype)
            run_inputs(model, torch.randn(4, 3, dtype=dtype), ())
    messages = [record.getMessage() for record in caplog.records if record.name == compiled.__name__]
    again = [message for message in messages if "compiled again" in message]
    assert again[-1] == "a part of the model is compiled again, for another shape or mode: 6 graphs"
    stopped = [message for message in messages if "no more often" in message]
    assert len(again) == len(stopped) == 3
    assert all("was compiled 2 times" in message for message in stopped)
    assert len(messages) == 6
    assert not any("torch._dynamo hit" in message for message in caplog.messages)
    model.float()
    inputs = torch.randn(4, 3)
    with model.computation.as_written():
        written = run_inputs(model, inputs, ())
    model.eval()
    assert torch.equal(run_inputs(model, inputs, ()).predictions["a"], written.predictions["a"])
    assert functions.num_graphs == 6


@pytest.mark.usefixtures("_quick_compiler")
def test_a_model_that_is_compiled_as_a_whole_is_one_graph():
    model = HardSharing({"a": Regression()}, lambda: MLP((3,), hidden=[4]))
    whole = torch.compile(model, backend="aot_eager", fullgraph=True)
    inputs = torch.randn(4, 3)
    assert torch.equal(whole(inputs).predictions["a"], model(inputs).predictions["a"])


@pytest.mark.usefixtures("_quick_compiler")
def test_what_cannot_be_compiled_is_refused_before_the_run(mtlrun, monkeypatch):
    keys = ["vmap_backward", "checkpoint_activations", "stream_rows"]
    code, _, err = mtlrun(*TWO, "trainer.compile=true", *(f"trainer.{key}=true" for key in keys), "weighting=pcgrad")
    assert code == 2
    for key in keys:
        assert f"trainer.{key}=true: " in err
        assert f"use trainer.{key}=false or trainer.compile=false" in err
    monkeypatch.setattr(compiled, "BACKEND", "no_such_compiler")
    code, _, err = mtlrun(*TWO, "trainer.compile=true")
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith("mtlrun: trainer.compile=true: PyTorch cannot compile the model (")
    assert line.endswith("use trainer.compile=false")
    assert run_folders() == []


@pytest.mark.usefixtures("_quick_compiler")
def test_a_compiled_run_that_diverges_names_the_task(mtlrun, monkeypatch):
    """Each task's gradient is looked at, through a graph that was compiled to be walked once."""
    loss = Classification.loss
    monkeypatch.setattr(
        Classification, "loss",
        lambda self, *pair: loss(self, *pair) + 0 * (pair[0] - pair[0].detach()).sum().sqrt(),
    )  # fmt: skip
    code, _, err = mtlrun(*TWO, "trainer.compile=true", "weighting=equal")
    assert code == 3
    assert "the gradient of task left is not finite" in err
