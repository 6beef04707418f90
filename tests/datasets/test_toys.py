"""The generated regression problems."""

import hashlib
import random

import numpy
import pytest
import torch
from helpers import read_record, run_folders

from mtlrun.datasets import SPLITS, GradNormToy, KendallToy, MMoESynthetic

SMALL = {"num_train": 30, "num_val": 20, "num_test": 10}
ALL = [KendallToy, GradNormToy, MMoESynthetic]


def test_kendalls_training_split_is_the_published_one():
    numpy.random.seed(0)
    x = numpy.random.randn(100, 1)
    first = 2 * x + 8 + 10 * numpy.random.randn(100, 1)
    second = 3 * x + 3 + numpy.random.randn(100, 1)
    split = KendallToy().split("train")
    assert torch.equal(split.inputs, torch.tensor(x, dtype=torch.float32))
    assert torch.equal(split.targets["first"], torch.tensor(first, dtype=torch.float32))
    assert torch.equal(split.targets["second"], torch.tensor(second, dtype=torch.float32))


def test_kendalls_other_splits_follow_the_same_law():
    split = KendallToy(num_test=20_000).split("test")
    x, first, second = split.inputs, split.targets["first"], split.targets["second"]
    assert x.std().item() == pytest.approx(1, abs=0.03)
    for noise, deviation in ((first - 2 * x - 8, 10), (second - 3 * x - 3, 1)):
        assert noise.mean().item() == pytest.approx(0, abs=0.03 * deviation)
        assert noise.std().item() == pytest.approx(deviation, rel=0.03)


def test_gradnorms_functions_are_those_of_the_paper():
    dataset = GradNormToy(sigmas=[2.0, 50.0], input_size=300, output_size=40, num_train=50)
    split = dataset.split("train")
    assert torch.allclose(split.inputs.norm(dim=1), torch.ones(50))
    first, second = (torch.from_numpy(matrix) for matrix in dataset._matrices)
    # Both have a part in common and a part of their own, of deviations 10 and 3.5.
    assert first.std().item() == pytest.approx(numpy.hypot(10, 3.5), rel=0.03)
    assert (first - second).std().item() == pytest.approx(3.5 * numpy.sqrt(2), rel=0.03)
    for task, sigma, matrix in (("task_0", 2, first), ("task_1", 50, second)):
        expected = sigma * torch.tanh(split.inputs.double() @ matrix)
        assert torch.allclose(split.targets[task].double(), expected, atol=1e-4 * sigma)
        assert expected.abs().max() > 0.99 * sigma


def test_further_tasks_leave_those_before_as_they_are():
    two, three = GradNormToy(**SMALL), GradNormToy([1.0, 100.0, 7.0], **SMALL)
    assert three.task_names == ("task_0", "task_1", "task_2")
    for task in two.task_names:
        assert torch.equal(two.split("val").targets[task], three.split("val").targets[task])


@pytest.mark.parametrize("correlation", [-1.0, 0.0, 0.6, 1.0])
def test_correlation_is_the_cosine_of_the_weights(correlation):
    # Without sines and noise the targets are w.x, and the weights can be read off.
    dataset = MMoESynthetic(correlation, num_features=20, scale=0.7, num_sines=0, noise=0, num_train=50)
    split = dataset.split("train")
    first, second = (
        torch.linalg.lstsq(split.inputs, split.targets[task][:, None]).solution[:, 0] for task in dataset.task_names
    )
    assert first.norm().item() == pytest.approx(0.7, rel=1e-4)
    assert second.norm().item() == pytest.approx(0.7, rel=1e-4)
    assert torch.cosine_similarity(first, second, dim=0).item() == pytest.approx(correlation, abs=1e-4)


def test_sines_and_noise_are_added():
    plain = MMoESynthetic(num_sines=0, noise=0, **SMALL)
    noisy = MMoESynthetic(num_sines=0, noise=0.25, num_train=20_000).split("train")
    weights = torch.linalg.lstsq(noisy.inputs, noisy.targets["first"][:, None]).solution
    rest = noisy.targets["first"] - (noisy.inputs @ weights)[:, 0]
    assert rest.std().item() == pytest.approx(0.25, rel=0.03)
    wavy = MMoESynthetic(num_sines=3, noise=0, **SMALL)
    sines = (wavy.split("val").targets["first"] - plain.split("val").targets["first"]).double()
    projected = plain.split("val").targets["first"].double()
    expected = torch.sin(projected[:, None] * torch.from_numpy(wavy._a) + torch.from_numpy(wavy._b)).sum(dim=1)
    assert torch.allclose(sines, expected, atol=1e-5)
    assert expected.abs().max() > 0.1


