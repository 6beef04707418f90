"""Precision, compiled models and fused optimizers on a GPU, beside the CPU."""

from itertools import pairwise

import pytest
import torch
from helpers import read_lines, read_record, run_folders
from test_precision import KINDS, TINY, chosen, update
from test_skipped_steps import METHODS, SHORT, train

from mtlrun.config.compose import compose
from mtlrun.gradients.gram import inner_products
from mtlrun.runs.run import run
from mtlrun.setup.prepare import prepare

pytestmark = pytest.mark.gpu

ON_GPU = [word for word in TINY if not word.startswith("runtime.device")] + ["runtime.device=cuda"]
#: By how much the direction of an update may differ from that of float32 on the CPU.
TOLERANCE = {"fp32": 1e-5, "tf32": 1e-3, "bf16": 0.05, "fp16": 0.01}


@pytest.fixture(autouse=True)
def _needs_cuda():
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, True  # PyTorch's defaults


@pytest.mark.parametrize("weighting", KINDS)
@pytest.mark.parametrize("precision", TOLERANCE)
def test_an_update_is_that_of_the_cpu_up_to_rounding(weighting, precision):
    _, expected, exact = update(*chosen("hard", weighting))
    parts, made, gradients = update(*chosen("hard", weighting), f"trainer.precision={precision}", tiny=ON_GPU)
    assert parts.device.type == "cuda"
    assert made.losses.dtype == torch.float32
    torch.testing.assert_close(made.losses.cpu(), expected.losses, rtol=0.02, atol=0.02)
    assert torch.cosine_similarity(gradients, exact, dim=0) > 1 - TOLERANCE[precision]


def test_float32_has_all_of_its_digits_and_products_of_gradients_have_them_under_tf32():
    for precision, low, high in [("tf32", 1e-5, 1e-2), ("fp32", 0, 1e-5)]:
        prepare(compose([*ON_GPU, f"trainer.precision={precision}"]))
        first, second = torch.randn(2, 512, 512, device="cuda").unbind()
        exact = first.double() @ second.double()
        error = ((first @ second).double() - exact).norm() / exact.norm()
        assert low <= error < high
        images, kernels = torch.randn(8, 64, 16, 16, device="cuda"), torch.randn(64, 64, 3, 3, device="cuda")
        exact = torch.nn.functional.conv2d(images.double(), kernels.double())
        error = (torch.nn.functional.conv2d(images, kernels).double() - exact).norm() / exact.norm()
        assert error < high  # under TF32 cuDNN may still choose an algorithm without it
        rows = torch.randn(3, 100_000, device="cuda")
        products = rows.double() @ rows.double().T
        found = inner_products([[row] for row in rows])
        assert (found - products).abs().max() / products.abs().max() < 1e-6


@pytest.mark.parametrize("weighting", METHODS)
def test_a_step_that_exceeds_float16_is_skipped_on_a_gpu(weighting, monkeypatch):
    words = [f"weighting={weighting}", "runtime.device=cuda"]
    record, trainer, states = train(monkeypatch, *words, steps=(3, 4))
    moved = [any(not torch.equal(a, b) for a, b in zip(*pair, strict=True)) for pair in pairwise(states)]
    assert moved == [step not in (3, 4) for step in range(1, 8)]
    assert trainer.guard.reads_at_once == (weighting != "equal")
    assert (record.steps, record.skipped_steps) == (8, 2)
    assert [line["train/skipped_steps"] for line in read_lines(run_folders()[0], "train")][-1] == 2


@pytest.mark.parametrize("weighting", ["equal", "pcgrad", "upgrad"])
def test_what_is_compiled_for_a_gpu_learns_the_same(weighting):
    words = [word for word in SHORT if not word.startswith(("runtime.device", "trainer.precision"))]
    states = []
    for key in ("false", "true"):
        study = f"runtime.study=compiled_{key}"
        run(compose([*words, "runtime.device=cuda", f"weighting={weighting}", f"trainer.compile={key}", study]))
        (folder,) = run_folders(f"outputs/compiled_{key}")
        states.append(torch.load(folder / "checkpoints" / "best.pt", weights_only=True)["model_states"][0])
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-3, atol=1e-4)


def test_channels_last_gives_the_same_update_on_a_residual_network():
    words = ["backbone=resnet18", "backbone.width=0.25", "backbone.stem=small", "weighting=pcgrad"]
    images = [*words, *ON_GPU[2:]]
    parts, _, gradients = update("trainer.channels_last=true", tiny=images)
    assert any(each.is_contiguous(memory_format=torch.channels_last) and not each.is_contiguous()
               for each in parts.model.parameters() if each.dim() == 4)  # fmt: skip
    _, _, exact = update(tiny=images)
    assert torch.cosine_similarity(gradients, exact, dim=0) > 0.999


def test_the_optimizer_is_fused_unless_the_config_chooses():
    for words, fused in [([], True), (["+optimizer.fused=false"], False)]:
        parts = prepare(compose([*ON_GPU, *words]))
        assert bool(parts.optimizer.defaults["fused"]) == fused
    run(compose([*SHORT, "runtime.device=cuda"]))
    environment = read_record(run_folders()[0])["environment"]
    assert environment["fused_optimizer"] is True
    assert environment["tf32"] is False
