"""Detection, against torchvision's FCOS and by hand."""

import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn
from torchmetrics.detection import MeanAveragePrecision
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.ops import generalized_box_iou_loss

from mtlrun.tasks import Detection
from mtlrun.tasks.losses.boxes import decode, detect, giou_loss, image_size, match
from mtlrun.tasks.metrics.box_precision import BoxPrecision

SIZE = 64
STRIDES = [2, 4, 8]


def make_cells(size=SIZE, strides=STRIDES):
    cells = []
    for stride in strides:
        steps = torch.arange(size // stride) * float(stride)
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        cells.append(torch.stack([x, y, x + stride, y + stride], dim=2).flatten(0, 1))
    return torch.cat(cells)


CELLS = make_cells()
PER_LEVEL = [(SIZE // stride) ** 2 for stride in STRIDES]


def make_objects(batch, count, num_classes, generator):
    """Return random objects; no two boxes have the same area, and no side is at a middle of a cell."""
    corners = torch.rand(batch, count, 2, 2, generator=generator) * (SIZE - 8)
    low = corners.amin(dim=2)
    high = corners.amax(dim=2) + 6
    classes = torch.randint(num_classes, (batch, count, 1), generator=generator)
    return torch.cat([low, high, classes, torch.zeros(batch, count, 1)], dim=2)


def make_prediction(batch, num_classes, generator):
    values = torch.randn(batch, len(CELLS), num_classes + 5, generator=generator)
    values[..., num_classes : num_classes + 4] = values[..., num_classes : num_classes + 4].abs() * 2
    return torch.cat([values, CELLS.expand(batch, -1, -1)], dim=2)


def torchvision_fcos(num_classes, **options):
    backbone = nn.Identity()
    backbone.out_channels = 32
    return FCOS(backbone, num_classes, head=FCOSHead(32, 1, num_classes, 0), **options)


def outputs(prediction, num_classes):
    parts = prediction.split([num_classes, 4, 1, 4], dim=2)
    return dict(zip(["cls_logits", "bbox_regression", "bbox_ctrness"], parts[:3], strict=True))


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("count", [1, 5, 20])
def test_loss_of_an_image_is_that_of_torchvision(count, generator):
    prediction, objects = make_prediction(3, 4, generator), make_objects(3, count, 4, generator)
    losses = []
    for image, rows in zip(prediction.split(1), objects, strict=True):
        target = {"boxes": rows[:, :4], "labels": rows[:, 4].long()}
        losses.append(sum(torchvision_fcos(4).compute_loss([target], outputs(image, 4), [CELLS], PER_LEVEL).values()))
    torch.testing.assert_close(Detection(4).loss(prediction, objects), torch.stack(losses).mean())


def test_gradient_of_the_loss_is_that_of_torchvision(generator):
    prediction, objects = make_prediction(1, 4, generator), make_objects(1, 5, 4, generator)
    target = {"boxes": objects[0, :, :4], "labels": objects[0, :, 4].long()}
    prediction.requires_grad_()
    losses = torchvision_fcos(4).compute_loss([target], outputs(prediction, 4), [CELLS], PER_LEVEL)
    (expected,) = torch.autograd.grad(sum(losses.values()), prediction)
    (found,) = torch.autograd.grad(Detection(4).loss(prediction, objects), prediction)
    torch.testing.assert_close(found[..., :9], expected[..., :9])
    assert found[..., :9].abs().sum() > 0


def test_matching_uses_all_levels_and_the_smallest_object(generator):
    objects = make_objects(20, 6, 4, generator)
    matches = match(CELLS.expand(20, -1, -1), objects)
    assert all(level.any() for level in matches.matched.split(PER_LEVEL, dim=1))
    assert not matches.matched.all()
    nested = torch.tensor([[[0.0, 0, 30, 30, 0, 0], [9, 9, 21, 21, 1, 0]]])
    matches = match(CELLS[None], nested)
    middle = ((CELLS[:, :2] + CELLS[:, 2:]) / 2 == 15).all(dim=1)  # of a cell of the finest level
    assert middle.sum() == 1
    assert matches.matched[0, middle].all()
    assert matches.objects[0, middle].tolist() == [1]


def test_empty_rows_of_boxes_change_nothing(generator):
    prediction, objects = make_prediction(2, 3, generator), make_objects(2, 4, 3, generator)
    padding = torch.tensor([0.0, 0, SIZE, SIZE, -1, 0]).expand(2, 3, 6)
    padded = torch.cat([padding, objects, padding], dim=1)
    task = Detection(3)
    torch.testing.assert_close(task.loss(prediction, padded), task.loss(prediction, objects))


def test_an_image_without_objects_has_the_loss_of_its_classes_alone(generator):
    prediction = make_prediction(1, 3, generator)
    empty = torch.full((1, 2, 6), -1.0)
    target = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    expected = torchvision_fcos(3).compute_loss([target], outputs(prediction, 3), [CELLS], PER_LEVEL)
    assert expected["bbox_regression"] == expected["bbox_ctrness"] == 0
    torch.testing.assert_close(Detection(3).loss(prediction, empty), expected["classification"])


def test_loss_is_the_mean_over_images_and_not_negative(generator):
    prediction, objects = make_prediction(4, 3, generator), make_objects(4, 6, 3, generator)
    objects[0, 1:, 4] = -1
    task = Detection(3)
    each = torch.stack([task.loss(*pair) for pair in zip(prediction.split(1), objects.split(1), strict=True)])
    torch.testing.assert_close(task.loss(prediction, objects), each.mean())
    assert task.num_terms(objects) == 4
    assert (each > 0).all()
    by_vmap = torch.vmap(lambda image, rows: task.loss(image[None], rows[None]))(prediction, objects)
    torch.testing.assert_close(by_vmap, each)


def test_locations_in_an_ignored_object_have_no_loss_unless_they_have_another(generator):
    prediction = make_prediction(1, 2, generator).requires_grad_()
    objects = torch.tensor([[[2.0, 2, 30, 30, 0, 0], [1, 1, 45, 31, 1, 1]]])
    (gradient,) = torch.autograd.grad(Detection(2).loss(prediction, objects), prediction)
    moved = (gradient[0, :, :2] != 0).any(dim=1)
    middles = (CELLS[:, :2] + CELLS[:, 2:]) / 2
    in_ignored = ((middles > objects[0, 1, :2]) & (middles < objects[0, 1, 2:4])).all(dim=1)
    found = match(CELLS[None], objects[:, :1]).matched[0]
    assert found.any()
    assert (in_ignored & ~found).any()
    assert torch.equal(moved, ~in_ignored | found)
    alone, without = Detection(2).loss(prediction, objects[:, 1:]), Detection(2).loss(prediction, objects[:, 1:] * -1)
    assert 0 < alone < without


def test_nothing_is_nan_where_a_prediction_is_a_point(generator):
    prediction = make_prediction(1, 2, generator)
    prediction[..., 2:6] = 0
    prediction.requires_grad_()
    loss = Detection(2).loss(prediction, make_objects(1, 3, 2, generator))
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert gradient.isfinite().all()


def test_giou_is_that_of_torchvision(generator):
    first, second = (make_objects(1, 200, 1, generator)[0, :, :4] for _ in range(2))
    torch.testing.assert_close(giou_loss(first, second), generalized_box_iou_loss(first, second))


def test_detections_are_those_of_torchvision(generator):
    prediction = make_prediction(2, 3, generator)
    prediction[..., :3] -= 2
    options = {"score_thresh": 0.2, "nms_thresh": 0.5, "detections_per_img": 30}
    split = {name: list(part.split(PER_LEVEL, dim=1)) for name, part in outputs(prediction, 3).items()}
    cells = [list(CELLS.split(PER_LEVEL))] * 2
    expected = torchvision_fcos(3, **options).postprocess_detections(split, cells, [(SIZE, SIZE)] * 2)
    found, scores = detect(prediction, score_threshold=0.2, nms_threshold=0.5, max_detections=30)
    for rows, score, wanted in zip(found, scores, expected, strict=True):
        assert len(wanted["boxes"]) == 30
        torch.testing.assert_close(rows[:, :4], wanted["boxes"])
        torch.testing.assert_close(score, wanted["scores"])
        assert torch.equal(rows[:, 4].long(), wanted["labels"])
        assert not rows[:, 5].any()


def test_rows_that_no_detection_fills_have_no_class(generator):
    prediction = make_prediction(2, 3, generator)
    prediction[..., :3] -= 100
    prediction[1, 7, 1] = 10
    prediction[1, 7, 7] = 10
    found, scores = detect(prediction, score_threshold=0.05, nms_threshold=0.5, max_detections=5)
    assert found[..., 4].tolist() == [[-1] * 5, [1] + [-1] * 4]
    assert scores[1].tolist() == pytest.approx([1, 0, 0, 0, 0], abs=1e-4)
    assert image_size(prediction) == (SIZE, SIZE)


def test_distances_are_counted_in_the_sides_of_the_cell():
    cell = torch.tensor([[8.0, 16, 16, 32]])
    assert decode(torch.tensor([[1.0, 0.5, 2, 0]]), cell).tolist() == [[4, 16, 28, 24]]


# ------------------------------------------------------------------------------------------------------------ metrics


def perfect(objects, num_classes):
    """Return a prediction in which the cell at the middle of each object finds it."""
    prediction = torch.cat([torch.full((len(objects), len(CELLS), num_classes + 5), -20.0), CELLS.expand(
        len(objects), -1, -1)], dim=2)  # fmt: skip
    prediction[..., num_classes : num_classes + 4] = 0
    middles = (CELLS[:, :2] + CELLS[:, 2:]) / 2
    for image, rows in zip(prediction, objects, strict=True):
        for x1, y1, x2, y2, label, _ in rows[rows[:, 4] >= 0].tolist():
            place = torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2])
            index = (middles - place).abs().amax(dim=1)[: PER_LEVEL[0]].argmin()
            x, y = middles[index].tolist()
            image[index, int(label)] = 20
            image[index, num_classes : num_classes + 5] = (
                torch.tensor([x - x1, y - y1, x2 - x, y2 - y, 80]) / STRIDES[0]
            )
    return prediction


OBJECTS = torch.tensor(
    [
        [[4.0, 6, 20, 26, 0, 0], [30, 30, 60, 50, 2, 0]],
        [[10.0, 10, 40, 30, 0, 0], [0, 0, 0, 0, -1, 0]],
        [[0.0, 0, 0, 0, -1, 0], [0, 0, 0, 0, -1, 0]],
    ]
)


def evaluate(task, prediction, objects, size=1):
    meter = task.meter()
    for pair in zip(prediction.split(size), objects.split(size), strict=True):
        meter.update(*pair)
    return meter.compute()


def test_average_precision_depends_on_class_and_overlap(capsys):
    task = Detection(3)
    found = evaluate(task, perfect(OBJECTS, 3), OBJECTS)
    assert (found["map50"], found["map"]) == pytest.approx((1, 1))
    moved = OBJECTS.clone()
    moved[1, 0, 2] = 34  # IoU 4/5 for one of two objects of class 0
    found = evaluate(task, perfect(moved, 3), OBJECTS)
    assert found["map50"] == pytest.approx(1)
    assert 0.75 < found["map"] < 1
    # Class 0 is found in one of two images: up to a recall of 0.5 its precision is 1, which 51 of 101 levels are.
    half = OBJECTS.clone()
    half[1] = half[2]
    assert evaluate(task, perfect(half, 3), OBJECTS)["map50"] == pytest.approx((51 / 101 + 1) / 2, abs=1e-5)
    assert capsys.readouterr() == ("", "")


def test_values_are_those_of_torchmetrics(generator):
    prediction, objects = make_prediction(6, 3, generator), make_objects(6, 4, 3, generator)
    objects[:, 0, 5] = 1
    objects[::2, 1, 4] = -1
    prediction = torch.cat([perfect(objects + torch.tensor([0.8, 0, 1.7, 0, 0, 0]), 3)[:3], prediction[3:]])
    metric = MeanAveragePrecision()
    found, scores = detect(prediction, score_threshold=0.05, nms_threshold=0.6, max_detections=100)
    for rows, score, wanted in zip(found, scores, objects, strict=True):
        there, wanted = rows[:, 4] >= 0, wanted[wanted[:, 4] >= 0]
        metric.update(
            [{"boxes": rows[there, :4], "scores": score[there], "labels": rows[there, 4].long()}],
            [{"boxes": wanted[:, :4], "labels": wanted[:, 4].long(), "iscrowd": wanted[:, 5].long()}],
        )
    expected = metric.compute()
    for size in (1, 4, 6):
        values = evaluate(Detection(3), prediction, objects, size)
        assert values["map50"] == pytest.approx(expected["map_50"].item())
        assert values["map"] == pytest.approx(expected["map"].item())
    assert 0 < values["map"] < values["map50"] < 1


def precision_by_pycocotools(detections, objects):
    """Return (map50, map) of padded boxes [images, n, 7] and [images, m, 6], without torchmetrics and in float64."""
    coco, results, annotations = COCO(), [], []
    for image, (found, true) in enumerate(zip(detections.double().tolist(), objects.double().tolist(), strict=True)):
        for x1, y1, x2, y2, label, *rest in [*found, *true]:
            box = {"image_id": image, "category_id": int(label), "bbox": [x1, y1, x2 - x1, y2 - y1]}
            box["area"], box["iscrowd"] = (x2 - x1) * (y2 - y1), int(rest[0])
            if label >= 0 and len(rest) == 2:
                results.append(box | {"score": rest[1]})
            elif label >= 0:
                annotations.append(box | {"id": len(annotations) + 1})
    coco.dataset = {
        "info": {}, "images": [{"id": image} for image in range(len(objects))], "annotations": annotations,
        "categories": [{"id": label} for label in {box["category_id"] for box in annotations}],
    }  # fmt: skip
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[1], evaluation.stats[0]


def check_precision(detections, objects):
    map50, both = BoxPrecision("map_50"), BoxPrecision("map")
    for metric in (map50, both):
        metric.update(detections, objects)
    expected = precision_by_pycocotools(detections, objects)
    assert 0.05 < expected[1] < expected[0] <= 1
    assert (map50.compute().item(), both.compute().item()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("num_classes", "count", "ignored"), [(1, 2, 0), (1, 6, 3), (3, 6, 3)])
@pytest.mark.parametrize("noise", [0.05, 0.15])
def test_precision_is_that_of_pycocotools_on_random_boxes(generator, num_classes, count, ignored, noise):
    # Of 20 objects of a class, every one found reaches a level of recall, and must be seen to.
    objects = make_objects(10, count, num_classes, generator)
    objects[:ignored, 0, 5] = 1
    objects[:ignored, 1, 4] = -1
    sides = (objects[..., 2:4] - objects[..., :2]).repeat(1, 1, 2)
    found = objects.repeat(1, 2, 1)
    found[..., :4] += noise * sides.repeat(1, 2, 1) * torch.randn(found[..., :4].shape, generator=generator)
    found[..., 5] = 0
    check_precision(torch.cat([found, torch.rand(*found.shape[:2], 1, generator=generator)], dim=2), objects)


def test_an_overlap_that_is_exactly_a_threshold_counts_as_in_pycocotools():
    objects = torch.tensor([[0.0, 0, 20, 20, 0, 0]]).expand(10, 1, 6)
    found = torch.cat([objects, torch.linspace(0.9, 0.1, 10).view(10, 1, 1)], dim=2)
    found[:, 0, 2] = torch.arange(11.0, 21.0)  # IoUs of 0.55, 0.6, ..., 1
    check_precision(found, objects)


def test_detecting_an_ignored_object_counts_neither_way():
    ignored = OBJECTS.clone()
    ignored[1, 0, 5] = 1
    assert evaluate(Detection(3), perfect(OBJECTS, 3), ignored)["map50"] == pytest.approx(1)
    nothing = ignored.clone()
    nothing[1] = nothing[2]
    assert evaluate(Detection(3), perfect(nothing, 3), ignored)["map50"] == pytest.approx(1)
    assert evaluate(Detection(3), perfect(OBJECTS, 3), nothing)["map50"] == pytest.approx(1)  # an error scored last
    wrong = nothing.clone()
    wrong[0, 0] = torch.tensor([0.0, 0, 0, 0, -1, 0])
    wrong[0, 1, 4] = 0
    assert evaluate(Detection(3), perfect(OBJECTS, 3), wrong)["map50"] < 0.5


def test_precision_is_nan_without_objects_and_zero_without_detections():
    task = Detection(3)
    nothing = torch.full_like(OBJECTS, -1)
    for prediction in (perfect(OBJECTS, 3), perfect(nothing, 3)):
        found = evaluate(task, prediction, nothing)
        assert found["map50"] != found["map50"]
        assert found["map"] != found["map"]
        assert found["loss"] >= 0
    assert evaluate(task, perfect(nothing, 3), OBJECTS)["map50"] == 0


def test_both_values_come_from_one_evaluation(monkeypatch):
    calls = []
    compute = MeanAveragePrecision.compute
    monkeypatch.setattr(MeanAveragePrecision, "compute", lambda metric: calls.append(1) or compute.__get__(metric)())
    meter = Detection(3).meter()
    for number in (1, 2):
        meter.update(perfect(OBJECTS, 3), OBJECTS)
        meter.compute()
        assert len(calls) == number


# ----------------------------------------------------------------------------------------------------------- the task


def test_output_and_directions():
    task = Detection(7)
    assert task.output_size == 7
    assert task.boxes
    assert not task.dense
    assert task.nonnegative_loss
    assert task.directions() == {"loss": "min", "map50": "max", "map": "max"}
    assert task.main_metric == "map50"
    assert not task.state_dict()


def test_an_image_of_nan_has_no_label():
    target = OBJECTS.clone()
    target[1] = torch.nan
    assert Detection(3).labeled(target).tolist() == [True, False, True]
    Detection(3).check_targets(target)


def test_pictures_have_the_outlines_of_objects_and_of_what_is_scored_well():
    task = Detection(3)
    objects = OBJECTS.clone()
    objects[1, 0, 5] = 1
    prediction = perfect(OBJECTS, 3)
    prediction[0, :, 2] -= 24  # scored low
    found, wanted = task.picture(prediction, objects)
    assert found.shape == wanted.shape == (3, 3, SIZE, SIZE)
    red = torch.tensor([1.0, 0, 0])
    for image in (found[0], wanted[0]):
        for row, column in [(6, 10), (26, 10), (16, 4), (16, 20)]:
            assert torch.equal(image[:, row, column], red)
        assert not image[:, 7:26, 5:20].any()
    assert wanted[0, :, 30, 40].tolist() == pytest.approx([0, 2 / 3, 1], abs=0.01)
    assert not found[0, :, 30, 40].any()
    assert wanted[1, :, 10, 20].tolist() == pytest.approx([0.5] * 3, abs=0.01)
    assert found[1, :, 10, 20].tolist() == [1, 0, 0]
    assert not wanted[2].any()


def with_row(*values):
    target = torch.zeros(3, 2, 6)
    target[..., 4] = -1
    target[1, 1] = torch.tensor(values)
    return target


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.zeros(2, 3, 6, dtype=torch.int64), r"targets must be objects of type float32, found torch\.int64"),
        (torch.zeros(2, 3, 5), r"shape \[samples, objects >= 1, 6\], found \(2, 3, 5\)"),
        (torch.zeros(2, 6), r"shape \[samples, objects >= 1, 6\], found \(2, 6\)"),
        (torch.zeros(2, 0, 6), r"shape \[samples, objects >= 1, 6\], found \(2, 0, 6\)"),
        (with_row(0, 0, 4, float("nan"), 1, 0), "NaN throughout where a sample has no label, found both at sample 1"),
        (with_row(0, 0, 4, 4, 3, 0), r"a class in 0\.\.2, or of -1 .*found \[0, 0, 4, 4, 3, 0\] at sample 1, object 1"),
        (with_row(0, 0, 4, 4, -2, 0), "a class in"),
        (with_row(0, 0, 4, 4, 0.5, 0), "a class in"),
        (with_row(4, 0, 4, 4, 0, 0), r"x1 < x2, y1 < y2 in pixels, >= 0, found \[4, 0, 4, 4, 0, 0\] at sample 1, obj"),
        (with_row(0, 5, 4, 4, 0, 0), "x1 < x2"),
        (with_row(-1, 0, 4, 4, 0, 0), "x1 < x2"),
        (with_row(0, 0, 4, float("inf"), 0, 0), "x1 < x2"),
        (with_row(0, 0, 4, 4, 0, 2), r"marked by 0, or by 1 .*found \[0, 0, 4, 4, 0, 2\] at sample 1, object 1"),
    ],
)
def test_targets_that_cannot_be_labels_are_refused(target, message):
    with pytest.raises(ValueError, match=message):
        Detection(3).check_targets(target)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes must be >= 1, found 0"),
        ({"score_threshold": 1.0}, r"score_threshold must be in \[0, 1\), found 1\.0"),
        ({"nms_threshold": 0.0}, r"nms_threshold must be in \(0, 1\], found 0\.0"),
        ({"max_detections": 101}, r"max_detections must be in \[1, 100\], found 101"),
        ({"lr": 0.0}, r"lr must be > 0, found 0\.0"),
    ],
)
def test_arguments_out_of_bounds_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Detection(**{"num_classes": 3} | arguments)


SCENES = [
    "dataset=scenes", "dataset.num_train=6", "dataset.num_val=3", "dataset.num_test=3", "dataset.size=32",
    "+task@tasks.objects=detection", "tasks.objects.num_classes=3", "tasks.objects.head.channels=32",
    "tasks.objects.head.num_convs=1", "backbone.width=0.125", "trainer=smoke", "trainer.batch_size=3",
    "runtime.quiet=true",
]  # fmt: skip


def test_without_pycocotools_the_refusal_comes_before_the_run(monkeypatch, mtlrun):
    monkeypatch.setattr("mtlrun.tasks.metrics.box_precision.find_spec", lambda _: None)
    code, _, err = mtlrun(*SCENES)
    assert code == 2
    assert "tasks.objects: detection needs pycocotools, which is not installed; pip install 'mtlrun[detection]'" in err
