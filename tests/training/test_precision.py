"""Precision: a model's passes in half precision, and losses, metrics, rows and products in float32 at least."""

import json
from pathlib import Path

import pytest
import torch
from helpers import QUICK, choose_weighting, read_record, run_folders, sample_of
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mtlrun.cli.main import dispatch
from mtlrun.config.compose import compose
from mtlrun.deployment.exporting.export import export
from mtlrun.deployment.predictor import Predictor
from mtlrun.gradients.gram import inner_products as gram
from mtlrun.models import MultiTaskModel, Output
from mtlrun.records.identity import config_hash
from mtlrun.setup.prepare import prepare
from mtlrun.tasks import (
    Classification,
    Count,
    Depth,
    MultiLabel,
    Ordinal,
    Regression,
    Segmentation,
    SurfaceNormals,
)
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.forward import BatchPass, Forward, ModelSharing, positions, run_inputs
from mtlrun.weightings.inner_products import inner_products
from mtlrun.weightings.precision import full_precision

MODELS = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "model").glob("*.yaml"))
#: A weighting of losses, one of gradients by their inner products, one of gradients as they are.
KINDS = ["uncertainty", "pcgrad", "db_mtl"]
#: Models under which tasks share no parameter, so that there are no gradients to combine.
APART = {"single": "equal", "soft": "uncertainty", "soft_trace": "uncertainty", "concat": "uncertainty"}
TINY = [
    "backbone=mlp", "backbone.hidden=[16,8]", "dataset.pairs_per_image=1", "dataset.size=10", "runtime.quiet=true",
    "runtime.device=cpu",
]  # fmt: skip


def chosen(model, weighting):
    """Return the words that choose a model and a weighting."""
    return [f"model={model}", *choose_weighting(weighting, "left"), *["model.init_from=null"] * (model == "concat")]


def update(*words, tiny=TINY):
    """Return the parts of a tiny run, and what its first step makes of 32 samples: losses, and all gradients."""
    parts = prepare(compose([*tiny, *words]))
    parts.model.train()
    batch = LabeledBatch.load(parts.tasks, parts.loaders["train"].first(32), parts.device)
    torch.manual_seed(0)
    forward = Forward(parts.model, batch)
    parts.weighting.active = positions(forward.active, batch)
    made = forward.backward(parts.weighting, ModelSharing(parts.model))
    gradients = [parameter.grad for parameter in parts.model.parameters() if parameter.grad is not None]
    return parts, made, torch.cat([gradient.flatten() for gradient in gradients]).cpu()


@pytest.mark.parametrize(
    ("model", "weighting"),
    sample_of(
        lambda *case: case in {("hard", "pcgrad"), ("mmoe", "uncertainty"), ("adversarial", "db_mtl")},
        [(model, weighting) for model in MODELS for weighting in ([APART[model]] if model in APART else KINDS)],
    ),
)
def test_the_update_in_bfloat16_is_that_of_float32_up_to_its_rounding(model, weighting):
    used = set()
    hook = nn.modules.module.register_module_forward_hook(
        lambda module, _, output: used.add(output.dtype) if isinstance(module, nn.Linear) else None
    )
    try:
        _, made, gradients = update(*chosen(model, weighting), "trainer.precision=bf16")
    finally:
        hook.remove()
    assert torch.bfloat16 in used
    assert gradients.dtype == made.losses.dtype == torch.float32
    _, expected, exact = update(*chosen(model, weighting))
    torch.testing.assert_close(made.losses, expected.losses, rtol=0.02, atol=0.02)
    assert not torch.equal(made.losses, expected.losses)
    assert torch.cosine_similarity(gradients, exact, dim=0) > 0.9


class Given(MultiTaskModel):
    """Predicts what it is given, in half precision."""

    def __init__(self, predictions):
        super().__init__(tuple(predictions))
        self.predictions = predictions

    def forward(self, inputs, tasks=None):
        return Output(dict(self.predictions))

    def parameter_groups(self):
        return []


#: Task, predictions and labels of ordinary sizes, of which half precision makes inf, NaN or an error.
OVERFLOWING = [
    (Depth(), lambda: 10 * torch.rand(2, 1, 288, 384), lambda: 10 * torch.rand(2, 1, 288, 384) + 0.1),
    (Segmentation(13), lambda: torch.randn(2, 13, 288, 384), lambda: torch.randint(13, (2, 288, 384))),
    (MultiLabel(700), lambda: torch.randn(256, 700), lambda: torch.randint(2, (256, 700)).float()),
    (Count(), lambda: torch.full((64, 1), 12.0), lambda: torch.full((64,), 9.0)),
    (SurfaceNormals(), lambda: 300 * torch.randn(2, 3, 96, 96),
     lambda: nn.functional.normalize(torch.randn(2, 3, 96, 96), dim=1)),
    (Regression(criterion="huber"), lambda: torch.randn(64, 1), lambda: torch.randn(64)),
    (Classification(5), lambda: 20 * torch.randn(64, 5), lambda: torch.randint(5, (64,))),
    (Ordinal(5), lambda: 20 * torch.randn(64, 4), lambda: torch.randint(5, (64,))),
]  # fmt: skip


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_losses_in_half_precision_are_those_of_the_rounded_predictions(half):
    for task, prediction, target in OVERFLOWING:
        torch.manual_seed(0)
        rounded, labels = prediction().to(half), target()
        batch = LabeledBatch.load({"t": task}, (torch.zeros(len(labels), 1), {"t": labels}), torch.device("cpu"))
        loss = BatchPass(Given({"t": rounded}), batch).losses["t"]
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss), task
        assert torch.equal(loss, task.loss(rounded.float(), labels)), task


