"""cifar10_voc, on tiny files in the layouts of torchvision."""

import pickle
import random

import numpy
import pytest
import torch
from helpers import read_record, run_folders
from PIL import Image
from torchvision.datasets import CIFAR10

from mtlrun.datasets import SPLITS, Cifar10VOC, Loader
from mtlrun.datasets.cifar10_voc import flipped
from mtlrun.errors import DataError
from mtlrun.tasks import Classification, Detection

WIDTH, HEIGHT = 50, 40
PERSON, CAT = 14, 7
# {part: {image: objects (name, difficult, xmin, ymin, xmax, ymax)}}
PARTS = {
    (2007, "train"): {
        "000001": [("person", 0, 1, 1, 25, 20), ("cat", 1, 11, 21, 50, 40)],
        "000002": [("person", 0, 6, 5, 45, 36)],
        "000003": [],
    },
    (2007, "val"): {"000004": [("cat", 0, 1, 1, 50, 40)], "000005": [("cat", 0, 1, 1, 10, 40)]},
    (2007, "test"): {"000006": [("person", 0, 1, 1, 25, 40)], "000007": [("cat", 0, 26, 1, 50, 40)]},
    (2012, "trainval"): {"2008_000001": [("cat", 0, 1.5, 0, 9.5, 10)] * 3},
}


def annotation(objects):
    parts = [
        f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        f"<bndbox><xmax>{x2}</xmax><xmin>{x1}</xmin><ymax>{y2}</ymax><ymin>{y1}</ymin></bndbox>"
        "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"
        for name, difficult, x1, y1, x2, y2 in objects
    ]
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    return f"<annotation>{size}{''.join(parts)}</annotation>"


