"""oxford_pets, on tiny files in torchvision's layout."""

import shutil

import numpy
import pytest
import torch
from PIL import Image

from mtlrun.datasets import SPLITS, Loader, OxfordPets
from mtlrun.errors import DataError

BREEDS = [("Abyssinian", 1, 1), ("beagle", 5, 2), ("pug", 26, 2)]
TRAINVAL, TEST = 5, 2  # images of each breed


def trimap(number):
    pixels = numpy.full((8, 16), 2, numpy.uint8)
    pixels[:4, 4:12] = 3
    pixels[:4, 6:10] = 1
    return numpy.roll(pixels, number % 2 * 4, axis=0)


def write(root):
    base = root / "oxford-iiit-pet"
    (base / "annotations" / "trimaps").mkdir(parents=True)
    (base / "images").mkdir()
    number = 0
    for part, count in (("trainval", TRAINVAL), ("test", TEST)):
        lines = []
        for name, breed, species in BREEDS:
            for _ in range(count):
                number += 1
                lines.append(f"{name}_{number} {breed} {species} 1")
                Image.fromarray(numpy.full((8, 16, 3), 10 * number, numpy.uint8)).save(
                    base / "images" / f"{name}_{number}.jpg"
                )
                Image.fromarray(trimap(number)).save(base / "annotations" / "trimaps" / f"{name}_{number}.png")
        (base / "annotations" / f"{part}.txt").write_text("\n".join(lines) + "\n")
    return str(root)


def numbers(split):
    """Return the numbers of the images, read off their grey levels."""
    return [round(float(split[index][0].mean()) * 255 / 10) for index in range(len(split))]


def test_samples_are_those_of_the_files(tmp_path):
    dataset = OxfordPets(write(tmp_path), size=4)
    assert dataset.input_shape == (3, 4, 4)
    split = dataset.split("test")
    assert numbers(split) == [16, 17, 18, 19, 20, 21]
    assert [split[index][1]["breed"] for index in range(6)] == [0, 0, 4, 4, 25, 25]
    assert [split[index][1]["species"] for index in range(6)] == [0, 0, 1, 1, 1, 1]
    image, targets = split[0]
    assert image.shape == (3, 4, 4)
    assert tuple(targets) == dataset.task_names == ("breed", "species", "segmentation")
    assert targets["segmentation"].dtype == torch.int64
    # The middles of four columns: 2, 6, 10, 14; of four rows: 1, 3, 5, 7.
    assert targets["segmentation"].tolist() == [[1, 0, 2, 1]] * 2 + [[1, 1, 1, 1]] * 2
    assert split[1][1]["segmentation"].tolist() == [[1, 1, 1, 1]] * 2 + [[1, 0, 2, 1]] * 2


def test_validation_is_a_frozen_part_of_each_breed_of_trainval(tmp_path):
    root = write(tmp_path)
    found = {name: numbers(OxfordPets(root, size=4).split(name)) for name in SPLITS}
    assert found["val"] == [3, 10, 11]
    assert sorted(found["train"] + found["val"]) == list(range(1, 16))
    assert numbers(OxfordPets(root, size=4, split_seed=1).split("val")) != found["val"]
    assert len(OxfordPets(root, val_fraction=0.4).split("val")) == 6


def test_images_that_are_no_rgb_are_converted(tmp_path):
    root = write(tmp_path)
    path = tmp_path / "oxford-iiit-pet" / "images" / "pug_20.jpg"
    Image.fromarray(numpy.full((8, 16, 4), 60, numpy.uint8)).save(path, format="PNG")
    assert OxfordPets(root, size=4).split("test")[4][0].mean().item() == pytest.approx(60 / 255)


@pytest.mark.parametrize("workers", [0, 1])
def test_both_caches_give_the_same_batches(tmp_path, workers):
    root, found = write(tmp_path), []
    for cache in ("none", "memory"):
        split = OxfordPets(root, size=4, cache=cache).split("train")
        found.append(list(Loader(split, 5, shuffle=True, num_workers=workers).batches()))
    for (first, labels), (second, others) in zip(*found, strict=True):
        assert torch.equal(first, second)
        assert all(torch.equal(labels[task], others[task]) for task in OxfordPets.task_names)
        assert {labels[task].dtype for task in labels} == {torch.int64}