def test_correlation_of_the_tasks_rises_with_that_of_the_weights():
    found = []
    for correlation in (0.0, 0.5, 1.0):
        targets = MMoESynthetic(correlation, num_train=5000).split("train").targets
        found.append(torch.corrcoef(torch.stack([targets["first"], targets["second"]]))[0, 1].item())
    assert abs(found[0]) < 0.1
    assert found == sorted(found)
    assert found[2] > 0.5  # the noise is theirs alone


@pytest.mark.parametrize("kind", ALL)
def test_splits_have_their_sizes_and_no_sample_in_common(kind):
    dataset = kind(**SMALL)
    found = [dataset.split(name) for name in SPLITS]
    assert [len(split) for split in found] == [30, 20, 10]
    inputs = torch.cat([split.inputs for split in found])
    assert inputs.shape == (60, *dataset.input_shape)
    assert inputs.dtype == torch.float32
    assert len(inputs.unique(dim=0)) == 60
    assert all(tuple(split.targets) == dataset.task_names for split in found)


@pytest.mark.parametrize("kind", ALL)
def test_data_do_not_depend_on_the_global_random_state_and_leave_it_alone(kind):
    def build(seed):
        random.seed(seed)
        numpy.random.seed(seed)
        torch.manual_seed(seed)
        before = numpy.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()
        split = kind(**SMALL).split("train")
        assert (numpy.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()) == before
        return split

    first, second = build(0), build(1)
    assert torch.equal(first.inputs, second.inputs)
    assert all(torch.equal(target, second.targets[task]) for task, target in first.targets.items())


@pytest.mark.parametrize(
    ("kind", "key"), [(KendallToy, "numpy_seed"), (GradNormToy, "data_seed"), (MMoESynthetic, "data_seed")]
)
def test_seed_of_the_data_changes_them(kind, key):
    one, other = kind(**SMALL), kind(**SMALL, **{key: 1})
    for name in SPLITS:
        assert not torch.equal(one.split(name).inputs, other.split(name).inputs)


@pytest.mark.parametrize(
    ("kind", "digest"),
    [
        (KendallToy, "39e427839c53946f"),
        (GradNormToy, "62ddd5b47b4c2054"),
        (MMoESynthetic, "055b083be97dc60b"),
    ],
)
def test_splits_are_frozen(kind, digest):
    # Another value means that published numbers no longer hold. Rounded: sums depend on the machine in the last digits.
    dataset, found = kind(**SMALL), hashlib.sha256()
    for name in SPLITS:
        split = dataset.split(name)
        for values in (split.inputs, *split.targets.values()):
            found.update((values.double() * 100).round().to(torch.int64).numpy().tobytes())
    assert found.hexdigest()[:16] == digest


@pytest.mark.parametrize(
    ("kind", "argument", "wrong", "bounds"),
    [
        (KendallToy, "num_train", 0, ">= 1"),
        (KendallToy, "numpy_seed", -1, ">= 0"),
        (GradNormToy, "num_val", 0, ">= 1"),
        (GradNormToy, "sigmas", [], r"list one or more numbers > 0"),
        (GradNormToy, "input_size", 0, ">= 1"),
        (GradNormToy, "output_size", 0, ">= 1"),
        (GradNormToy, "data_seed", -1, ">= 0"),
        (MMoESynthetic, "correlation", 1.1, r"in \[-1, 1\]"),
        (MMoESynthetic, "num_features", 1, ">= 2"),
        (MMoESynthetic, "scale", 0.0, "> 0"),
        (MMoESynthetic, "num_sines", -1, ">= 0"),
        (MMoESynthetic, "noise", -0.1, ">= 0"),
        (MMoESynthetic, "num_test", 0, ">= 1"),
    ],
)
def test_arguments_out_of_bounds_are_refused(kind, argument, wrong, bounds):
    shown = str(wrong).replace("[", r"\[").replace("]", r"\]")
    with pytest.raises(ValueError, match=f"{argument} must {'' if 'list' in bounds else 'be '}{bounds}, found {shown}"):
        kind(**{argument: wrong})


@pytest.mark.parametrize(
    ("name", "overrides", "parameters"),
    [
        ("kendall_toy", [], 2 * 1024 + 2 * 1025),
        ("gradnorm_toy", ["+tasks.task_2=${tasks.task_1}", "dataset.sigmas=[1,100,50]"], 25_100 + 6 * 10_100),
        ("mmoe_synthetic", ["dataset.correlation=0.5"], 100 * 16 + 16 + 2 * (16 * 8 + 8 + 9)),
    ],
)
def test_the_program_trains_the_network_of_the_source(name, overrides, parameters, mtlrun):
    sizes = [f"dataset.{key}={value}" for key, value in SMALL.items()]
    code, _, err = mtlrun(f"dataset={name}", "trainer=smoke", "trainer.batch_size=10", *sizes, *overrides)
    assert code == 0, err
    record = read_record(run_folders()[0])
    assert sum(record["parameters"].values()) == parameters
