"""multimnist and its kin, on small IDX files that the tests write."""

import gzip
import hashlib
import json

import numpy
import pytest
import torch
import torchvision

from mtlrun.datasets import SPLITS, MultiMNIST
from mtlrun.errors import DataError

FOLDERS = {"mnist": "MNIST", "fashion": "FashionMNIST"}
TRAIN, TEST = 36, 8
SIZES = {"train": 30, "val": 6, "test": 8}


def idx(items):
    """Return the content of an IDX file of unsigned bytes."""
    return bytes([0, 0, 8, items.ndim]) + numpy.array(items.shape, dtype=">i4").tobytes() + items.tobytes()


def source(name):
    """Return the files of a source, {file name: items}; images are random and never black, labels are random."""
    random = numpy.random.default_rng(list(FOLDERS).index(name))
    files = {}
    for part, count in {"train": TRAIN, "t10k": TEST}.items():
        files[f"{part}-images-idx3-ubyte"] = random.integers(1, 256, (count, 28, 28), dtype=numpy.uint8)
        files[f"{part}-labels-idx1-ubyte"] = random.integers(0, 10, count, dtype=numpy.uint8)
    return files


@pytest.fixture
def root(tmp_path):
    for name, folder in FOLDERS.items():
        raw = tmp_path / "data" / folder / "raw"
        raw.mkdir(parents=True)
        for file, items in source(name).items():
            (raw / file).write_bytes(idx(items))
    return tmp_path / "data"


def images_of(name, split):
    """Return the images and labels of a source that belong to a split."""
    files, part = source(name), "t10k" if split == "test" else "train"
    chosen = {"train": slice(0, 30), "val": slice(30, 36), "test": slice(0, 8)}[split]
    return files[f"{part}-images-idx3-ubyte"][chosen], files[f"{part}-labels-idx1-ubyte"][chosen]


def expected_pair(left, right):
    """Overlay two images pixel by pixel, resize by the nearest pixel, normalize."""
    canvas = numpy.zeros((36, 36))
    canvas[0:28, 0:28] = left
    canvas[6:34, 6:34] = numpy.maximum(canvas[6:34, 6:34], right)
    nearest = [int((place + 0.5) * 36 / 28) for place in range(28)]
    return (canvas[nearest][:, nearest] / 255 - 0.1307) / 0.3081


@pytest.mark.parametrize(
    ("left", "right"), [("mnist", "mnist"), ("fashion", "fashion"), ("mnist", "fashion"), ("fashion", "mnist")]
)
@pytest.mark.parametrize("name", SPLITS)
def test_samples_are_overlays_of_each_image_of_the_split_with_another_one_of_it(root, left, right, name):
    split = MultiMNIST(str(root), left=left, right=right).split(name)
    (lefts, left_labels), (rights, right_labels) = images_of(left, name), images_of(right, name)
    assert split.inputs.shape == (SIZES[name], 1, 28, 28)
    assert split.inputs.dtype == torch.float32
    assert split.targets["left"].tolist() == left_labels.tolist()
    assert split.targets["left"].dtype == split.targets["right"].dtype == torch.int64
    for index in range(len(split)):
        image, targets = split[index]
        matching = [
            partner
            for partner, other in enumerate(rights)
            if numpy.allclose(expected_pair(lefts[index], other), image[0].numpy(), atol=1e-5)
        ]
        assert len(matching) == 1
        assert left != right or matching[0] != index
        assert targets["right"] == right_labels[matching[0]]
        first = 30 if name == "val" else 0  # the places are those in the file
        assert split.sample_ids[index] == [first + index, first + matching[0]]
    assert json.loads(json.dumps(split.sample_ids)) == split.sample_ids


def test_pairs_are_frozen(root):
    digest = hashlib.sha256()
    for right in FOLDERS:
        dataset = MultiMNIST(str(root), right=right)
        for name in SPLITS:
            digest.update(dataset.split(name).targets["right"].numpy().astype(numpy.uint8).tobytes())
    # Another value means that results of earlier versions no longer hold for the data.
    assert digest.hexdigest() == "eed54e7ede0cc9a0ca0b1f2aef9dfcb556de47695b93d6763796bfdf3bb4bddb"


def test_pairs_do_not_depend_on_the_global_random_state(root):
    numpy.random.seed(0)
    first = MultiMNIST(str(root)).split("train")
    numpy.random.seed(1)
    torch.manual_seed(1)
    assert torch.equal(MultiMNIST(str(root)).split("train").inputs, first.inputs)
    assert not torch.equal(MultiMNIST(str(root), pairs_seed=1).split("train").inputs, first.inputs)


