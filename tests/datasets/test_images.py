"""Images of one's own, on small files."""

import json
import multiprocessing
import pickle
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from mtlrun.datasets import SPLITS, Images, Loader
from mtlrun.datasets.batches import fetching
from mtlrun.datasets.files.shifting import Augmentation
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


@pytest.mark.parametrize("channels", [1, 3])
def test_both_caches_give_the_same_batches(channels):
    changes = {"size": 16, "augment": ["shift", "flip"], "channels": channels}
    splits = [build(cache=cache, **changes).split("train") for cache in ("memory", "none")]
    batches = [list(Loader(split, 2, shuffle=True).batches()) for split in splits]
    for (inputs, targets), (others, other_targets) in zip(*batches, strict=True):
        assert torch.equal(inputs, others)
        assert inputs.stride() == others.stride()  # other strides, other rounding in convolutions
        assert torch.equal(targets["kind"], other_targets["kind"])


def test_training_images_are_shifted_anew_in_each_epoch_and_those_of_validation_never():
    for path in Path("photos/more").iterdir():  # a shift of one color changes nothing
        Image.fromarray(numpy.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=numpy.uint8)).save(path)
    dataset = build(size=16)
    loaders = {name: Loader(dataset.split(name), 3, shuffle=False) for name in ("train", "val")}

    def images(name, epoch):
        return next(iter(loaders[name].batches(epoch)))[0]

    plain = next(iter(Loader(build(size=16, augment=[]).split("train"), 3, shuffle=False).batches()))[0]
    assert not torch.equal(images("train", 0), images("train", 1))
    assert torch.equal(images("train", 1), images("train", 1))  # by seed, epoch and number of the batch alone
    assert torch.equal(images("val", 0), images("val", 1))
    assert not dataset.split("val").is_random
    assert plain.shape == images("train", 0).shape


def test_augmentation_shifts_by_up_to_an_eighth_with_the_edge_repeated_and_flips_half():
    image = torch.arange(24 * 16).view(1, 1, 24, 16)
    torch.manual_seed(0)
    shifted = Augmentation(["shift"])(image.expand(600, 1, 24, 16))
    padded = torch.nn.functional.pad(image.float(), (2, 2, 3, 3), mode="replicate").long()
    allowed = [padded[0, :, down : down + 24, right : right + 16] for down in range(7) for right in range(5)]
    counts = [sum(torch.equal(one, expected) for one in shifted) for expected in allowed]
    assert sum(counts) == 600
    assert min(counts) >= 5  # 17 are expected for each of the 35
    flipped = Augmentation(["flip"])(image.expand(600, 1, 24, 16))
    mirrored = sum(torch.equal(one, image[0].flip(-1)) for one in flipped)
    assert sum(torch.equal(one, image[0]) for one in flipped) + mirrored == 600
    assert 250 < mirrored < 350
    assert torch.equal(Augmentation([])(image), image)
    assert Augmentation(["shift"]).describe(7) == []


def test_memory_holds_bytes():
    assert build().split("train").inputs.dtype == torch.uint8


def test_bytes_are_scaled_on_the_device_on_which_they_lie():
    split = build(normalize="imagenet").split("train")
    moved = split.to("meta")
    images, targets = moved.batch([0, 2])
    assert (images.device.type, images.shape, images.dtype) == ("meta", (2, 3, 2, 2), torch.float32)
    assert targets["kind"].device.type == "meta"
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


def test_all_broken_images_of_a_split_are_named_at_once(monkeypatch):
    for name in ("0", "2"):
        Path(f"photos/more/{name}.png").write_bytes(b"no image")
    both = (
        r"2 \w+ cannot be \w+:\n  - .* row 2: photos/more/0.png is not .*\n"
        r"  - .* row 4: photos/more/2.png is not .*$"
    )
    for cache in ("memory", "none"):
        with pytest.raises(DataError, match=both):
            list(Loader(build(cache=cache).split("train"), 1, shuffle=True).batches())
    monkeypatch.setattr(fetching, "_SEARCH_SECONDS", -1.0)
    with pytest.raises(
        DataError, match=r"more/[02].png is not .*\n3 further samples of the split have not been looked at$"
    ):
        list(Loader(build(cache="none").split("train"), 1, shuffle=True).batches())


