"""nyuv2 and cityscapes, on tiny files in the layout of MTAN's authors."""

import numpy
import pytest
import torch

from mtlrun.datasets import SPLITS, Cityscapes, Loader, NYUv2, TensorSplit
from mtlrun.errors import DataError

SIZE = (4, 6)
TRAIN, VAL = 12, 3


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    numpy.save(path, array)


def arrays(index, classes):
    """Return files whose values say which they are."""
    random = numpy.random.default_rng(index)
    normals = random.standard_normal((*SIZE, 3))
    normals /= numpy.linalg.norm(normals, axis=2, keepdims=True)
    normals[0, 0] = 0
    label = random.integers(-1, classes, SIZE)
    label[0, 0] = -1
    return random.random((*SIZE, 3)), label, random.random((*SIZE, 1)) + index, normals


def write(root, name, types=(numpy.float32, numpy.float32, numpy.float64, numpy.float16)):
    for folder, count, first in (("train", TRAIN, 0), ("val", VAL, 100)):
        for index in range(count):
            image, label, depth, normals = arrays(first + index, 13 if name == "nyuv2" else 7)
            base = root / folder
            save(base / "image" / f"{index}.npy", image.astype(types[0]))
            save(base / ("label" if name == "nyuv2" else "label_7") / f"{index}.npy", label.astype(types[1]))
            save(base / "depth" / f"{index}.npy", depth.astype(types[2]))
            if name == "nyuv2":
                save(base / "normal" / f"{index}.npy", normals.astype(types[3]))
    return str(root)


@pytest.fixture
def nyuv2(tmp_path):
    return write(tmp_path / "nyuv2", "nyuv2")


@pytest.fixture
def cityscapes(tmp_path):
    return write(tmp_path / "cityscapes", "cityscapes", (numpy.float64, numpy.int8, numpy.float32))


def numbers(split):
    """Return which files the samples come from, read off the whole part of the depth."""
    return [int(split[index][1]["depth"].min()) for index in range(len(split))]


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_samples_are_those_of_the_files(nyuv2, cache):
    dataset = NYUv2(nyuv2, augment=False, cache=cache)
    assert dataset.input_shape == (3, *SIZE)
    assert dataset.task_names == ("segmentation", "depth", "normals")
    image, targets = dataset.split("test")[1]
    wanted, label, depth, normals = arrays(101, 13)
    torch.testing.assert_close(image, torch.tensor(wanted, dtype=torch.float32).permute(2, 0, 1))
    assert torch.equal(targets["segmentation"], torch.tensor(label))
    torch.testing.assert_close(targets["depth"], torch.tensor(depth, dtype=torch.float32).permute(2, 0, 1))
    expected = torch.tensor(normals, dtype=torch.float32).permute(2, 0, 1)
    torch.testing.assert_close(targets["normals"], expected, atol=1e-3, rtol=0)
    assert image.is_contiguous()
    assert {task: target.dtype for task, target in targets.items()} == {
        "segmentation": torch.int64, "depth": torch.float32, "normals": torch.float32,
    }  # fmt: skip


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_images_can_be_normalized_and_labels_stay_the_same(nyuv2, cache):
    (plain, targets), (image, others) = (
        NYUv2(nyuv2, normalize=normalize, cache=cache).split("test")[1] for normalize in ("none", "imagenet")
    )
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    torch.testing.assert_close(image, (plain - mean) / std)
    assert all(torch.equal(others[task], target) for task, target in targets.items())
    with pytest.raises(ValueError, match=r"^normalize must be one of"):
        NYUv2(nyuv2, normalize="mnist")


def test_cityscapes_reads_the_labels_of_the_chosen_classes(cityscapes):
    image, targets = Cityscapes(cityscapes).split("test")[0]
    wanted, label, depth, _ = arrays(100, 7)
    torch.testing.assert_close(image, torch.tensor(wanted, dtype=torch.float32).permute(2, 0, 1))
    assert torch.equal(targets["segmentation"], torch.tensor(label))
    torch.testing.assert_close(targets["depth"][0], torch.tensor(depth[..., 0], dtype=torch.float32))
    assert tuple(targets) == Cityscapes(cityscapes).task_names == ("segmentation", "depth")
    with pytest.raises(DataError, match=r"there is no folder .*train/label_19; cityscapes needs <root>/\{train,val\}/"):
        Cityscapes(cityscapes, classes=19)


