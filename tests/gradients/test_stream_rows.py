"""`trainer.stream_rows`: task gradients are taken and dropped segment by segment, and the update is the same."""

import copy
import itertools
from functools import partial

import pytest
import torch
from alive_bytes import AliveBytes
from helpers import QUICK, read_record, run_folders, sample_of, shipped_node
from test_micro_batches import TASKS, configured
from test_two_pass import NAMES, OPTIONS, assert_equal, train
from torch import nn

from mtlrun.config.instantiate import build
from mtlrun.config.settings import Settings
from mtlrun.gradients import GradientStep, gram, streaming
from mtlrun.models import HardSharing
from mtlrun.models.backbones import MLP, Backbone, ResNet
from mtlrun.models.blocks.checkpointed import checkpoint_activations
from mtlrun.models.computation import Computation
from mtlrun.models.gradient_scale import GradientScale
from mtlrun.setup.memory_keys import check_memory_keys
from mtlrun.tasks import Classification
from mtlrun.training.forward import ModelSharing
from mtlrun.weightings import UPGrad

NAMES = [name for name in NAMES if name != "mgda_ub"]
BACKBONES = [(name,) for name in ("convnet", "convnext", "lenet", "mlp", "mobilenet", "resnet18", "segnet", "vit")]


@pytest.fixture
def small_segments(monkeypatch):
    """Let each link be a segment."""

    def everywhere(ends, sizes):
        return (0, *(place for place, end in enumerate(ends, start=1) if end is not None))

    monkeypatch.setattr(streaming, "choose_cuts", everywhere)


def cutting(backbone, tasks=TASKS, **options):
    torch.manual_seed(0)
    model = HardSharing(tasks, backbone, **options).double()
    model.cuts_trunk = True
    return model


def plain(model):
    twin = copy.deepcopy(model)
    twin.cuts_trunk = False
    return twin


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("name", sample_of(lambda name: NAMES.index(name) % 4 == 3, [(name,) for name in NAMES]))
def test_every_method_makes_the_update_of_kept_task_gradients(name):
    options = list(OPTIONS.values())[NAMES.index(name) % len(OPTIONS)]
    model = cutting(partial(MLP, (5,), hidden=[6, 6, 4], residual=True))
    twin, missing = plain(model), "update_weights_every" not in options
    found = train(configured(name, **options), model, two_pass=True, missing=missing)
    assert_equal(found, train(configured(name, **options), twin, two_pass=False, missing=missing), model, twin)


def gradients_by(model, inputs, two_pass, scale=1.0):
    """Return the Gram matrix and the gradients of all parameters after a step on squared outputs."""
    weighting, sharing = UPGrad(), ModelSharing(model)
    weighting.setup(3)
    model.zero_grad()
    torch.manual_seed(1)
    output = model.computation.run(model, inputs, None)
    targets = {
        task: torch.linspace(-1, 1, steps=value[0].numel()).to(value) for task, value in output.predictions.items()
    }
    losses = [
        scale * (value - targets[task].view_as(value[0])).square().mean() for task, value in output.predictions.items()
    ]
    step = GradientStep(weighting, sharing.of(list(output.predictions)), two_pass=two_pass)
    step.add(losses, representation=output.representation, cuts=output.cuts)
    gram = step.finish().gram
    return gram, {name: parameter.grad for name, parameter in model.named_parameters()}


def check_gradients(model, inputs, scale=1.0):
    model.train()
    gram, found = gradients_by(model, inputs, True, scale)
    expected_gram, expected = gradients_by(plain(model), inputs, False, scale)
    assert gram.abs().max() > 0
    torch.testing.assert_close(gram / gram.diagonal().max(), expected_gram / gram.diagonal().max(), rtol=1e-7, atol=0)
    for name, gradient in expected.items():
        assert (gradient is None) == (found[name] is None), name
        if gradient is not None:
            torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("name", sample_of(lambda name: name in ("segnet", "vit"), BACKBONES))