def test_deep_pixels_need_a_range():
    Image.fromarray(numpy.full((4, 6), 1000, dtype=numpy.uint16)).save("photos/more/2.png")
    with pytest.raises(DataError, match=r"row 4: photos/more/2.png has pixels of more than 8 bits .*1000 to 1000.*"):
        build().split("train")
    with pytest.raises(DataError, match=r"row 2: photos/more/0.png has pixels of 8 bits \(RGB\)"):
        build(pixel_range=[0, 65535]).split("train")


@pytest.mark.parametrize("cache", ["memory", "none"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("values", "pixel_range", "suffix"),
    [
        (numpy.array([[100, 300], [700, 1100]], numpy.uint16), [100, 1100], "png"),
        (numpy.array([[100, 300], [700, 1100]], numpy.int32), [100, 1100], "tif"),
        (numpy.array([[-1.0, -0.6], [0.2, 1.0]], numpy.float32), [-1, 1], "tiff"),
    ],
)
def test_deep_pixels_keep_their_values(values, pixel_range, suffix, channels, cache):
    table = Path("photos.csv")
    table.write_text(table.read_text().replace("png", suffix))
    for number in range(5):
        Image.fromarray(values).save(f"photos/more/{number}.{suffix}")
    dataset = build(pixel_range=pixel_range, channels=channels, normalize="none", cache=cache)
    image, _ = dataset.split("train")[0]
    assert image.shape == (channels, 2, 2)
    for channel in image:
        torch.testing.assert_close(channel, torch.tensor([[0.0, 0.2], [0.6, 1.0]]))
    centered = build(pixel_range=pixel_range, normalize="centered", cache=cache).split("train")
    torch.testing.assert_close(centered[0][0][0], torch.tensor([[-1.0, -0.6], [0.2, 1.0]]))
    torch.testing.assert_close(centered[0][0], centered[0][0].clone())  # reading does not change what is kept
    wrong = [pixel_range[0], pixel_range[1] - 0.5]
    with pytest.raises(DataError, match=r"row 2: .* has pixels from .* to .*, outside of dataset.pixel_range"):
        build(pixel_range=wrong, cache=cache).split("train")[0]


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("more/1", "more/1.png"),
        ("more\\1.png", "more/1.png"),
        ("more/1.PNG", "more/1.png"),
        ("MORE.1/x", None),
        ("more/11", None),
    ],
)
def test_names_of_files_are_understood_as_people_write_them(written, found, caplog):
    table = Path("photos.csv")
    table.write_text(table.read_text().replace("more/1.png", written))
    if found is None:
        with pytest.raises(DataError, match=r"row 3: there is no file photos/"):
            build()
        return
    with caplog.at_level("INFO"):
        image, _ = build(normalize="none").split("train")[1]
    assert image[0, 0, 0].item() == pytest.approx(50 / 255)
    assert "1 of 5 images were found under another ending, case or slash" in caplog.text


def test_a_name_that_fits_two_files_is_refused():
    Image.new("RGB", (4, 4)).save("photos/more/1.jpg")
    assert len(build().split("train")) == 3  # whole names
    table = Path("photos.csv")
    table.write_text(table.read_text().replace("more/1.png", "more/1"))
    with pytest.raises(DataError, match=r"row 3: 'more/1' may be 1.jpg or 1.png in photos/more; write the whole name"):
        build()


@pytest.mark.parametrize("name", ["../secret.png", "more/../../secret.png", "/secret.png", "..\\secret.png"])
def test_a_name_cannot_lead_out_of_the_folder(name):
    Image.new("RGB", (4, 4)).save("secret.png")
    table = Path("photos.csv")
    table.write_text(table.read_text().replace("more/1.png", name))
    with pytest.raises(DataError, match=r"row 3: .*secret.png' leads out of the folder photos"):
        build()


def test_no_program_is_started_for_an_image(monkeypatch):
    Image.new("RGB", (4, 4)).save("photos/more/1.eps")
    Path("photos/more/1.eps").rename("photos/more/1.png")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("Ghostscript was started"))
    with pytest.raises(DataError, match=r"more/1\.png is not a readable image: EPS is a program"):
        build(cache="none").split("train")[1]


