"""Images of one's own, on small files."""

import pickle
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from mtlrun.datasets import SPLITS, Images, Loader
from mtlrun.errors import DataError

CLASSIFICATION = "mtlrun.tasks.Classification"
PARTS = ["train", "train", "train", "val", "test"]


@pytest.fixture(autouse=True)
def photos():
    """Five pictures of one color each, 6 x 4, in a folder with a folder in it."""
    Path("photos/more").mkdir(parents=True)
    lines = ["file,part,kind"]
    for number, part in enumerate(PARTS):
        name = f"more/{number}.png"
        Image.fromarray(numpy.full((4, 6, 3), [50 * number, 0, 255], dtype=numpy.uint8)).save(f"photos/{name}")
        lines.append(f"{name},{part},{'ab'[number % 2]}")
    Path("photos.csv").write_text("\n".join(lines) + "\n")


def build(**options):
    given = {"tasks": ["kind"], "kinds": [CLASSIFICATION], "size": 2, "split_column": "part"} | options
    return Images("photos", "photos.csv", **given)


@pytest.mark.parametrize("cache", ["memory", "none"])
@pytest.mark.parametrize(
    ("normalize", "red"),
    [
        ("none", [0, 50 / 255]),
        ("centered", [-1, 100 / 255 - 1]),
        ("imagenet", [-0.485 / 0.229, (50 / 255 - 0.485) / 0.229]),
    ],
)
def test_images_are_scaled_and_in_the_order_of_the_rows(cache, normalize, red):
    split = build(cache=cache, normalize=normalize).split("train")
    image, targets = split[1]
    assert image.shape == (3, 2, 2)
    assert [split[index][0][0, 0, 0].item() for index in (0, 1)] == pytest.approx(red, abs=1e-6)
    assert targets["kind"].item() == 1
    assert split.targets["kind"].tolist() == [0, 1, 0]
    assert split.sample_ids == [2, 3, 4]


def test_both_caches_give_the_same_batches():
    splits = [build(cache=cache).split("train") for cache in ("memory", "none")]
    batches = [list(Loader(split, 2, shuffle=True).batches()) for split in splits]
    for (inputs, targets), (others, other_targets) in zip(*batches, strict=True):
        assert torch.equal(inputs, others)
        assert torch.equal(targets["kind"], other_targets["kind"])


def test_memory_holds_bytes():
    assert build().split("train").inputs.dtype == torch.uint8


def test_bytes_are_scaled_on_the_device_on_which_they_lie():
    split = build(normalize="imagenet").split("train")
    moved = split.to("meta")
    images, targets = moved.batch([0, 2])
    assert (images.device.type, images.shape, images.dtype) == ("meta", (2, 3, 2, 2), torch.float32)
    assert targets["kind"].tolist() == [0, 0]
    assert moved[1][0].device.type == "meta"
    assert moved._scale._mean.device.type == "meta"  # "meta" lets a mixture of devices pass
    assert split[1][0].device.type == "cpu"


def test_grey_levels_have_one_channel():
    dataset = build(channels=1, normalize="none")
    image, _ = dataset.split("train")[0]
    assert image.shape == dataset.input_shape == (1, 2, 2)
    assert image.unique().tolist() == pytest.approx([29 / 255])  # blue is 0.114 of the brightness


def test_the_orientation_that_a_camera_noted_is_followed():
    picture = Image.fromarray(numpy.repeat(numpy.array([[0, 255]], numpy.uint8), 2, axis=0))  # dark left, bright right
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: dark at the top
    picture.save("photos/more/0.png", exif=exif)
    image, _ = build(normalize="none").split("train")[0]
    assert image[0].tolist() == [[0, 0], [1, 1]]


def test_a_lazy_split_goes_to_worker_processes():
    split = pickle.loads(pickle.dumps(build(cache="none").split("val")))
    assert split[0][0].shape == (3, 2, 2)


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_a_broken_image_is_named_with_its_row(cache):
    file = Path("photos/more/1.png")
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(DataError, match=r"photos.csv, column file, row 3: photos/more/1.png is not a readable image"):
        build(cache=cache).split("train")[1]


