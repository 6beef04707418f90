"""Pictures of what dense tasks predict, in TensorBoard."""

import io

import numpy
import pytest
import torch
from helpers import QUICK, run_folders
from PIL import Image, ImageFont
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mtlrun.tasks import Depth, Detection, Segmentation, SurfaceNormals
from mtlrun.training.captions import GRID, Picture

SCENES = [
    "trainer=smoke", "trainer.batch_size=4", "trainer.eval_batch_size=4", "runtime.quiet=true", "backbone.width=0.0625",
    "dataset=scenes", "dataset.size=24", "dataset.num_train=10", "dataset.num_val=5", "dataset.num_test=5",
]  # fmt: skip


def images_of(folder):
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return {tag: events.Images(tag) for tag in events.Tags()["images"]}


def test_a_run_shows_inputs_labels_and_predictions_at_each_evaluation(mtlrun):
    code, _, err = mtlrun(*SCENES, "trainer.epochs=2", "trainer.log_pictures=3")
    assert code == 0, err
    images = images_of(run_folders()[0])
    assert set(images) == {"val_pictures/segmentation", "val_pictures/depth", "val_pictures/normals"}
    for shown in images.values():
        assert [event.step for event in shown] == [2, 4]
        picture = Image.open(io.BytesIO(shown[0].encoded_image_string))
        left, top, right, bottom, scale = map(int, picture.info[GRID].split())
        # Three samples side by side, three rows, a border of two; captions to the left, the legend below.
        assert (right - left, bottom - top, scale) == (3 * 26 + 2, 3 * 26 + 2, 1)
        assert left > 0
        assert picture.height > bottom
        assert (
            len(set(picture.get_flattened_data() if hasattr(picture, "get_flattened_data") else picture.getdata())) > 5
        )
        assert shown[0].encoded_image_string != shown[1].encoded_image_string


def test_no_pictures_if_switched_off_or_if_no_task_draws_any(mtlrun):
    assert mtlrun(*SCENES, "trainer.log_pictures=0")[0] == 0
    assert mtlrun(*QUICK)[0] == 0
    assert [images_of(folder) for folder in run_folders()] == [{}, {}]
    code, _, err = mtlrun(*QUICK, "trainer.log_pictures=-1")
    assert code == 2
    assert "trainer.log_pictures must be >= 0, found -1" in err


def test_captions_stand_beside_the_rows_and_the_legend_below():
    """Each caption is black on white beside its row, each color of the legend a square, and the grid as it was."""
    red, blue = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
    grid = torch.arange(3 * 12 * 20, dtype=torch.uint8).view(3, 12, 20)  # two rows of six pixels: too low for captions
    file = io.BytesIO()
    size = Picture(grid, ["label", "prediction"], [("wall", red), ("floor", blue)]).write_png(file)
    image = Image.open(file)
    assert image.size == size
    left, top, right, bottom, scale = map(int, image.info[GRID].split())
    assert scale == 3
    pixels = torch.tensor(numpy.array(image))
    assert torch.equal(pixels[top:bottom:scale, left:right:scale].permute(2, 0, 1), grid)
    beside = (pixels[top:bottom, :left] < 128).all(dim=-1)
    assert beside[:18].any()
    assert beside[18:].any()
    assert not beside[:, -2:].any()  # nothing of a caption is under the grid
    for color in (red, blue):
        assert (pixels[bottom:] == 255 * torch.tensor(color)).all(dim=-1).sum() >= 50
    assert ((pixels[bottom:] < 128).all(dim=-1)).any()


def test_a_legend_of_many_classes_is_cut_and_says_so():
    tall = [Picture(torch.zeros(3, 40, 40), ["label"], Segmentation(classes).legend()) for classes in (30, 39, 400)]
    heights = [picture.write_png(io.BytesIO())[1] for picture in tall]
    assert heights[0] < heights[1] <= heights[2] < heights[1] + 20
    font = ImageFont.load_default()
    assert [entry[0] for entry in tall[2]._place_legend(font, 240)][-2:] == ["class 39", "and 361 more"]


def test_the_legend_has_the_colors_of_the_picture():
    labels = torch.tensor([0, 1, 2, -1]).view(1, 4, 1)
    _, drawn = Segmentation(3).picture(torch.eye(3)[:, :, None][None, :, [0, 1, 2, 0]], labels)
    assert [list(color) for _, color in Segmentation(3).legend()] == drawn[0, :, :, 0].T.tolist()
    boxes = torch.tensor([[[2.0, 2, 9, 9, label, 0]] for label in (0, 1)])
    task = Detection(2)
    for label, image in enumerate(task._draw(objects, 12, 12) for objects in boxes):
        words, color = task.legend()[label]
        assert words == f"class {label}"
        assert torch.allclose(image[:, 2, 2], torch.tensor(color), atol=1 / 255)
    for task in (Depth(), SurfaceNormals()):
        assert all(0 <= channel <= 1 for _, color in task.legend() for channel in color)


def test_classes_have_different_colors_and_a_missing_label_is_black():
    scores = torch.eye(7)[:, :, None].unsqueeze(0)  # [1, 7, 7, 1]: class c in row c
    target = torch.tensor([0, 1, 2, 3, 4, 5, -1]).view(1, 7, 1)
    prediction, true = Segmentation(7).picture(scores, target)
    assert prediction.shape == true.shape == (1, 3, 7, 1)
    colors = prediction[0, :, :, 0].T
    assert len(colors.unique(dim=0)) == 7
    assert torch.equal(true[0, :, :6], prediction[0, :, :6])
    assert true[0, :, 6].sum() == 0
    assert colors.sum(dim=1).min() > 0


def test_near_depths_are_bright_and_missing_ones_black():
    target = torch.tensor([[[1.0, 4.0], [0.0, float("nan")]]])
    prediction, true = Depth().picture(torch.tensor([[[[2.0, 8.0], [-1.0, 1.0]]]]), target)
    assert true[0, :, 0, 0].tolist() == [0.75] * 3
    assert true[0, 0].tolist() == [[0.75, 0.0], [0.0, 0.0]]
    assert prediction[0, 0].tolist() == [[0.5, 0.0], [0.0, 0.75]]


def test_normals_are_drawn_as_colors():
    target = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]).T.reshape(1, 3, 1, 2)
    prediction, true = SurfaceNormals().picture(
        torch.tensor([[2.0, 0.0, 0.0], [0.0, -3.0, 0.0]]).T.reshape(1, 3, 1, 2), target
    )
    assert true[0, :, 0, 0].tolist() == [0.5, 0.5, 1.0]
    assert true[0, :, 0, 1].tolist() == [0, 0, 0]
    assert prediction[0, :, 0, 0].tolist() == pytest.approx([1.0, 0.5, 0.5])
    assert prediction[0, :, 0, 1].tolist() == pytest.approx([0.5, 0.0, 0.5])