def test_links_that_its_owner_has_put_into_the_folder_are_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    Image.new("RGB", (4, 4), "red").save("disk/1.png")
    Path("photos/linked").symlink_to(tmp_path / "disk")
    table = Path("photos.csv")
    table.write_text(table.read_text().replace("more/1.png", "linked/1.png"))
    assert build().split("train")


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
    with pytest.raises(DataError, match=r"photos.csv, column file, row 6: there is no file photos/more/4.png; "):
        build()
    Path("photos/more/1.png").unlink()
    with pytest.raises(DataError, match=r"(?s)^2 rows .* row 3: there is no file photos/more/1.png; .* row 6: "):
        build()
    with pytest.raises(DataError, match=r"^dataset.root=photo: there is no such folder, as seen from "):
        Images("photo", "photos.csv", tasks=["kind"], kinds=[CLASSIFICATION], split_column="part")


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
        ({"pixel_range": [1, 1]}, "pixel_range must be null"),
        ({"pixel_range": [0, float("inf")]}, r"pixel_range\[1\] must be finite, found inf"),
        ({"size": 0}, "size must be >= 1, found 0"),
        ({"cache": "disk"}, "cache must be one of 'auto', 'memory', 'device', 'none', found 'disk'"),
        ({"channels": 1, "normalize": "imagenet"}, "normalize must be none or centered with channels=1"),
        ({"fractions": [0.5, 0.6, 0.1]}, "fractions must be three numbers"),
    ],
)
def test_arguments_out_of_bounds_are_refused(options, message):
    given = {"root": "photos", "labels": "photos.csv", "tasks": ["kind"], "kinds": [CLASSIFICATION]}
    with pytest.raises(ValueError, match=f"^{message}"):
        Images(**(given | options))


def test_the_program_trains_on_them_with_workers_that_end_with_the_run(mtlrun):
    before = multiprocessing.active_children()
    code, _, err = mtlrun(
        "dataset=images", "dataset.root=photos", "dataset.labels=photos.csv", "dataset.split_column=part",
        "dataset.size=8", "dataset.cache=none", "backbone=mlp", "backbone.hidden=[4]", "runtime.num_workers=1",
        "+task@tasks.kind=classification", "trainer=smoke", "trainer.batch_size=2", "runtime.quiet=true",
    )  # fmt: skip
    assert code == 0, err
    assert set(multiprocessing.active_children()) <= set(before)  # else Python would wait for them at its end


def test_what_is_found_before_training_is_on_the_screen_and_in_the_log(mtlrun):
    table = Path("photos.csv")
    table.write_text(table.read_text().replace(".png", ""))
    code, out, _ = mtlrun(
        "dataset=images", "dataset.root=photos", "dataset.labels=photos.csv", "dataset.split_column=part",
        "dataset.size=8", "backbone=mlp", "backbone.hidden=[4]", "+task@tasks.kind=classification", "trainer=smoke",
    )  # fmt: skip
    assert code == 0
    assert "5 of 5 images were found under another ending, case or slash" in " ".join(out.split())
    (log,) = Path("outputs").rglob("run.log")
    assert "5 of 5 images were found" in log.read_text()


def test_small_images_and_random_changes_are_announced(mtlrun):
    given = ("dataset=images", "dataset.root=photos", "dataset.labels=photos.csv", "dataset.split_column=part",
             "+task@tasks.kind=classification", "trainer=smoke")  # fmt: skip
    code, out, err = mtlrun(
        *given, "dataset.size=32", "backbone=resnet18", "backbone.stem=imagenet", "backbone.width=0.1"
    )
    assert code == 0, err
    notes = json.loads(next(Path("outputs").rglob("record.json")).read_text())["notes"]
    for start in (
        "training images are shifted by up to 4 pixels at random;",
        "images are enlarged to 32 x 32 pixels: of all images none has a side of more than 6;",
        "images of 32 x 32 are small for backbone=resnet18: the maps of stage 5 of 5 are single pixels",
    ):
        assert sum(note.startswith(start) for note in notes) == 1, notes
        assert start in " ".join(out.split())
    code, out, _ = mtlrun(*given, "dataset.size=6", "dataset.augment=[]", "backbone.channels=[4,4]")
    assert code == 0
    assert "images are" not in out
    code, _, err = mtlrun(*given, "dataset.augment=[rotate]")
    assert code == 2
    assert "dataset.augment must be a list of one of 'shift', 'flip', found ['rotate']" in err