def test_deep_pixels_are_refused():
    Image.fromarray(numpy.full((4, 6), 1000, dtype=numpy.uint16)).save("photos/more/2.png")
    with pytest.raises(DataError, match=r"row 4: photos/more/2.png has I;16 pixels; only 8 bits"):
        build().split("train")


def test_an_image_in_two_splits_is_refused():
    table = Path("photos.csv")
    table.write_text(table.read_text().replace("more/2.png", "more/1.png"))
    assert len(build().split("train")) == 3
    table.write_text(table.read_text().replace("more/4.png", "more/0.png"))
    with pytest.raises(
        DataError, match=r"column file, row 6: the image 'more/0.png' is in the test split here, .* row 2"
    ):
        build()


def test_unlabeled_images_are_left_out_and_incomplete_or_repeated_rows_are_refused():
    table = Path("photos.csv")
    Image.new("RGB", (4, 4)).save("photos/unlabeled.png")
    assert sum(len(build().split(name)) for name in SPLITS) == 5
    text = table.read_text()
    table.write_text(text.replace("more/3.png,val,b", "more/3.png,val"))
    with pytest.raises(DataError, match=r"photos.csv, row 5: found 2 cells, and the header names 3 columns"):
        build()
    table.write_text(
        text.replace("file,part,kind", "file,part,kind,id").replace("a\n", "a,1\n").replace("b\n", "b,2\n")
    )
    with pytest.raises(DataError, match=r"photos.csv, column id, row 4: '1' is the id of row 2 too"):
        build(id_column="id")


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_an_empty_file_is_no_image(cache):
    Path("photos/more/1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"photos.csv, column file, row 3: photos/more/1.png is not a readable image"):
        build(cache=cache).split("train")[1]


def test_an_absent_image_is_named_with_its_row():
    Path("photos/more/4.png").unlink()
    with pytest.raises(DataError, match=r"photos.csv, column file, row 6: there is no file photos/more/4.png"):
        build()


def test_an_empty_cell_is_no_file():
    table = Path("photos.csv")
    table.write_text(table.read_text().replace("more/3.png", ""))
    with pytest.raises(DataError, match=r"photos.csv, column file, row 5: the cell is empty"):
        build()


def test_an_absent_column_is_refused():
    with pytest.raises(DataError, match=r"no column 'fil' for dataset.file_column; did you mean 'file'"):
        build(file_column="fil")


def test_splits_are_those_of_the_column():
    dataset = build()
    assert {name: len(dataset.split(name)) for name in SPLITS} == {"train": 3, "val": 1, "test": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root": None}, "root must name the folder"),
        ({"labels": None}, "labels must name a CSV"),
        ({"size": 0}, "size must be >= 1, found 0"),
        ({"cache": "disk"}, "cache must be one of 'memory', 'device', 'none', found 'disk'"),
        ({"channels": 1, "normalize": "imagenet"}, "normalize must be none or centered with channels=1"),
        ({"fractions": [0.5, 0.6, 0.1]}, "fractions must be three numbers"),
    ],
)
def test_arguments_out_of_bounds_are_refused(options, message):
    given = {"root": "photos", "labels": "photos.csv", "tasks": ["kind"], "kinds": [CLASSIFICATION]}
    with pytest.raises(ValueError, match=f"^{message}"):
        Images(**(given | options))


def test_the_program_trains_on_them_with_workers(mtlrun):
    code, _, err = mtlrun(
        "dataset=images", "dataset.root=photos", "dataset.labels=photos.csv", "dataset.split_column=part",
        "dataset.size=8", "dataset.cache=none", "backbone=mlp", "backbone.hidden=[4]", "runtime.num_workers=1",
        "+task@tasks.kind=classification", "trainer=smoke", "trainer.batch_size=2", "runtime.quiet=true",
    )  # fmt: skip
    assert code == 0, err