def test_images_of_whole_numbers_are_bytes(tmp_path):
    root = write(tmp_path / "a", "nyuv2")
    save(tmp_path / "a" / "val" / "image" / "0.npy", numpy.full((*SIZE, 3), 51, numpy.uint8))
    assert NYUv2(root).split("test")[0][0].unique().tolist() == pytest.approx([0.2])


def test_a_map_may_lack_the_axis_of_its_one_channel(tmp_path):
    root = write(tmp_path / "a", "nyuv2")
    save(tmp_path / "a" / "val" / "depth" / "0.npy", numpy.ones(SIZE))
    save(tmp_path / "a" / "val" / "label" / "0.npy", numpy.ones((*SIZE, 1)))
    targets = NYUv2(root).split("test")[0][1]
    assert (targets["depth"].shape, targets["segmentation"].shape) == ((1, *SIZE), SIZE)


def test_validation_is_a_frozen_part_of_train_and_the_folder_val_is_the_test_split(nyuv2):
    dataset = NYUv2(nyuv2, augment=False, val_fraction=0.25)
    found = {name: numbers(dataset.split(name)) for name in SPLITS}
    assert found == {"train": [0, 1, 3, 4, 5, 6, 8, 10, 11], "val": [2, 7, 9], "test": [100, 101, 102]}
    assert sorted(found["train"] + found["val"]) == list(range(TRAIN))  # 2 before 10
    assert numbers(NYUv2(nyuv2, val_fraction=0.25, split_seed=1).split("val")) != found["val"]


@pytest.mark.parametrize(("cache", "augment"), [("memory", False), ("memory", True), ("none", False), ("none", True)])
def test_splits_in_memory_are_tensors_and_only_training_is_augmented(nyuv2, cache, augment):
    dataset = NYUv2(nyuv2, augment=augment, cache=cache, val_fraction=0.5)
    for name in SPLITS:
        split = dataset.split(name)
        assert split is dataset.split(name)
        plain = not (augment and name == "train")
        assert isinstance(split, TensorSplit) == (cache == "memory" and plain)
        assert (getattr(split, "targets", None) is not None) == (cache == "memory")
        draws = torch.stack([split[0][0] for _ in range(10)])
        assert (draws == draws[0]).all() == plain


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_identifiers_are_the_folder_and_the_number_of_a_file(nyuv2, cache):
    dataset = NYUv2(nyuv2, cache=cache, val_fraction=0.5)
    for name in SPLITS:
        split, folder, first = dataset.split(name), "val" if name == "test" else "train", 100 if name == "test" else 0
        plain = NYUv2(nyuv2, augment=False, val_fraction=0.5).split(name)
        assert split.sample_ids == [f"{folder}/{number - first}" for number in numbers(plain)]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_do_not_depend_on_the_cache(cityscapes, workers):
    found = []
    for cache in ("none", "memory"):
        loader = Loader(
            Cityscapes(cityscapes, cache=cache).split("train"), 4, shuffle=True, seed=1, num_workers=workers
        )
        found.append(list(loader.batches()))
    for (first, labels), (second, others) in zip(*found, strict=True):
        assert torch.equal(first, second)
        assert all(torch.equal(labels[task], others[task]) for task in labels)


def spoil(root, folder, array):
    save(root / "train" / folder / "0.npy", array)


@pytest.mark.parametrize("cache", ["none", "memory"])
@pytest.mark.parametrize(
    ("folder", "array", "message"),
    [
        ("image", numpy.full((*SIZE, 3), 1.5), r"floating-point images must be in \[0, 1\], found 1\.5\.\.1\.5"),
        ("image", numpy.full((*SIZE, 3), numpy.nan), r"floating-point images must be in \[0, 1\], found nan"),
        ("label", numpy.full(SIZE, 13), r"classes must be in 0\.\.12, or -1 where ignored, found 13"),
        ("label", numpy.full(SIZE, -2), r"classes must be in 0\.\.12, or -1 where ignored, found -2"),
        ("label", numpy.full(SIZE, 0.5), r"classes must be in 0\.\.12, or -1 where ignored, found 0\.5"),
        ("depth", numpy.full((*SIZE, 1), -1.0), r"depths must be finite and >= 0, 0 where invalid, found -1"),
        ("depth", numpy.full((*SIZE, 1), numpy.inf), r"depths must be finite and >= 0, 0 where invalid, found inf"),
        ("normal", numpy.full((*SIZE, 3), 1.0), r"normals must have length 1, or 0 where invalid, found 1\.73205"),
        ("normal", numpy.zeros((*SIZE, 2)), r"must be of shape \(4, 6, 3\), found \(4, 6, 2\)"),
        ("depth", numpy.zeros((4, 5)), r"must be of shape \(4, 6, 1\) or \(4, 6\), found \(4, 5\)"),
        ("depth", numpy.full(SIZE, "a"), r"must hold an array of numbers, found <U1"),
    ],
)
def test_wrong_files_are_named_before_training(nyuv2, tmp_path, cache, folder, array, message):
    spoil(tmp_path / "nyuv2", folder, array)
    dataset = NYUv2(nyuv2, cache=cache, val_fraction=0.25)
    with pytest.raises(DataError, match=rf"train/{folder}/0\.npy \(sample 0 of the train split\): {message}"):
        dataset.split("train")


