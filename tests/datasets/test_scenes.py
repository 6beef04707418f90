"""scenes: geometry against its definition, the dataset's promises, and whole runs."""

import math
import random

import numpy
import pytest
import torch
from helpers import read_record, run_folders
from torchvision.models import mobilenet_v3_small

from mtlrun.datasets import SPLITS, Scenes
from mtlrun.datasets.generation.rendering import SHAPES, SURFACES, Rooms, cast, classes, make_rays, outlines, shade
from mtlrun.datasets.scenes import draw_rooms
from mtlrun.tasks import Depth, Detection, Segmentation, SurfaceNormals

TASKS = {"segmentation": Segmentation(6), "depth": Depth(), "normals": SurfaceNormals(), "objects": Detection(3)}
NUM = {"num_train": 20, "num_val": 6, "num_test": 6}
FLOOR, WALL, CEILING, SPHERE, BOX, CYLINDER = range(6)


def room_with(shape=None, center=(0.0, 1.5, 4.0), halves=(0.5, 0.5, 0.5), light=(0.0, 2.8, 4.0)):
    """Return a room of 6 x 3 x 8 m with at most one object; the camera looks along z from the middle of the wall."""
    grey = torch.tensor([0.5] * 6 + [0.0] * 9)
    shapes = [] if shape is None else [SHAPES.index(shape)]
    count = len(shapes)
    return Rooms(
        position=torch.tensor([[0.0, 1.5, 0.0]]),
        camera=torch.tensor([[[1.0, 0, 0], [0, -1, 0], [0, 0, 1]]]),
        focal=torch.tensor([1.0]),
        size=torch.tensor([[6.0, 3.0, 8.0]]),
        light=torch.tensor([light]),
        ambient=torch.tensor([0.3]),
        shapes=torch.tensor([shapes], dtype=torch.int64),
        centers=torch.tensor(center).expand(1, count, 3),
        halves=torch.tensor(halves).expand(1, count, 3),
        axes=torch.eye(3).expand(1, count, 3, 3),
        paint=grey.expand(1, 3 + count, 15),
    )


def look(rooms, size):
    """Return depth and classes [N, size, size], and normals [N, 3, size, size] in camera coordinates."""
    hits = cast(rooms, make_rays(rooms, size))
    maps = hits.depth, classes(rooms, hits), rooms.camera.transpose(1, 2) @ hits.normals
    return [found.unflatten(-1, (size, size)) for found in maps]


@pytest.fixture(scope="module")
def rooms():
    return draw_rooms(numpy.random.default_rng(3), 40, 6, 0.5)


# ------------------------------------------------------------------------------------------------------ geometry


def test_an_empty_room():
    depth, segmentation, normals = look(room_with(), 41)
    assert depth[0, 20, 20].item() == pytest.approx(8)  # the wall at the end
    assert normals[0, :, 20, 20].tolist() == pytest.approx([0, 0, -1])
    # The rays are 45 degrees wide in all: floor and ceiling 1.5 m away, side walls 3 m.
    edge = 20 / 41
    assert depth[0, 40, 20].item() == pytest.approx(1.5 / edge)
    assert normals[0, :, 40, 20].tolist() == pytest.approx([0, -1, 0])
    assert normals[0, :, 0, 20].tolist() == pytest.approx([0, 1, 0])
    assert depth[0, 20, 0].item() == pytest.approx(3 / edge)
    assert normals[0, :, 20, 0].tolist() == pytest.approx([1, 0, 0])
    assert normals[0, :, 20, 40].tolist() == pytest.approx([-1, 0, 0])
    assert segmentation[0, [0, 20, 40], 20].tolist() == [CEILING, WALL, FLOOR]
    assert segmentation[0, 20, [0, 40]].tolist() == [WALL, WALL]


def test_silhouette_depth_and_normals_of_a_sphere():
    size, distance, radius = 101, 4.0, 0.5
    depth, segmentation, normals = look(room_with("sphere"), size)
    steps = (torch.arange(size) + 0.5) / size - 0.5
    square = steps[:, None] ** 2 + steps**2
    inside = square.sqrt() < radius / math.sqrt(distance**2 - radius**2)
    assert torch.equal(segmentation[0] == SPHERE, inside)
    assert inside.sum() > 400
    # Where the ray (x, y, 1) z meets |p - (0, 0, 4)| = 0.5 first.
    expected = (distance - (distance**2 - (1 + square) * (distance**2 - radius**2)).sqrt()) / (1 + square)
    torch.testing.assert_close(depth[0][inside], expected[inside], rtol=1e-5, atol=1e-5)
    points = torch.stack([steps.expand(size, size), steps[:, None].expand(size, size), torch.ones(size, size)])
    outward = (points * expected - torch.tensor([0, 0, distance])[:, None, None]) / radius
    torch.testing.assert_close(normals[0][:, inside], outward[:, inside], rtol=1e-4, atol=1e-4)


