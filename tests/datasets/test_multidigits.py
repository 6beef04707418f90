"""multidigits, against scikit-learn's digits."""

import hashlib
import importlib.util
import json
import random

import numpy
import pytest
import torch
from sklearn.datasets import load_digits

from mtlrun.datasets import SPLITS, MultiDigits, multidigits

DIGITS = load_digits()
SIZES = {"train": 1077, "val": 360, "test": 360}
SHIFT = 2


def overlay(left, right, shift=SHIFT):
    """Overlay grey levels [..., 8, 8] pixel by pixel, the brighter one winning."""
    canvas = numpy.zeros((2, *numpy.broadcast_shapes(left.shape, right.shape)[:-2], 8 + shift, 8 + shift))
    canvas[0, ..., :8, :8] = left
    canvas[1, ..., shift:, shift:] = right
    return canvas.max(axis=0)


def grey_levels(inputs):
    """Undo the normalization: black is 0 and the brightest pixel 16, as in the source."""
    scaled = (inputs - inputs.min()) / (inputs.max() - inputs.min()) * 16
    assert (scaled - scaled.round()).abs().max() < 1e-4
    return scaled.round().squeeze(1).numpy()


@pytest.fixture(scope="module")
def unresized():
    """A dataset in which resizing changes nothing."""
    return MultiDigits(pairs_per_image=2, shift=SHIFT, size=8 + SHIFT)


@pytest.mark.parametrize("name", SPLITS)
def test_splits_have_their_sizes(name):
    split = MultiDigits(pairs_per_image=3).split(name)
    assert split.inputs.shape == (3 * SIZES[name], 1, 28, 28)
    assert split.inputs.dtype == torch.float32
    assert {task: tuple(target.shape) for task, target in split.targets.items()} == {
        "left": (3 * SIZES[name],),
        "right": (3 * SIZES[name],),
    }
    assert all(target.dtype == torch.int64 for target in split.targets.values())


def test_digits_are_scikit_learns_wherever_it_keeps_them(monkeypatch):
    for find in (importlib.util.find_spec, lambda name: None):
        monkeypatch.setattr("mtlrun.datasets.multidigits.importlib.util.find_spec", find)
        images, labels = multidigits._load_digits()
        assert images.shape == (1797, 8, 8)
        assert (images == DIGITS.images).all()
        assert (labels == DIGITS.target).all()


def test_default_is_ten_pairs_per_image():
    assert len(MultiDigits().split("val")) == 3600


def test_input_shape_and_task_names_are_those_of_the_samples(unresized):
    image, targets = unresized.split("val")[0]
    assert tuple(image.shape) == unresized.input_shape == (1, 10, 10)
    assert tuple(targets) == unresized.task_names == ("left", "right")


@pytest.mark.parametrize("name", SPLITS)
def test_identifiers_are_the_places_of_both_digits_in_the_source(unresized, name):
    split = unresized.split(name)
    left, right = numpy.array(json.loads(json.dumps(split.sample_ids))).T
    assert (grey_levels(split.inputs) == overlay(DIGITS.images[left], DIGITS.images[right])).all()


def test_every_source_image_is_in_exactly_one_split(unresized):
    indices = numpy.concatenate([unresized.source_indices[name] for name in SPLITS])
    assert sorted(indices) == list(range(1797))
    assert {name: len(unresized.source_indices[name]) for name in SPLITS} == SIZES


@pytest.mark.parametrize("name", SPLITS)
def test_splits_have_the_digits_in_equal_proportion(unresized, name):
    counts = numpy.bincount(DIGITS.target[unresized.source_indices[name]], minlength=10)
    expected = numpy.bincount(DIGITS.target) * SIZES[name] / 1797
    assert numpy.abs(counts - expected).max() <= 1


