"""The head for boxes: its levels, its cells, and what goes with it."""

from functools import partial

import pytest
import torch
from torch import nn

from mtlrun.models import HardSharing, SingleTask
from mtlrun.models.heads import DetectionHead
from mtlrun.tasks import Detection, Regression
from mtlrun.tasks.losses.boxes import image_size

make = partial(DetectionHead, channels=32, num_convs=1)


@pytest.fixture
def with_boxes():
    """Return a task with boxes, and one that predicts two numbers per sample."""
    return {"things": Detection(3, head=make), "place": Regression(2)}


@pytest.mark.parametrize(
    ("places", "size", "strides"),
    [
        ((10, 10), (320, 320), [8, 16, 32]),  # a ResNet's 1/32
        ((20, 20), (320, 320), [8, 16, 32]),  # a ViT's 1/16
        ((8, 8), (64, 64), [4, 8]),
        ((2, 2), (64, 64), [4, 8]),
        ((1, 1), (32, 32), [2, 4]),
        ((32, 64), (512, 1024), [8, 16, 32, 64, 128]),
        ((16, 16), (16, 16), [1, 2]),
        ((1, 1), (1024, 1024), [64, 128]),  # 16 times as large as the map at most
    ],
)
def test_levels_are_fine_enough_for_small_objects_and_coarse_enough_for_large_ones(places, size, strides):
    head = DetectionHead((4, *places), (2, *size), channels=32, num_convs=0)
    assert [head.stride[0] / scale for scale in head.scales] == strides


def test_cells_lie_side_by_side_and_fill_the_image():
    head = make((4, 4, 6), (3, 32, 48), scales=[2, 1, 0.5])
    prediction = head(torch.randn(2, 4, 4, 6))
    assert prediction.shape == (2, 8 * 12 + 4 * 6 + 2 * 3, 3 + 9)
    assert image_size(prediction) == (32, 48)
    cells = prediction[..., -4:]
    assert torch.equal(cells[0], cells[1])
    assert cells[0, :2].tolist() == [[0, 0, 4, 4], [4, 0, 8, 4]]
    assert cells[0, 12].tolist() == [0, 4, 4, 8]
    for level, stride in zip(cells[0].split([96, 24, 6]), [4, 8, 16], strict=True):
        assert ((level[:, 2:] - level[:, :2]) == stride).all()
        assert len(level.unique(dim=0)) == len(level) == 32 * 48 / stride**2


def test_cells_lie_where_the_features_are_that_predict_there():
    """One feature that differs moves the predictions around its place most, at each level."""
    head = make((4, 8, 8), (3, 64, 64), scales=[4, 2, 1]).double()
    for module in list(head.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, nn.GroupNorm):
                setattr(module, name, nn.Identity())  # it looks at all places
    maps = torch.zeros(2, 4, 8, 8, dtype=torch.float64)
    maps[1, :, 2, 5] = 3.0  # pixels 16..24 down and 40..48 to the right
    with torch.no_grad():
        prediction = head(maps)
    moved = (prediction[1, :, :3] - prediction[0, :, :3]).abs().sum(dim=1)
    levels = [1024, 256, 64]
    for level, cells in zip(moved.square().split(levels), prediction[0, :, -4:].split(levels), strict=True):
        x, y = (level[:, None] * (cells[:, :2] + cells[:, 2:]) / 2).sum(dim=0) / level.sum()
        assert (x.item(), y.item()) == pytest.approx((44, 20), abs=6)


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (8, 3)])
def test_maps_of_any_size_are_taken(size):
    head = make((4, 8, 8), (3, 64, 64))
    maps = torch.randn(2, 4, *size)
    prediction = head(maps)
    assert image_size(prediction) == (size[0] * 8, size[1] * 8)
    assert prediction[..., 3:7].min() >= 0
    (-prediction.square().sum()).backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_it_starts_with_low_scores_and_the_papers_layers():
    head = DetectionHead((4, 8, 8), (3, 64, 64)).eval()
    logits = head(torch.randn(2, 4, 8, 8))[..., :3]
    assert logits.sigmoid().mean().item() == pytest.approx(0.01, rel=0.2)
    for branch in (head.head.classification_head, head.head.regression_head):
        convolutions = [layer for layer in branch.conv if isinstance(layer, nn.Conv2d)]
        assert [layer.out_channels for layer in convolutions] == [256] * 4


def test_the_head_follows_from_the_task(maps, make_inputs, with_boxes):
    model = HardSharing(with_boxes, maps.make)
    assert model(make_inputs(maps)).predictions["things"].shape[2] == 3 + 9
    assert isinstance(HardSharing({"things": Detection(3)}, maps.make).heads["things"], DetectionHead)
    _, head = SingleTask(with_boxes, maps.make).networks["things"]
    assert isinstance(head, DetectionHead)


def test_it_learns_one_image():
    head, task = make((4, 8, 8), (2, 64, 64), scales=[1]), Detection(2)
    features = torch.randn(1, 4, 8, 8)
    objects = torch.tensor([[[8.0, 8, 24, 28, 1, 0], [30, 20, 60, 60, 0, 0]]])
    optimizer = torch.optim.Adam(head.parameters(), 1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        loss = task.loss(head(features), objects)
        loss.backward()
        optimizer.step()
    meter = task.meter()
    meter.update(head.eval()(features).detach(), objects)
    assert meter.compute()["map50"] > 0.9


def test_vectors_and_tasks_without_boxes_are_refused(mlp, with_boxes):
    with pytest.raises(ValueError, match="DetectionHead predicts at each place and needs feature maps, found vectors"):
        HardSharing(with_boxes, mlp.make)
    with pytest.raises(ValueError, match="DetectionHead predicts boxes in an image, and the task wants 2 numbers"):
        make((4, 8, 8), (2,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 48}, "channels must be a multiple of 32, found 48"),
        ({"channels": 0}, "channels must be >= 1, found 0"),
        ({"num_convs": -1}, "num_convs must be >= 0, found -1"),
        ({"scales": []}, r"scales must be falling powers of two from 16 to 0\.0625, as in \[4, 2, 1\], found \[\]"),
        ({"scales": [1, 2]}, r"scales must be falling .*found \[1, 2\]"),
        ({"scales": [3]}, r"scales must be falling .*found \[3\]"),
        ({"scales": [2, 2]}, r"scales must be falling .*found \[2, 2\]"),
        ({"scales": [32]}, r"scales must be falling .*found \[32\]"),
    ],
)
def test_arguments_out_of_bounds_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        DetectionHead((4, 8, 8), (2, 64, 64), **options)