def test_the_front_of_a_box():
    size = 100
    depth, segmentation, normals = look(room_with("box", halves=(0.5, 0.25, 1.0)), size)
    steps = (torch.arange(size) + 0.5) / size - 0.5
    front = (steps[:, None].abs() < 0.25 / 3) & (steps.abs() < 0.5 / 3)
    assert torch.equal(segmentation[0] == BOX, front)
    torch.testing.assert_close(depth[0][front], torch.full((int(front.sum()),), 3.0))
    assert torch.equal(normals[0][:, front].unique(dim=1).T, torch.tensor([[0.0, 0, -1]]))


def test_a_cylinder_from_the_side_and_from_above():
    size = 101
    depth, segmentation, normals = look(room_with("cylinder", halves=(0.5, 0.4, 0.5)), size)
    middle = segmentation[0, :, 50] == CYLINDER
    assert torch.equal(middle, ((torch.arange(size) + 0.5) / size - 0.5).abs() < 0.4 / 3.5)
    assert depth[0, 50, 50].item() == pytest.approx(3.5)
    assert normals[0, :, 50, 50].tolist() == pytest.approx([0, 0, -1])
    low = room_with("cylinder", center=(0.0, 0.3, 3.0), halves=(0.8, 0.3, 0.8))
    depth, segmentation, normals = look(low, size)
    row = 80  # looks down by (80.5 / 101 - 0.5) m per metre, onto the top, 0.9 m below the camera
    assert segmentation[0, row, 50] == CYLINDER
    assert depth[0, row, 50].item() == pytest.approx(0.9 / (80.5 / 101 - 0.5), rel=1e-4)
    assert normals[0, :, row, 50].tolist() == pytest.approx([0, -1, 0])


def clearance(rooms, points):
    """Return at points [N, P, 3] how far they are from being inside an object or outside the room; 0 on a surface.

    In units of the nearest object's size, from the definition of the shapes alone.
    """
    x, y, z = points.unbind(dim=2)
    width, height, length = (rooms.size[:, axis, None] for axis in range(3))
    found = [width / 2 - x.abs(), y, height - y, z, length - z]
    for slot in range(rooms.shapes.shape[1]):
        units = (points - rooms.centers[:, None, slot]) @ rooms.axes[:, slot] / rooms.halves[:, None, slot]
        around = units[..., ::2].norm(dim=2)
        of_shapes = [
            units.norm(dim=2) - 1,
            units.abs().amax(dim=2) - 1,
            torch.maximum(around, units[..., 1].abs()) - 1,
            torch.full_like(x, torch.inf),  # no object: index -1
        ]
        shape = rooms.shapes[:, slot, None].expand_as(x)
        found.append(torch.stack(of_shapes, dim=-1).gather(-1, (shape % 4)[..., None]).squeeze(-1))
    return torch.stack(found).amin(dim=0)


def test_each_ray_ends_on_a_surface_and_meets_none_before(rooms):
    rays = make_rays(rooms, 16).transpose(1, 2)
    depth = cast(rooms, make_rays(rooms, 16)).depth
    assert {*rooms.shapes.flatten().tolist()} == {-1, 0, 1, 2}

    def at(share):
        return clearance(rooms, rooms.position[:, None] + (share * depth)[..., None] * rays)

    assert at(1.0).abs().max() < 1e-4
    for share in torch.linspace(0.0, 0.999, 60):
        assert at(share).min() > -1e-4


def test_normals_are_of_length_one_and_on_the_side_that_is_seen(rooms):
    rays = make_rays(rooms, 32)
    normals = cast(rooms, rays).normals
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(40, 32 * 32), rtol=1e-5, atol=1e-5)
    assert ((normals * rays).sum(dim=1) < 1e-3).all()


