"""Memory on a GPU: what saves it takes less there, and a step without room ends with one line."""

from functools import partial

import pytest
import torch
from torch import nn

from mtlrun.gradients import GradientStep
from mtlrun.models import HardSharing
from mtlrun.models.backbones import ResNet
from mtlrun.models.blocks.checkpointed import checkpoint_activations
from mtlrun.tasks import Classification
from mtlrun.training.forward import ModelSharing
from mtlrun.weightings import UPGrad

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU"),
]

NUM_TASKS = 8


def peak_of_step(way, batch_size):
    """Return the peak of the second step of UPGrad on a ResNet-18 beyond what is there before it, in MiB."""
    device = torch.device("cuda")
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = False  # by which algorithms may be chosen that take more room
    tasks = {f"task{index}": Classification(10) for index in range(NUM_TASKS)}
    model = HardSharing(tasks, partial(ResNet, (3, 32, 32), stem="small")).to(device)
    model.cuts_trunk = "stream_rows" in way
    if "checkpoint_activations" in way:
        checkpoint_activations(model)
    weighting = UPGrad()
    weighting.setup(NUM_TASKS)
    inputs, labels = torch.randn(batch_size, 3, 32, 32, device=device), torch.randint(10, (batch_size,), device=device)
    for _ in range(2):  # the first step lets libraries take what they keep
        model.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        output = model(inputs)
        losses = [nn.functional.cross_entropy(value, labels) for value in output.predictions.values()]
        sharing = ModelSharing(model).of(list(tasks))
        step = GradientStep(weighting, sharing, two_pass=way != "plain")
        step.add(losses, representation=output.representation, cuts=output.cuts)
        step.finish()
        del output, losses, step
        torch.cuda.synchronize()
        peak = (torch.cuda.max_memory_allocated() - before) / 2**20
    return peak


def test_peak_memory_falls_from_key_to_key():
    few = {way: peak_of_step(way, 8) for way in ("plain", "two_pass", "stream_rows")}
    many = {way: peak_of_step(way, 256) for way in ("stream_rows", "stream_rows checkpoint_activations")}
    print({way: round(peak) for way, peak in few.items()}, {way: round(peak) for way, peak in many.items()})
    assert few["plain"] >= 0.98 * few["two_pass"]
    assert few["stream_rows"] < 0.7 * few["two_pass"]
    assert many["stream_rows checkpoint_activations"] < 0.9 * many["stream_rows"]


def test_gradients_are_equal_up_to_rounding():
    device = torch.device("cuda")
    tasks = {f"task{index}": Classification(10) for index in range(3)}
    torch.manual_seed(0)
    model = HardSharing(tasks, partial(ResNet, (3, 32, 32), stem="small", width=0.25)).to(device)
    inputs, labels = torch.randn(16, 3, 32, 32, device=device), torch.randint(10, (16,), device=device)
    found = {}
    for way in ("plain", "two_pass", "stream_rows", "stream_rows checkpoint_activations"):
        model.zero_grad()
        model.cuts_trunk = "stream_rows" in way
        if "checkpoint_activations" in way:
            checkpoint_activations(model)
        weighting = UPGrad()
        weighting.setup(3)
        output = model(inputs)
        losses = [nn.functional.cross_entropy(value, labels) for value in output.predictions.values()]
        step = GradientStep(weighting, ModelSharing(model).of(list(tasks)), two_pass=way != "plain")
        step.add(losses, representation=output.representation, cuts=output.cuts)
        step.finish()
        found[way] = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    counts = {int(layer.num_batches_tracked) for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)}
    assert counts == {4}
    for way, gradient in found.items():
        assert (gradient - found["plain"]).norm() < 1e-2 * found["plain"].norm(), way  # convolutions may use TF32


def test_a_step_without_room_is_one_line(mtlrun):
    before = (
        torch.cuda.get_per_process_memory_fraction() if hasattr(torch.cuda, "get_per_process_memory_fraction") else 1.0
    )
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + 700 * 2**20) / total))
    try:
        code, _, err = mtlrun(
            "trainer=smoke", "dataset.size=32", "backbone=resnet18", "backbone.stem=small", "weighting=upgrad",
            "trainer.batch_size=512", "runtime.device=cuda", "runtime.quiet=true",
        )  # fmt: skip
    finally:
        torch.cuda.set_per_process_memory_fraction(before)
        torch.cuda.empty_cache()
    assert code == 1
    assert len(err.strip().splitlines()) == 1
    assert "memory of cuda:0" in err  # of a batch that is tried before the run, or of its first step
    assert "what would help, first things first: trainer.micro_batches=2, trainer.two_pass=true" in err
