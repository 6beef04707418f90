"""Crops, scales and flips of images together with their labels."""

import random
from collections import Counter

import pytest
import torch

from mtlrun.datasets import Loader, TensorSplit
from mtlrun.datasets.files.augmentation import SCALES, Augmented, flipped, scaled_crop


def sample(height=6, width=12):
    """Return maps that say where each pixel comes from."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([rows / height, columns / width, torch.full((height, width), 0.5)])
    return image, {
        "segmentation": rows * width + columns,
        "depth": 3.0 + columns[None].float(),
        "normals": torch.stack([torch.full((height, width), 0.6), torch.zeros(height, width), columns.float()]),
    }


def test_a_crop_takes_the_nearest_labels_and_interpolates_the_image():
    image, targets = sample()
    cropped, labels = scaled_crop(image, targets, 1.5, 1, 4, inverse_depth=False)
    assert cropped.shape == image.shape
    # 4 x 8 pixels from (1, 4) on become 6 x 12: middles are at (i + .5) / 1.5 - .5, cut off at the borders.
    assert (labels["segmentation"] // 12)[:, 0].tolist() == [1, 2, 2, 3, 4, 4]
    assert (labels["segmentation"] % 12)[0].tolist() == [4, 5, 5, 6, 7, 7, 8, 9, 9, 10, 11, 11]
    assert labels["segmentation"].dtype == torch.int64
    expected = ((torch.arange(12) + 0.5) / 1.5 - 0.5).clamp(0, 7) + 4
    torch.testing.assert_close(cropped[1, 0] * 12, expected)
    torch.testing.assert_close(labels["normals"][2, 0], (labels["segmentation"] % 12)[0].float())


@pytest.mark.parametrize(("inverse", "factor"), [(False, 1 / 1.5), (True, 1.5)])
def test_scaling_up_makes_depths_smaller(inverse, factor):
    image, targets = sample()
    targets["depth"][:, 2] = 0
    _, labels = scaled_crop(image, targets, 1.5, 0, 0, inverse_depth=inverse)
    expected = (3 + (labels["segmentation"] % 12).float()) * factor
    expected[labels["segmentation"] // 12 == 2] = 0
    torch.testing.assert_close(labels["depth"][0], expected)
    assert (labels["depth"] == 0).any()


def test_scale_one_changes_nothing():
    image, targets = sample()
    cropped, labels = scaled_crop(image, targets, 1.0, 0, 0, inverse_depth=False)
    assert torch.equal(cropped, image)
    assert all(torch.equal(labels[task], targets[task]) for task in targets)


def test_a_flip_negates_the_horizontal_component_of_normals_only():
    image, targets = sample()
    turned, labels = flipped(image, targets)
    assert torch.equal(turned[:, 0], image[:, 0].flip(-1))
    assert labels["segmentation"][0].tolist() == list(range(11, -1, -1))
    assert labels["depth"][0, 0, 0] == 14
    assert torch.equal(labels["normals"][0], torch.full((6, 12), -0.6))
    assert labels["normals"][2, 0].tolist() == list(range(11, -1, -1))


def test_samples_are_cropped_and_flipped_at_random_and_labels_go_with_the_image():
    image, targets = sample(30, 60)
    del targets["normals"]
    split = Augmented(
        TensorSplit(image[None], {task: target[None] for task, target in targets.items()}), inverse_depth=False
    )
    random.seed(0)
    scales, flips, corners = Counter(), 0, set()
    for _ in range(300):
        found, labels = split[0]
        columns = labels["segmentation"] % 60
        scale = float((3 + columns[0, 0]) / labels["depth"][0, 0, 0])
        scales[round(scale, 3)] += 1
        flips += bool(columns[0, 0] > columns[0, -1])
        corners.add((scale > 1.1, int(labels["segmentation"].min())))
        assert ((found[1] * 60 - columns).abs() <= 0.51).all()
        assert ((found[0] * 30 - labels["segmentation"] // 60).abs() <= 0.51).all()
    assert set(scales) == set(SCALES)
    assert min(scales.values()) > 70
    assert 120 < flips < 180
    assert len(corners) > 100
    assert torch.equal(split.targets["segmentation"][0], targets["segmentation"])


def test_augmentation_follows_the_generator():
    image, targets = sample()
    split = Augmented(
        TensorSplit(image[None], {task: target[None] for task, target in targets.items()}), inverse_depth=True
    )

    def draw():
        random.seed(3)
        return torch.stack([split[0][0] for _ in range(5)])

    assert torch.equal(draw(), draw())


def test_augmentation_keeps_all_attributes_of_the_split():
    image, targets = sample()
    plain = TensorSplit(
        torch.stack([image, image]),
        {task: torch.stack([target, target]) for task, target in targets.items()},
        sample_ids=["a", "b"],
        sources={"one": torch.tensor([1]), "other": torch.tensor([0])},
        sample_weights=torch.tensor([0.5, 2.0]),
    )
    split = Augmented(plain, inverse_depth=False)
    for name in ("targets", "sample_ids", "sources", "sample_weights"):
        assert getattr(split, name) is getattr(plain, name)
    loader = Loader(split, 2, shuffle=False, per_source=True)
    (batch,) = loader.batches()
    assert {source: weights.tolist() for source, (_, _, weights) in batch.items()} == {"one": [2.0], "other": [0.5]}