def test_normals_are_those_of_the_surface_that_the_depth_describes(rooms):
    size = 64
    depth, _, normals = look(rooms, size)
    painted = cast(rooms, make_rays(rooms, size)).painted.unflatten(1, (size, size))
    steps = ((torch.arange(size) + 0.5) / size - 0.5) / rooms.focal[:, None]
    points = torch.stack([steps[:, None] * depth, steps[..., None] * depth, depth], dim=1)
    right, down = points[:, :, 1:-1, 2:] - points[:, :, 1:-1, :-2], points[:, :, 2:, 1:-1] - points[:, :, :-2, 1:-1]
    found = torch.nn.functional.normalize(torch.linalg.cross(down, right, dim=1), dim=1)
    wanted = normals[:, :, 1:-1, 1:-1]
    # Away from edges: the four neighbors show the same surface, facing nearly the same way.
    smooth = torch.ones_like(wanted[:, 0], dtype=torch.bool)
    for rows, columns in [(slice(2, None), slice(1, -1)), (slice(-2), slice(1, -1)),
                          (slice(1, -1), slice(2, None)), (slice(1, -1), slice(-2))]:  # fmt: skip
        smooth &= (normals[:, :, rows, columns] * wanted).sum(dim=1) > 0.95
        smooth &= painted[:, rows, columns] == painted[:, 1:-1, 1:-1]
    cosine = (found * wanted).sum(dim=1)
    assert smooth.float().mean() > 0.8
    flat = (painted[:, 1:-1, 1:-1] < 3) & smooth
    assert cosine[flat].min() > 0.9999
    assert cosine[smooth].quantile(0.001) > 0.99


def test_the_shadow_of_a_sphere_and_the_light_of_a_lamp():
    # The lamp hangs over the sphere: beneath it is shadow, and beside it is light.
    rooms = room_with("sphere", center=(0.0, 1.0, 2.0), halves=(0.3, 0.3, 0.3), light=(0.0, 2.5, 2.0))
    points = torch.tensor([[0.0, 0.0, 2.0], [1.5, 0.0, 2.0]])
    rooms = Rooms(**{**vars(rooms), "position": torch.tensor([[0.0, 0.5, 0.5]])})
    rays = (points - rooms.position)[None].transpose(1, 2)
    hits = cast(rooms, rays)
    torch.testing.assert_close(hits.points[0].T, points)
    shadow, light = shade(rooms, hits)[0, 0].tolist()
    assert shadow == pytest.approx(math.sqrt(0.5 * 0.3), rel=1e-5)
    square = 2.5**2 + 1.5**2
    lit = 2.5 / math.sqrt(square) * 1.6 / (1 + 0.06 * square)
    assert light == pytest.approx(math.sqrt(0.5 * (0.3 + 0.7 * lit)), rel=1e-5)


def test_patterns_lie_between_the_two_colors_of_a_surface():
    rooms = room_with()
    wave, no_wave, phases, sharpness = [9.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, math.pi / 2], 1e6
    paint = torch.tensor([0.2, 0.2, 0.2, 0.8, 0.8, 0.8, *wave, *no_wave, *phases, sharpness])
    rooms = Rooms(**{**vars(rooms), "paint": paint.expand(1, 3, 15), "ambient": torch.ones(1)})
    hits = cast(rooms, make_rays(rooms, 50))
    colors = shade(rooms, hits)[0, 0]
    expected = torch.where(torch.sin(9.0 * hits.points[0, 0]) > 0, 0.8, 0.2).sqrt()
    assert ((colors - expected).abs() < 1e-4).float().mean() > 0.99


def test_objects_are_turned_by_rotations_and_stand_in_the_room_away_from_the_camera(rooms):
    torch.testing.assert_close(rooms.axes @ rooms.axes.transpose(2, 3), torch.eye(3).expand(40, 6, 3, 3))
    torch.testing.assert_close(torch.linalg.det(rooms.axes), torch.ones(40, 6))
    upright = rooms.axes[..., 1, 1] > 0.99999
    assert 0.4 < upright.float().mean() < 0.8
    extent = (rooms.axes.abs() * rooms.halves[..., None, :]).sum(dim=3)
    low, high = rooms.centers - extent, rooms.centers + extent
    assert (low[..., 1] > -1e-5).all()
    assert (high <= rooms.size[:, None] + 1e-5)[..., 1:].all()
    assert (high[..., 0] <= rooms.size[:, None, 0] / 2 + 1e-5).all()
    assert (low[..., 2] > rooms.position[:, None, 2]).all()


