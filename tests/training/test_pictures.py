"""Pictures of what dense tasks predict, in TensorBoard."""

import io

import pytest
import torch
from helpers import QUICK, run_folders
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mtlrun.tasks import Depth, Segmentation, SurfaceNormals

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
    assert set(images) == {"pictures/segmentation", "pictures/depth", "pictures/normals"}
    for shown in images.values():
        assert [event.step for event in shown] == [2, 4]
        picture = Image.open(io.BytesIO(shown[0].encoded_image_string))
        assert picture.size == (3 * 26 + 2, 3 * 26 + 2)  # three samples side by side, three rows, a border of two
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