def test_every_backbone_gives_the_gradients_of_one_pass_through_all_of_it(name):
    factory = build(
        shipped_node("backbone", name) | {"width": 0.125}, "backbone", partial=True, input_shape=(3, 16, 16)
    )
    model = cutting(factory, TASKS if name == "lenet" else dict(itertools.islice(TASKS.items(), 3)))
    inputs = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    check_gradients(model, inputs)
    checkpoint_activations(model)
    check_gradients(model, inputs)


@pytest.mark.usefixtures("small_segments")
def test_what_is_changed_in_place_is_no_end_of_a_segment():
    model = cutting(partial(MLP, (5,), hidden=[6, 5, 4]))
    model.trunk.stages[0].pop(-1)
    model.trunk.stages[1].insert(0, nn.LeakyReLU(0.5, inplace=True))
    model.trunk.stages[2].insert(1, nn.Linear(4, 4).double())
    model.train()
    cuts = model(torch.randn(2, 5, dtype=torch.float64)).cuts
    assert [cut is None for cut in cuts] == [True, False, False, False]
    check_gradients(model, torch.randn(6, 5, dtype=torch.float64))


@pytest.mark.usefixtures("small_segments")
def test_frozen_stages_end_the_way_back():
    for frozen in ([0], [1], [0, 1]):
        model = cutting(partial(MLP, (5,), hidden=[6, 5, 4]))
        for index in frozen:
            model.trunk.stages[index].requires_grad_(False)
        check_gradients(model, torch.randn(6, 5, dtype=torch.float64))


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_gradients_in_half_precision_are_those_of_one_pass(precision):
    model = cutting(partial(ResNet, (3, 16, 16), stem="small", width=0.125)).float().train()
    model.computation = Computation(precision)
    if precision == "fp16":
        model.computation.scale = GradientScale(torch.device("cpu"))
        model.computation.scale.unscale_at(model.parameters())
    inputs = torch.randn(4, 3, 16, 16)
    gram, found = gradients_by(model, inputs, True, 1e-3)  # larger losses exceed float16 at this scale
    model.cuts_trunk = False
    expected_gram, expected = gradients_by(model, inputs, False, 1e-3)
    torch.testing.assert_close(gram, expected_gram, rtol=1e-3, atol=1e-3 * float(expected_gram.max()))
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() < 0.03 * gradient.norm(), name


@pytest.mark.usefixtures("small_segments")
def test_gradients_that_float32_cannot_square_have_their_inner_products():
    for scale in (1e-26, 1e24):
        model = cutting(partial(MLP, (5,), hidden=[6, 5])).float()
        inputs = torch.randn(6, 5)
        gram, _ = gradients_by(model, inputs, True, scale)
        expected, _ = gradients_by(plain(model).double(), inputs.double(), False, scale)
        torch.testing.assert_close(gram, expected, rtol=1e-4, atol=0)


def test_segments_are_chosen_so_that_the_largest_needs_least():
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        count = int(torch.randint(1, 6, (), generator=generator))
        ends, sizes = (tuple(torch.randint(0, 9, (count,), generator=generator).tolist()) for _ in range(2))
        ends = (*(end or None for end in ends[:-1]), ends[-1])

        def need(cuts, ends=ends, sizes=sizes):
            before = (0, *ends)
            return max(max(before[b], sum(sizes[a:b]) + before[a]) for a, b in itertools.pairwise(cuts))

        inner = [place for place in range(1, count) if ends[place - 1] is not None]
        choices = [(0, *chosen, count) for size in range(count) for chosen in itertools.combinations(inner, size)]
        least = min(map(need, choices))
        found = streaming.choose_cuts(ends, sizes)
        assert need(found) == least
        assert len(found) == min(len(choice) for choice in choices if need(choice) == least)


class Skipping(Backbone):
    """Three stages, of which the last one sees what the first one puts out."""

    def __init__(self):
        super().__init__([nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 3)], (5,))

    def stage(self, index, features, cache):
        features = self.stages[index](features * cache["first"] if index == 2 else features)
        if index == 0:
            cache["first"] = features
        return features


def test_stages_that_do_not_just_follow_one_another_are_refused():
    with torch.no_grad(), pytest.raises(RuntimeError, match="stages after stage 0 of Skipping see more than its"):
        cutting(Skipping).train()(torch.randn(2, 5, dtype=torch.float64))