def test_the_camera_is_level_but_for_its_roll():
    rooms = draw_rooms(numpy.random.default_rng(0), 100, 0, 0.5)
    torch.testing.assert_close(rooms.camera.transpose(1, 2) @ rooms.camera, torch.eye(3).expand(100, 3, 3))
    assert (rooms.camera[:, 1, 0].abs() < 0.13).all()
    assert (rooms.camera[:, 1, 1] < -0.85).all()
    assert (rooms.camera[:, 1, 2] < 0).all()  # looks down


def test_boxes_are_around_what_is_seen_of_the_objects(rooms):
    size = 64
    hits = cast(rooms, make_rays(rooms, size))
    painted = hits.painted.unflatten(1, (size, size))
    counts = (painted[:, None] == torch.arange(3, 9)[:, None, None]).sum(dim=(2, 3))
    least = int(counts[counts > 0].sort().values[20])  # pixels of one of them
    found = outlines(rooms, hits, size, least)
    assert found.shape == (40, 6, 6)
    numbers = set()
    for room in range(40):
        for slot in range(6):
            rows, columns = (painted[room] == 3 + slot).nonzero().T
            numbers.add(min(len(rows), least))
            if len(rows) < least:
                assert found[room, slot].tolist() == [-1] * 6
            else:
                box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert found[room, slot].tolist() == [*box, rooms.shapes[room, slot], 0]
    assert {0, least} < numbers  # none, few and many pixels


# --------------------------------------------------------------------------------------------------- the dataset


@pytest.fixture(scope="module")
def dataset():
    return Scenes(**NUM, size=32)


@pytest.mark.parametrize("name", SPLITS)
def test_samples_are_what_the_tasks_take(dataset, name):
    split = dataset.split(name)
    count = NUM[f"num_{name}"]
    assert split.inputs.shape == (count, *dataset.input_shape) == (count, 3, 32, 32)
    assert split.inputs.dtype == torch.float32
    assert (split.inputs.min() >= 0) & (split.inputs.max() <= 1)
    assert split.inputs.std() > 0.1
    shapes = {task: tuple(target.shape[1:]) for task, target in split.targets.items()}
    assert shapes == {"segmentation": (32, 32), "depth": (1, 32, 32), "normals": (3, 32, 32), "objects": (6, 6)}
    assert tuple(split.targets) == dataset.task_names
    for task, target in split.targets.items():
        TASKS[task].check_targets(target)
        assert TASKS[task].labeled(target).all()
        assert TASKS[task].num_terms(target) == count * (1 if task == "objects" else 32 * 32)


def test_all_classes_occur_and_none_covers_everything():
    shares = Scenes(num_train=100, num_val=1, num_test=1, size=32).split("train").targets["segmentation"].flatten()
    shares = torch.bincount(shares, minlength=len(SURFACES)) / len(shares)
    assert shares.min() > 0.02
    assert shares.max() < 0.5


def test_images_can_be_normalized():
    plain, centered = (Scenes(2, 1, 1, size=8, normalize=name).split("train").inputs for name in ("none", "centered"))
    torch.testing.assert_close(centered, 2 * plain - 1)


def test_pretrained_weights_on_images_of_another_scale_are_warned_of(mtlrun, tmp_path):
    torch.save(mobilenet_v3_small().state_dict(), tmp_path / "net.pt")
    options = [
        "dataset=scenes", "dataset.num_train=4", "dataset.num_val=2", "dataset.num_test=2", "dataset.size=64",
        "backbone=mobilenet", "backbone.stem=imagenet", "trainer=smoke", "trainer.batch_size=2",
    ]  # fmt: skip
    for weights, normalize, warned in (
        ("net.pt", "none", True),
        ("net.pt", "imagenet", False),
        ("null", "none", False),
    ):
        code, out, err = mtlrun(*options, f"backbone.weights={weights}", f"dataset.normalize={normalize}")
        assert code == 0, err
        assert ("use dataset.normalize=imagenet" in " ".join(out.split())) == warned


def test_no_scene_is_in_two_splits(dataset):
    depths = torch.cat([dataset.split(name).targets["depth"] for name in SPLITS])
    assert len(torch.unique(depths, dim=0)) == len(depths) == 32