def write_voc(root):
    for (year, part), images in PARTS.items():
        base = root / "VOCdevkit" / f"VOC{year}"
        for folder in ("ImageSets/Main", "JPEGImages", "Annotations"):
            (base / folder).mkdir(parents=True, exist_ok=True)
        (base / "ImageSets" / "Main" / f"{part}.txt").write_text("".join(f"{name}\n" for name in images))
        for name, objects in images.items():
            pixels = numpy.full((HEIGHT, WIDTH, 3), 20, numpy.uint8)
            pixels[:, : WIDTH // 2] = 10 * int(name[-6:])  # the left half has the image's number
            Image.fromarray(pixels).save(base / "JPEGImages" / f"{name}.jpg", quality=100)
            (base / "Annotations" / f"{name}.xml").write_text(annotation(objects))


def write_cifar(root, train=20, test=4):
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    start = 0
    for name, count in (("data_batch_1", train), ("test_batch", test)):
        numbers = numpy.arange(start, start + count)  # each image has its number as grey level
        data = numpy.repeat(numbers[:, None], 3 * 32 * 32, axis=1).astype(numpy.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": data, "labels": (numbers % 2).tolist()}))
        start += count
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["even", "odd"]}))


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Return a folder with both sources; checksums are those of the real files, and not asked for here."""
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", None]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", None]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": None})
    write_cifar(tmp_path)
    write_voc(tmp_path)
    return str(tmp_path)


def grey(image):
    """Return grey levels of a normalized image, [height, width]."""
    mean, std = (torch.tensor(values)[:, None, None] for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    levels = (image * std + mean) * 255
    assert levels.std(dim=0).max() < 2
    return levels.mean(dim=0)


def test_samples_are_those_of_the_files(root):
    dataset = Cifar10VOC(root, size=80, cifar_size=16)
    assert dataset.input_shape == (3, 80, 80)
    assert dataset.inputs_differ
    split = dataset.split("test")
    assert len(split) == 6
    assert {name: rows.tolist() for name, rows in split.sources.items()} == {"cifar10": [0, 1, 2, 3], "voc": [4, 5]}
    for index in range(4):
        image, targets = split[index]
        assert image.shape == (3, 16, 16)
        assert grey(image).mean().item() == pytest.approx(20 + index, abs=0.01)
        assert {task: int(target) for task, target in targets.items()} == {"category": index % 2}
    for index, box in ((4, [0, 0, 40, 80, PERSON, 0]), (5, [40, 0, 80, 80, CAT, 0])):
        image, targets = split[index]
        assert image.shape == (3, 80, 80)
        assert grey(image)[:, :38].mean().item() == pytest.approx(10 * (index + 2), abs=1)
        assert {task: target.tolist() for task, target in targets.items()} == {"objects": [box]}
    assert split.sample_ids == [f"cifar10/test/{row}" for row in range(4)] + ["VOC2007/000006", "VOC2007/000007"]


def test_boxes_are_from_edge_to_edge_and_difficult_objects_are_to_be_ignored(root):
    targets = Cifar10VOC(root, size=100).split("train").targets["objects"]
    # 50 x 40 pixels, counted from 1, become 100 x 100.
    assert targets[18].tolist() == [[0, 0, 50, 50, PERSON, 0], [20, 50, 100, 100, CAT, 1]]
    assert targets[19].tolist() == [[10, 10, 90, 90, PERSON, 0], [0, 0, 0, 0, -1, 0]]
    assert targets[20, :, 4].tolist() == [-1, -1]


def test_targets_are_what_the_tasks_take_and_missing_where_the_source_has_none(root):
    dataset = Cifar10VOC(root, size=64)
    tasks = {"category": Classification(10), "objects": Detection(20)}
    assert tuple(tasks) == dataset.task_names
    for name in SPLITS:
        split = dataset.split(name)
        for (task, kind), own in zip(tasks.items(), split.sources.values(), strict=True):
            kind.check_targets(split.targets[task])
            assert kind.labeled(split.targets[task]).nonzero().flatten().tolist() == own.tolist()
    assert dataset.split("val") is dataset.split("val")


def test_a_tenth_of_each_class_is_for_validation(root):
    def rows(name, **options):
        found = Cifar10VOC(root, size=32, **options).split(name)
        return [int(text.split("/")[-1]) for text in found.sample_ids if text.startswith("cifar10/train")]

    assert sorted(row % 2 for row in rows("val")) == [0, 1]
    assert sorted(rows("train") + rows("val")) == list(range(20))
    assert rows("val") == rows("val")
    assert rows("val", split_seed=1) != rows("val")


def test_voc_2012_is_trained_on_if_chosen(root):
    split = Cifar10VOC(root, size=100, years=[2007, 2012]).split("train")
    assert split.sample_ids[-1] == "VOC2012/2008_000001"
    assert len(split.sources["voc"]) == 4
    assert split.targets["objects"].shape == (22, 3, 6)
    assert split.targets["objects"][-1, 0].tolist() == pytest.approx([1, 0, 19, 25, CAT, 0])
    assert len(Cifar10VOC(root, size=100, years=[2007, 2012]).split("val").sources["voc"]) == 2


def test_boxes_are_flipped_with_their_image(root):
    split = Cifar10VOC(root, size=100).split("train")
    plain = Cifar10VOC(root, size=100, augment=False).split("train")
    random.seed(0)
    seen = set()
    for _ in range(20):
        image, targets = split[18]
        turned = not torch.equal(image, plain[18][0])
        seen.add(turned)
        assert torch.equal(image.flip(2) if turned else image, plain[18][0])
        first = [50, 0, 100, 50, PERSON, 0] if turned else [0, 0, 50, 50, PERSON, 0]
        second = [0, 50, 80, 100, CAT, 1] if turned else [20, 50, 100, 100, CAT, 1]
        assert targets["objects"].tolist() == [first, second]
    assert seen == {True, False}
    nothing = torch.tensor([[0.0, 0, 0, 0, -1, 0]])
    assert torch.equal(flipped(nothing, 100), nothing)


def test_small_images_are_cropped_in_training_alone(root):
    dataset = Cifar10VOC(root, size=32, cifar_size=32)
    row = next(row for row, text in enumerate(dataset.split("train").sample_ids) if text.endswith("/19"))
    random.seed(1)
    borders = set()
    for _ in range(30):
        levels = grey(dataset.split("train")[row][0])
        black = levels < 1
        assert levels[~black].mean().item() == pytest.approx(19, abs=0.01)
        borders.add((int(black.all(dim=0).sum()), int(black.all(dim=1).sum())))
    assert {number for pair in borders for number in pair} == {0, 1, 2, 3, 4}
    for name, options in (("val", {}), ("test", {}), ("train", {"augment": False})):
        split = Cifar10VOC(root, size=32, cifar_size=32, **options).split(name)
        assert torch.equal(split[0][0], split[0][0])
        assert grey(split[0][0]).std() < 0.01


def test_images_in_memory_are_those_in_files(root):
    split, lazy = (Cifar10VOC(root, size=32, cache=cache).split("test") for cache in ("memory", "none"))
    for one, other in zip(split, lazy, strict=True):
        assert torch.equal(one[0], other[0])
    with pytest.raises(ValueError, match="cache must be one of 'memory', 'none', found 'device'"):
        Cifar10VOC(root, cache="device")


# ------------------------------------------------------------------------------------------------------------- errors


def test_broken_images_are_named_with_their_index(root, tmp_path):
    (tmp_path / "VOCdevkit" / "VOC2007" / "JPEGImages" / "000005.jpg").write_bytes(b"no image")
    split = Cifar10VOC(root, size=32).split("val")
    message = r"000005\.jpg \(sample 3 of the val split\): not a readable image"
    with pytest.raises(DataError, match=message):
        list(Loader(split, 2, shuffle=False, per_source=True).batches())
    with pytest.raises(DataError, match=message):
        Cifar10VOC(root, size=32, cache="memory").split("val")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>", "not an annotation of Pascal VOC: no element found"),
        ("<annotation></annotation>", "<annotation> has no size/width"),
        (annotation([]).replace("50", "0", 1), "an image of 0 x 40 pixels"),
        (annotation([("unicorn", 0, 1, 1, 5, 5)]), "'unicorn' is none of its 20 classes"),
        (annotation([("cat", 0, 6, 1, 5, 5)]), r"the box \[6, 1, 5, 5\] of a cat has no pixels"),
        (annotation([("cat", 0, "six", 1, 5, 5)]), "could not convert string to float: 'six'"),
    ],
)
def test_broken_annotations_are_named_with_their_index(root, tmp_path, text, message):
    (tmp_path / "VOCdevkit" / "VOC2007" / "Annotations" / "000007.xml").write_text(text)
    with pytest.raises(DataError, match=rf"000007\.xml \(sample 5 of the test split\): .*{message}"):
        Cifar10VOC(root, size=32).split("test")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "cifar-10-batches-py/test_batch",
            r"CIFAR-10 is not in .*, or not whole; cifar10_voc needs <root>/cifar-10-batches-py/",
        ),
        ("VOCdevkit/VOC2007/ImageSets/Main/test.txt", r"there is no .*test\.txt; cifar10_voc needs .*download=true"),
        ("VOCdevkit/VOC2007/JPEGImages/000002.jpg", r"JPEGImages lacks 1 of the listed files, such as 000002\.jpg"),
        ("VOCdevkit/VOC2007/Annotations/000005.xml", r"Annotations lacks 1 of the listed files, such as 000005\.xml"),
    ],
)
def test_absent_files_are_named_with_where_they_belong(root, tmp_path, path, message):
    (tmp_path / path).unlink()
    with pytest.raises(DataError, match=message):
        Cifar10VOC(root)


@pytest.mark.parametrize("name", ["../../secret", "/etc/secret"])
def test_a_list_cannot_name_files_elsewhere(root, tmp_path, name):
    (tmp_path / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / "val.txt").write_text(f"{name}\n")
    with pytest.raises(DataError, match=rf"val\.txt: '{name}' leads out of the folder"):
        Cifar10VOC(root)


def test_an_empty_list_is_named(root, tmp_path):
    (tmp_path / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / "val.txt").write_text("\n")
    with pytest.raises(DataError, match=r"val\.txt is empty; cifar10_voc needs"):
        Cifar10VOC(root)


def test_present_files_are_not_downloaded_and_a_failed_download_is_reported(root, tmp_path, monkeypatch):
    wanted = []

    def fail(_, year, part, **__):
        wanted.append((year, part))
        raise OSError("no network")

    monkeypatch.setattr("mtlrun.datasets.cifar10_voc.VOCDetection", fail)
    Cifar10VOC(root, download=True)
    assert not wanted
    (tmp_path / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / "test.txt").unlink()
    with pytest.raises(DataError, match=r"Pascal VOC 2007 cannot be downloaded into .*: no network; cifar10_voc needs"):
        Cifar10VOC(root, download=True)
    assert wanted == [("2007", "test")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 31}, "size must be >= 32, found 31"),
        ({"cifar_size": 7}, "cifar_size must be >= 8, found 7"),
        ({"years": [2012]}, r"years must be \[2007\] or \[2007, 2012\], found \[2012\]"),
        ({"split_seed": -1}, "split_seed must be >= 0, found -1"),
    ],
)
def test_arguments_out_of_bounds_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Cifar10VOC("nowhere", **arguments)


# --------------------------------------------------------------------------------------------------------- whole runs


@pytest.mark.parametrize(
    "options",
    [["weighting=pcgrad"], ["dataset.sampling.batch_norm=per_source", "dataset.sampling.strategy=cycle"]],
    ids=["mixed", "apart"],
)
def test_it_trains(root, mtlrun, options):
    code, _, err = mtlrun(
        "dataset=cifar10_voc", f"dataset.root={root}", "dataset.size=64", "dataset.cifar_size=32",
        "dataset.sampling.epoch_length=3", "backbone=resnet18", "backbone.stem=imagenet", "backbone.width=0.125",
        "tasks.objects.head.channels=32", "tasks.objects.head.num_convs=1", "trainer.epochs=1", "trainer.batch_size=4",
        "runtime.quiet=true", *options,
    )  # fmt: skip
    assert code == 0, err
    record = read_record(run_folders()[0])
    assert {task: set(values) for task, values in record["test"].items()} == {
        "category": {"loss", "accuracy", "f1", "balanced_accuracy", "mcc", "log_loss", "ece"},
        "objects": {"loss", "map50", "map"},
    }
    assert all(numpy.isfinite(value) for values in record["test"].values() for value in values.values())