@pytest.mark.parametrize("name", SPLITS)
def test_images_are_overlays_of_two_images_of_the_split_with_the_given_labels(unresized, name):
    split, sources = unresized.split(name), unresized.source_indices[name]
    images = grey_levels(split.inputs)
    left, right = (split.targets[task].numpy() for task in ("left", "right"))
    assert (left == DIGITS.target[numpy.tile(sources, 2)]).all()
    for index, image in enumerate(images):
        source = sources[index % len(sources)]
        partners = sources[(DIGITS.target[sources] == right[index]) & (sources != source)]
        candidates = overlay(DIGITS.images[source], DIGITS.images[partners])
        assert (candidates == image).all(axis=(1, 2)).any(), index


def test_each_image_is_the_left_one_pairs_per_image_times(unresized):
    images = grey_levels(unresized.split("val").inputs)
    assert (images[:360, :SHIFT] == images[360:, :SHIFT]).all()
    assert (images[:360] != images[360:]).any(axis=(1, 2)).mean() > 0.9


def test_digits_that_are_shifted_by_their_size_do_not_overlap():
    images = grey_levels(MultiDigits(pairs_per_image=1, shift=8, size=16).split("val").inputs)
    assert (images[:, :8, 8:] == 0).all()
    assert (images[:, 8:, :8] == 0).all()
    sources = MultiDigits().source_indices["val"]
    assert (images[:, :8, :8] == DIGITS.images[sources]).all()


def test_resizing_is_bilinear(unresized):
    resized = MultiDigits(pairs_per_image=2, shift=SHIFT, size=28).split("val").inputs
    expected = torch.nn.functional.interpolate(unresized.split("val").inputs, (28, 28), mode="bilinear")
    torch.testing.assert_close(resized, expected, rtol=0, atol=1e-5)


def test_training_inputs_have_mean_zero_and_spread_one():
    inputs = MultiDigits().split("train").inputs
    assert inputs.mean().item() == pytest.approx(0, abs=0.01)
    assert inputs.std().item() == pytest.approx(1, abs=0.01)


def test_data_do_not_depend_on_the_global_random_state_and_leave_it_alone():
    def build(seed):
        random.seed(seed)
        numpy.random.seed(seed)
        torch.manual_seed(seed)
        before = random.getstate(), numpy.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()
        split = MultiDigits(pairs_per_image=1).split("train")
        after = random.getstate(), numpy.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()
        assert before == after
        return split

    first, second = build(0), build(1)
    assert torch.equal(first.inputs, second.inputs)
    assert torch.equal(first.targets["right"], second.targets["right"])


def test_a_split_can_be_taken_twice_and_in_any_order():
    dataset = MultiDigits(pairs_per_image=1)
    first = dataset.split("test")
    dataset.split("train")
    assert torch.equal(dataset.split("test").inputs, first.inputs)


def test_seed_of_the_pairs_changes_splits_and_pairs():
    one, other = MultiDigits(pairs_per_image=1), MultiDigits(pairs_per_image=1, pairs_seed=1)
    assert set(one.source_indices["val"]) != set(other.source_indices["val"])
    assert not torch.equal(one.split("val").targets["right"], other.split("val").targets["right"])


def test_splits_are_frozen(unresized):
    digest = hashlib.sha256()
    for name in SPLITS:
        split = unresized.split(name)
        digest.update(grey_levels(split.inputs).astype(numpy.uint8).tobytes())
        digest.update(split.targets["left"].numpy().astype(numpy.uint8).tobytes())
        digest.update(split.targets["right"].numpy().astype(numpy.uint8).tobytes())
    # Another value means that published numbers no longer hold for what `dataset=multidigits` gives.
    assert digest.hexdigest() == "b45d8503d948926b80e4ee1d977c57d5096820aff786e7149cd348fc127582ee"


@pytest.mark.parametrize(
    ("argument", "wrong", "bounds"),
    [
        ("pairs_per_image", 0, ">= 1"),
        ("shift", -1, r"in \[0, 8\]"),
        ("shift", 9, r"in \[0, 8\]"),
        ("size", 7, ">= 8"),
        ("pairs_seed", -1, ">= 0"),
    ],
)
def test_arguments_out_of_bounds_are_refused(argument, wrong, bounds):
    with pytest.raises(ValueError, match=f"{argument} must be {bounds}, found {wrong}"):
        MultiDigits(**{argument: wrong})