def test_the_first_scenes_are_the_same_whatever_the_size_of_the_split(dataset):
    few = Scenes(num_train=5, num_val=6, num_test=6, size=32).split("train")
    torch.testing.assert_close(few.inputs, dataset.split("train").inputs[:5])
    torch.testing.assert_close(few.targets["depth"], dataset.split("train").targets["depth"][:5])


def test_the_same_seed_gives_the_same_data_and_another_seed_others(dataset):
    again, other = Scenes(**NUM, size=32), Scenes(**NUM, size=32, scenes_seed=1)
    assert torch.equal(again.split("val").inputs, dataset.split("val").inputs)
    assert not torch.isclose(other.split("val").targets["depth"], dataset.split("val").targets["depth"]).all(-1).any()


def test_data_do_not_depend_on_the_global_random_state_and_leave_it_alone():
    def build(seed):
        random.seed(seed)
        numpy.random.seed(seed)
        torch.manual_seed(seed)
        before = random.getstate(), numpy.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()
        split = Scenes(num_train=2, size=16, missing=0.5).split("train")
        after = random.getstate(), numpy.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()
        assert before == after
        return split

    first, second = build(0), build(1)
    assert torch.equal(first.inputs, second.inputs)
    assert torch.equal(first.targets["segmentation"], second.targets["segmentation"])


def test_a_split_is_rendered_once_and_in_any_order(dataset):
    reverse = Scenes(**NUM, size=32)
    for name in reversed(SPLITS):
        assert torch.equal(reverse.split(name).inputs, dataset.split(name).inputs)
    assert dataset.split("test") is dataset.split("test")


def test_scenes_are_frozen():
    split = Scenes(num_train=1, num_val=1, num_test=2).split("test")
    # Other values mean that published numbers no longer hold for what `dataset=scenes` gives.
    assert split.inputs[1, :, 10, 20].tolist() == pytest.approx([0.62582, 0.79183, 0.40531], abs=1e-4)
    assert split.targets["depth"][1, 0, ::21, 40].tolist() == pytest.approx([6.8451, 6.9593, 3.6116, 2.2919], abs=1e-3)
    assert torch.bincount(split.targets["segmentation"].flatten()).tolist() == pytest.approx(
        [3256, 3309, 887, 364, 175, 201], abs=3
    )


def test_missing_labels_are_of_training_samples_and_others_for_each_task(dataset):
    gaps = Scenes(**NUM, size=32, missing=0.3)
    labeled = torch.stack([TASKS[task].labeled(target) for task, target in gaps.split("train").targets.items()])
    assert labeled.sum(dim=1).tolist() == [14, 14, 14, 14]
    assert len(torch.unique(labeled, dim=0)) == 4
    assert torch.equal(gaps.split("train").inputs, dataset.split("train").inputs)
    for task, target in gaps.split("train").targets.items():
        TASKS[task].check_targets(target)
        rows = TASKS[task].labeled(target)
        assert torch.equal(target[rows], dataset.split("train").targets[task][rows])
        assert TASKS[task].labeled(gaps.split("val").targets[task]).all()
        assert TASKS[task].labeled(gaps.split("test").targets[task]).all()


def test_at_least_one_sample_keeps_its_label():
    split = Scenes(num_train=2, size=8, missing=0.99).split("train")
    assert all(TASKS[task].labeled(target).sum() == 1 for task, target in split.targets.items())


def test_noise_has_the_given_deviation_and_changes_no_label():
    clean, noisy = (Scenes(num_train=20, size=32, noise=noise).split("train") for noise in (0.0, 0.03))
    inside = (noisy.inputs > 0) & (noisy.inputs < 1)
    assert (noisy.inputs - clean.inputs)[inside].std().item() == pytest.approx(0.03, rel=0.02)
    assert torch.equal(noisy.targets["depth"], clean.targets["depth"])


def test_texture_is_the_contrast_of_the_patterns():
    def roughness(texture):
        images = Scenes(num_train=20, size=32, noise=0.0, texture=texture).split("train").inputs
        return images.diff(dim=3).abs().mean()

    assert roughness(1.0) > 1.3 * roughness(0.5) > 1.3 * 1.3 * roughness(0.0)