def tf32_switches():
    """Return what PyTorch may round to TF32, as its older and its newer switches have it."""
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return cuda.allow_tf32, cudnn.allow_tf32, cuda.fp32_precision == "tf32", cudnn.conv.fp32_precision == "tf32"


@pytest.fixture
def _switches_put_back():
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, True  # PyTorch's defaults


@pytest.mark.usefixtures("_switches_put_back")
def test_each_run_of_a_process_sets_what_may_be_rounded_to_tf32():
    for precision, allowed in [("tf32", True), ("fp32", False), ("tf32", True), ("bf16", False)]:
        parts = prepare(compose([*TINY, f"trainer.precision={precision}"]))
        assert tf32_switches() == (allowed,) * 4
        assert any("tf32" in note for note in parts.notes) == (precision == "tf32")  # on a CPU, which has none
        assert parts.model.computation.precision == precision


class Products(TorchDispatchMode):
    """Notes at each matrix product whether a GPU could round its factors to TF32, and how large the smaller one is."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.mm.default, torch.ops.aten.bmm.default, torch.ops.aten.addmm.default):
            self.seen.append(torch.backends.cuda.matmul.fp32_precision)
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("_switches_put_back")
@pytest.mark.parametrize("api", ["older", "newer"])
def test_products_of_gradients_keep_their_digits_under_tf32(api):
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    if api == "older":
        matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = True, True
    else:
        matmul.fp32_precision = "tf32"
    rows = torch.randn(3, 5000, device="meta")  # any device but the CPU, which has no TF32
    with Products() as products:
        gram([[row] for row in rows])
        inner_products(rows, rows)
    assert set(products.seen) == {"ieee"}
    assert matmul.fp32_precision == conv.fp32_precision == "tf32"
    if api == "older":
        with full_precision():  # PyTorch raises where its older and newer switches differ
            assert tf32_switches() == (False,) * 4
        assert tf32_switches() == (True,) * 4
        for weighting in ("db_mtl", "bloop"):
            with Products() as products:
                update(*choose_weighting(weighting, "left"), "trainer.precision=tf32")
            assert {"ieee", "tf32"} <= set(products.seen)
    matmul.fp32_precision = "none"


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """Return the folder of a run in bfloat16."""
    folder = tmp_path_factory.mktemp("half")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert dispatch([*QUICK, "trainer.precision=bf16", "weighting=pcgrad"]) == 0
        return run_folders()[0].resolve()


def test_a_run_in_bfloat16_is_another_run_and_what_is_made_of_it_computes_as_it_did(half, mtlrun, tmp_path):
    record = read_record(half)
    assert record["config"]["trainer"]["precision"] == "bf16"
    assert record["run_id"].split("-")[-1] != config_hash(compose([*QUICK, "weighting=pcgrad"]))
    code, _, err = mtlrun("evaluate", str(half), "--out", "again.json")
    assert code == 0, err
    assert json.loads(Path("again.json").read_text())["metrics"] == record["test"]
    predictor = Predictor.load(half)
    inputs = torch.randn(5, *predictor.input_shape)
    outputs = predictor.outputs(inputs)
    assert {output.dtype for output in outputs.values()} == {torch.float32}
    assert all(torch.equal(output, output.bfloat16().float()) for output in outputs.values())
    exported = export(predictor, tmp_path / "model.pt2", "torch")
    assert exported.difference < 1e-5
    program = torch.export.load(exported.path).module()
    for name, found in zip(exported.outputs, program(inputs), strict=True):
        task, part = name.split(".")
        if part == "output":
            assert not torch.equal(found, outputs[task])
            torch.testing.assert_close(found, outputs[task], rtol=0.02, atol=0.02)


def test_what_cannot_be_computed_is_refused_before_the_run(mtlrun):
    for words, message in [
        (["trainer.precision=fp8"], "trainer.precision must be one of 'fp32', 'tf32', 'bf16', 'fp16', found 'fp8'"),
        (["trainer.channels_last=true"], "trainer.channels_last=true is for convolutions, and backbone=mlp has none"),
        (
            ["trainer.channels_last=true", "backbone=resnet18", "backbone.width=0.125"],
            "trainer.channels_last=true: backbone=resnet18 has 1x1 convolutions with strides and fewer than 16 input",
        ),
    ]:
        rest = [word for word in QUICK if not word.startswith("backbone") or "backbone=resnet18" not in words]
        code, _, err = mtlrun(*rest, "runtime.device=cpu", *words)
        assert code == 2
        assert message in err
        assert run_folders() == []


def test_images_with_channels_last_give_the_same_update_up_to_rounding():
    images = ["backbone=convnet", "backbone.channels=[8,16]", *TINY[2:]]
    parts, _, gradients = update("trainer.channels_last=true", tiny=images)
    weights = [parameter for parameter in parts.model.parameters() if parameter.dim() == 4]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    seen = []  # one channel is in either format, several are not
    parts.model.trunk.stages[0].register_forward_hook(lambda *call: seen.append(call[2]))
    run_inputs(parts.model, torch.randn(4, *parts.dataset.input_shape), ())
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    _, _, expected = update(tiny=images)
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-6)