def peak_of_step(way, num_tasks=8):
    """Return how much memory a step takes at its peak, beside the parameters, in units of the shared parameters."""
    tasks = {f"task{index}": Classification(2) for index in range(num_tasks)}
    model = HardSharing(tasks, partial(ResNet, (3, 16, 16), stem="small", width=0.25))
    model.cuts_trunk = "stream_rows" in way
    if "checkpoint_activations" in way:
        checkpoint_activations(model)
    weighting = None if way == "equal" else UPGrad(grad_wrt="representation" if "representation" in way else "shared")
    inputs, labels = torch.randn(8, 3, 16, 16), torch.randint(2, (8,))
    with AliveBytes(model.parameters()) as tensors:
        output = model(inputs)
        losses = [nn.functional.cross_entropy(value, labels) for value in output.predictions.values()]
        if weighting is None:
            torch.stack(losses).sum().backward()
        else:
            weighting.setup(num_tasks)
            two_pass = "two_pass" in way or "stream_rows" in way
            step = GradientStep(weighting, ModelSharing(model).of(list(tasks)), two_pass=two_pass)
            step.add(losses, representation=output.representation, cuts=output.cuts)
            step.finish()
    return tensors.peak / sum(parameter.nbytes for parameter in model.trunk.parameters())


def test_less_memory_is_taken(monkeypatch):
    monkeypatch.setattr(gram, "_ENTRIES", 2**13)  # a small network is then like a large one
    ways = [
        "upgrad", "two_pass", "stream_rows", "stream_rows checkpoint_activations", "representation",
        "representation checkpoint_activations", "equal",
    ]  # fmt: skip
    peaks = {way: peak_of_step(way) for way in ways}
    for way, peak in peaks.items():
        print(f"{way:40} {peak:5.1f} P")
    assert peaks["upgrad"] > 9
    assert peaks["stream_rows"] < 0.55 * peaks["upgrad"]
    falling = [peaks[way] for way in ways if way != "two_pass" and way != "equal"]
    assert falling == sorted(falling, reverse=True)


def test_a_run_trains_alike_and_records_its_passes(quick):
    results = []
    for arguments in ([], ["trainer.stream_rows=true", "trainer.checkpoint_activations=true"]):
        record = read_record(quick("weighting=upgrad", *arguments))
        results.append(record["val"]["left"]["loss"])
    assert record["passes_per_step"] == {"forward": 1, "backward": 3}
    assert results[1] == pytest.approx(results[0], rel=1e-4)


def test_parameters_outside_of_stages_are_refused():
    class Scaled(MLP):
        def __init__(self):
            super().__init__((5,), hidden=[4])
            self.scale = nn.Parameter(torch.ones(()))

    names = {"names": {"weighting": "upgrad", "model": "hard"}}
    (problem,) = check_memory_keys(Settings(stream_rows=True), UPGrad(), HardSharing(TASKS, Scaled), None, names)
    assert "the backbone of model=hard has parameters that do not belong to exactly one of its stages" in problem
    assert check_memory_keys(Settings(stream_rows=True), UPGrad(), cutting(partial(MLP, (5,))), None, names) == []


def test_what_has_no_stages_to_go_back_through_is_refused(mtlrun):
    for arguments, reason in {
        ("weighting=equal",): "weighting=equal makes one backward pass as it is; use trainer.stream_rows=false",
        ("weighting=mgda_ub",): "weighting.grad_wrt=representation takes no gradients of all shared parameters",
        ("weighting=mgda", "trainer.micro_batches=2"): "the task gradients of micro-batches are summed up as a whole",
        ("weighting=mgda", "trainer.vmap_backward=true"): "trainer.vmap_backward=true makes the tasks' backward passes",
        ("weighting=mgda", "model=cross_stitch"): "model=cross_stitch has no shared part that is a chain",
    }.items():
        code, _, err = mtlrun(*QUICK, *arguments, "trainer.stream_rows=true")
        assert (code, f"trainer.stream_rows=true: {reason}" in err) == (2, True), err
        assert not run_folders()