@pytest.mark.parametrize("most", [0, 1, 3])
def test_rooms_hold_at_most_max_objects(most):
    numbers = (draw_rooms(numpy.random.default_rng(0), 200, most, 0.5).shapes >= 0).sum(dim=1)
    assert sorted(set(numbers.tolist())) == (list(range(1, most + 1)) or [0])
    split = Scenes(num_train=10, size=16, max_objects=most).split("train")
    assert ((split.targets["segmentation"] > CEILING).any()) == (most > 0)
    assert (split.targets["objects"][..., 4] >= 0).any() == (most > 0)
    assert split.targets["objects"].shape == (10, max(most, 1), 6)


@pytest.mark.parametrize(
    ("argument", "wrong", "bounds"),
    [
        ("num_train", 0, ">= 1"),
        ("num_val", 0, ">= 1"),
        ("num_test", -1, ">= 1"),
        ("size", 7, ">= 8"),
        ("max_objects", -1, ">= 0"),
        ("texture", 1.1, r"in \[0, 1\]"),
        ("texture", -0.1, r"in \[0, 1\]"),
        ("noise", -0.1, ">= 0"),
        ("noise", math.nan, ">= 0"),
        ("missing", 1.0, r"in \[0, 1\)"),
        ("missing", -0.1, r"in \[0, 1\)"),
        ("scenes_seed", -1, ">= 0"),
    ],
)
def test_arguments_out_of_bounds_are_refused(argument, wrong, bounds):
    with pytest.raises(ValueError, match=f"{argument} must be {bounds}, found {wrong}"):
        Scenes(**{argument: wrong})


# ----------------------------------------------------------------------------------------------------- whole runs

SMOKE = [
    "dataset=scenes", "dataset.num_train=8", "dataset.num_val=4", "dataset.num_test=4", "dataset.size=16",
    "trainer=smoke", "trainer.batch_size=4", "runtime.quiet=true",
]  # fmt: skip
SMALL = ["backbone=resnet18", "backbone.width=0.125"]


@pytest.mark.parametrize("weighting", ["uncertainty", "pcgrad"])
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_whole_runs(weighting, missing, mtlrun):
    code, _, err = mtlrun(*SMOKE, *SMALL, f"weighting={weighting}", f"dataset.missing={missing}")
    assert code == 0, err
    (folder,) = run_folders()
    record = read_record(folder)
    assert record["config"]["names"]["backbone"] == "resnet18"
    assert {task: set(values) for task, values in record["test"].items()} == {
        "segmentation": {"loss", "miou", "pixel_accuracy"},
        "depth": {"loss", "abs_err", "rel_err"},
        "normals": {"loss", "mean_angle", "median_angle", "within_11", "within_22", "within_30"},
    }
    assert all(math.isfinite(value) for values in record["test"].values() for value in values.values())


OBJECTS = [
    "+task@tasks.objects=detection", "tasks.objects.num_classes=3", "tasks.objects.head.channels=32",
    "tasks.objects.head.num_convs=1",
]  # fmt: skip


@pytest.mark.parametrize("weighting", ["uncertainty", "pcgrad", "igb"])
def test_boxes_are_a_fourth_task(weighting, mtlrun):
    code, _, err = mtlrun(*SMOKE, *SMALL, *OBJECTS, f"weighting={weighting}", "trainer.micro_batches=2")
    assert code == 0, err
    (folder,) = run_folders()
    record = read_record(folder)
    assert list(record["config"]["tasks"]) == ["segmentation", "depth", "normals", "objects"]
    assert set(record["test"]["objects"]) == {"loss", "map50", "map"}
    assert 0 <= record["test"]["objects"]["map"] <= record["test"]["objects"]["map50"] <= 1


@pytest.mark.parametrize("model", ["cross_stitch", "single"])
def test_models_of_several_networks(model, mtlrun):
    code, _, err = mtlrun(*SMOKE, *SMALL, f"model={model}")
    assert code == 0, err


def test_scenes_choose_a_backbone_that_fits_and_accept_another(mtlrun):
    assert mtlrun(*SMOKE, "backbone.width=0.125", "trainer.monitor=normals/within_11")[0] == 0
    (folder,) = run_folders()
    config = read_record(folder)["config"]
    assert (config["names"]["backbone"], config["backbone"]["depth"]) == ("resnet18", 18)
    code, _, err = mtlrun(*SMOKE, "backbone=lenet")
    assert code == 2
    assert "use a backbone whose last stage gives maps, such as resnet18 or segnet" in err