def test_files_in_memory_are_read_once(tmp_path):
    dataset = OxfordPets(write(tmp_path), size=4)
    split = dataset.split("test")
    shutil.rmtree(tmp_path)
    assert numbers(split) == [16, 17, 18, 19, 20, 21]
    assert dataset.split("test") is split


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_identifiers_are_the_names_of_the_images(tmp_path, cache):
    found = OxfordPets(write(tmp_path), size=4, cache=cache).split("test").sample_ids
    assert found == [
        "Abyssinian_16.jpg",
        "Abyssinian_17.jpg",
        "beagle_18.jpg",
        "beagle_19.jpg",
        "pug_20.jpg",
        "pug_21.jpg",
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_trimaps_are_named_with_their_index(tmp_path, workers):
    root = write(tmp_path)
    path = tmp_path / "oxford-iiit-pet" / "annotations" / "trimaps" / "beagle_18.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"beagle_18\.png \(sample 2 of the test split\): not a readable image"):
        OxfordPets(root, size=4).split("test")
    split = OxfordPets(root, size=4, cache="none").split("test")
    loader = Loader(split, 6, shuffle=False, num_workers=workers)
    with pytest.raises(DataError, match=r"beagle_18\.png \(sample 2 of the test split\): not a readable image"):
        list(loader.batches())


def test_wrong_trimaps_and_broken_images_are_named_with_their_index(tmp_path):
    root = write(tmp_path)
    base = tmp_path / "oxford-iiit-pet"
    split = OxfordPets(root, size=4, cache="none").split("test")
    path = base / "annotations" / "trimaps" / "beagle_18.png"
    Image.fromarray(numpy.full((8, 16), 4, numpy.uint8)).save(path)
    with pytest.raises(
        DataError, match=r"beagle_18\.png \(sample 2 .*must hold 1, 2 and 3 in one channel, found 4\.\.4"
    ):
        split[2]
    (base / "images" / "beagle_19.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"beagle_19\.jpg \(sample 3 of the test split\): not a readable image"):
        split[3]


def test_absent_files_are_named(tmp_path):
    with pytest.raises(
        DataError, match=r"there is no nowhere/oxford-iiit-pet/annotations/trainval\.txt; .*download=true"
    ):
        OxfordPets("nowhere")
    root = write(tmp_path)
    (tmp_path / "oxford-iiit-pet" / "annotations" / "trimaps" / "pug_20.png").unlink()
    with pytest.raises(DataError, match=r"trimaps lacks 1 of the listed files, such as pug_20\.png; oxford_pets needs"):
        OxfordPets(root)
    (tmp_path / "oxford-iiit-pet" / "images" / "pug_21.jpg").unlink()
    with pytest.raises(DataError, match=r"images lacks 1 of the listed files, such as pug_21\.jpg"):
        OxfordPets(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a_1 38 1 1\n", r"test\.txt, line 1: must be a name, a breed 1\.\.37, .*found 'a_1 38 1 1'"),
        ("a_1 1 3 1\n", r"test\.txt, line 1: must be"),
        ("a_1 1\n", r"test\.txt, line 1: must be"),
        ("", r"test\.txt is empty"),
    ],
)
def test_wrong_lists_are_named(tmp_path, text, message):
    root = write(tmp_path)
    (tmp_path / "oxford-iiit-pet" / "annotations" / "test.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        OxfordPets(root)


def test_a_failed_download_is_reported_in_one_line(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("mtlrun.datasets.oxford_pets.OxfordIIITPet", fail)
    with pytest.raises(DataError, match=r"cannot be downloaded into .*: no network"):
        OxfordPets(str(tmp_path), download=True)


@pytest.mark.parametrize(
    ("argument", "wrong", "bounds"),
    [
        ("size", 0, ">= 1"),
        ("val_fraction", 1.0, r"in \(0, 1\)"),
        ("split_seed", -1, ">= 0"),
        ("cache", "disk", "one of 'auto', 'memory', 'device', 'none'"),
    ],
)
def test_arguments_out_of_bounds_are_refused(argument, wrong, bounds):
    with pytest.raises(ValueError, match=f"{argument} must be {bounds}, found {wrong!r}"):
        OxfordPets("nowhere", **{argument: wrong})


def test_it_trains(tmp_path, mtlrun):
    code, _, err = mtlrun(
        "dataset=oxford_pets", f"dataset.root={write(tmp_path)}", "dataset.size=16", "trainer=smoke",
        "runtime.quiet=true", "backbone.width=0.05", "trainer.batch_size=4",
    )  # fmt: skip
    assert code == 0, err