def test_a_smaller_split_is_the_start_of_the_whole_one(root):
    whole, small = MultiMNIST(str(root)), MultiMNIST(str(root), num_train=5, num_val=2, num_test=8)
    for name, count in {"train": 5, "val": 2, "test": 8}.items():
        assert torch.equal(small.split(name).inputs, whole.split(name).inputs[:count])
        assert torch.equal(small.split(name).targets["right"], whole.split(name).targets["right"][:count])


def test_only_the_sources_that_are_used_are_needed_and_packed_files_are_read(root):
    for path in (root / "FashionMNIST" / "raw").iterdir():
        path.unlink()
    whole = MultiMNIST(str(root)).split("test")
    for path in (root / "MNIST" / "raw").iterdir():
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert torch.equal(MultiMNIST(str(root)).split("test").inputs, whole.inputs)


def test_files_that_are_absent_are_named_with_the_way_to_get_them(root):
    (root / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError) as caught:
        MultiMNIST(str(root), right="fashion")
    message = str(caught.value)
    assert str(root / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte") in message
    assert "set dataset.root to the folder that holds FashionMNIST/raw" in message
    assert "dataset.download=true" in message
    assert "\n" not in message


IMAGES = source("mnist")["train-images-idx3-ubyte"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (idx(IMAGES)[:-1], "has 28239 bytes, and its header says 28240"),
        (idx(IMAGES) + b"1", "has 28241 bytes, and its header says 28240"),
        (b"", r"is not an IDX file of n x 28 x 28 bytes \(it starts with \[\]\)"),
        (idx(IMAGES)[:10], r"is not an IDX file of n x 28 x 28 bytes \(it starts with \[2051, 36\]\)"),
        (idx(IMAGES[:, :14]), r"is not an IDX file of n x 28 x 28 bytes \(it starts with \[2051, 36, 14, 28\]\)"),
        (idx(IMAGES[:, 0, 0]), "is not an IDX file of n x 28 x 28 bytes"),
        (idx(IMAGES[:35]), "has 35 images and 36 labels in its train files"),
        (idx(IMAGES[:5]), "has 5 images and 36 labels in its train files"),
    ],
)
def test_files_that_are_wrong_are_named(root, content, problem):
    (root / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match=problem) as caught:
        MultiMNIST(str(root))
    assert str(root / "MNIST" / "raw") in str(caught.value)


def test_a_packed_file_that_is_cut_off_is_named(root):
    path = root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes())[:100])
    path.unlink()
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.* cannot be read: "):
        MultiMNIST(str(root))


def test_too_few_images_for_pairs_in_each_split_are_refused(root):
    raw = root / "MNIST" / "raw"
    for kind, items in (("images-idx3", IMAGES), ("labels-idx1", source("mnist")["train-labels-idx1-ubyte"])):
        (raw / f"train-{kind}-ubyte").write_bytes(idx(items[:11]))
    with pytest.raises(DataError, match=r"MNIST: the val split has 1 images, and pairs need 2 or more"):
        MultiMNIST(str(root))


def test_download_is_torchvisions_and_fetches_what_is_used(root, monkeypatch):
    asked = []
    monkeypatch.setattr(torchvision.datasets, "MNIST", lambda root, download: asked.append((root, download)))
    MultiMNIST(str(root), download=True)
    assert asked == [(str(root), True)]

    def fail(root, download):
        raise RuntimeError("no mirror answers\nin detail")

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", fail)
    with pytest.raises(DataError, match=r"dataset.download: FashionMNIST could not be .*: no mirror answers$"):
        MultiMNIST(str(root), right="fashion", download=True)
    assert len(MultiMNIST(str(root), right="fashion").split("test")) == 8


@pytest.mark.parametrize(
    ("argument", "wrong", "bounds"),
    [
        ("num_train", 0, ">= 1, or null, found 0"),
        ("num_val", 7, "<= 6, the images of the split, found 7"),
        ("left", "digits", "'mnist' or 'fashion', found 'digits'"),
        ("pairs_seed", -1, ">= 0, found -1"),
    ],
)
def test_arguments_out_of_bounds_are_refused(root, argument, wrong, bounds):
    with pytest.raises(ValueError, match=f"^{argument} must be {bounds}"):
        MultiMNIST(str(root), **{argument: wrong})


@pytest.mark.parametrize("name", ["multimnist", "multifashion", "multifashionmnist"])
def test_each_multimnist_dataset_trains(root, mtlrun, name):
    code, _, err = mtlrun(
        "trainer=smoke", "trainer.batch_size=8", "runtime.quiet=true", f"dataset={name}", f"dataset.root={root}"
    )
    assert code == 0, err


def test_a_run_without_files_writes_nothing(mtlrun, tmp_path):
    code, _, err = mtlrun("trainer=smoke", "dataset=multimnist")
    assert code == 2
    assert "no file data/MNIST/raw/train-images-idx3-ubyte" in err
    assert list(tmp_path.iterdir()) == []