@pytest.mark.parametrize("cache", ["none", "memory"])
@pytest.mark.parametrize("content", [b"", b"nothing", "half"])
def test_truncated_files_are_named_before_training(nyuv2, tmp_path, cache, content):
    path = tmp_path / "nyuv2" / "train" / "depth" / "5.npy"
    path.write_bytes(path.read_bytes()[:-20] if content == "half" else content)
    dataset = NYUv2(nyuv2, cache=cache)
    with pytest.raises(DataError, match=r"train/depth/5\.npy \(sample \d+ of the train split\): not a readable \.npy"):
        dataset.split("train")


def test_values_are_checked_at_each_access(nyuv2, tmp_path):
    split = NYUv2(nyuv2, augment=False).split("test")
    save(tmp_path / "nyuv2" / "val" / "label" / "1.npy", numpy.full(SIZE, 255))
    loader = Loader(split, 3, shuffle=False, num_workers=1)
    with pytest.raises(DataError, match=r"val/label/1\.npy \(sample 1 of the test split\): classes must be in .* 255"):
        list(loader.batches())


def test_missing_folders_and_files_are_named(nyuv2, tmp_path):
    root = tmp_path / "nyuv2"
    with pytest.raises(DataError, match=r"there is no folder nowhere/train/image; nyuv2 needs .*set dataset\.root"):
        NYUv2("nowhere")
    (root / "val" / "depth" / "2.npy").unlink()
    with pytest.raises(DataError, match=r"val/\{image,depth\} must hold the same files, found 1 .* such as 2\.npy"):
        NYUv2(nyuv2)
    for path in (root / "val" / "image").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"val/image holds no \.npy files"):
        NYUv2(nyuv2)
    save(root / "train" / "image" / "0.npy", numpy.zeros((3, *SIZE)))
    write(root, "nyuv2")
    save(root / "train" / "image" / "0.npy", numpy.zeros((3, *SIZE)))
    with pytest.raises(
        DataError, match=r"train/image/0\.npy: images must be of shape \(height, width, 3\), found \(3,"
    ):
        NYUv2(nyuv2)


def test_a_val_fraction_that_leaves_a_split_empty_is_refused(nyuv2):
    with pytest.raises(DataError, match=r"train: 12 images leave none for one of the splits train and val"):
        NYUv2(nyuv2, val_fraction=0.01)


@pytest.mark.parametrize(
    ("argument", "wrong", "bounds"),
    [
        ("val_fraction", 0.0, r"in \(0, 1\)"),
        ("val_fraction", 1.0, r"in \(0, 1\)"),
        ("split_seed", -1, ">= 0"),
        ("cache", "disk", "one of 'auto', 'memory', 'device', 'none'"),
    ],
)
def test_arguments_out_of_bounds_are_refused(nyuv2, argument, wrong, bounds):
    with pytest.raises(ValueError, match=f"{argument} must be {bounds}, found {wrong!r}"):
        NYUv2(nyuv2, **{argument: wrong})


def test_other_numbers_of_classes_are_refused(cityscapes):
    with pytest.raises(ValueError, match="classes must be one of 7, 19, found 8"):
        Cityscapes(cityscapes, classes=8)


TINY = ("trainer=smoke", "trainer.batch_size=4", "runtime.quiet=true", "backbone.width=0.05")


@pytest.mark.parametrize("name", ["nyuv2", "cityscapes"])
def test_it_trains(name, tmp_path, mtlrun):
    code, _, err = mtlrun(f"dataset={name}", f"dataset.root={write(tmp_path / name, name)}", *TINY)
    assert code == 0, err


def test_without_files_nothing_is_written(mtlrun, tmp_path):
    code, _, err = mtlrun("dataset=nyuv2", *TINY)
    assert code == 2
    assert "there is no folder data/nyuv2/train/image" in err
    assert not list(tmp_path.iterdir())
