"""office31 and office_home, on tiny files in their layout."""

import shutil

import numpy
import pytest
import torch
from PIL import Image

from mtlrun.datasets import SPLITS, Loader, Office
from mtlrun.errors import DataError

DOMAINS = {"photo": "Real Photo", "sketch": "sketch"}
CLASSES = ["alarm", "bike", "calculator"]
COUNTS = {"photo": [5, 10, 2], "sketch": [10, 0, 5]}  # images of each class
# What the validation split holds: (domain, class, number). Another value means that published numbers no longer hold.
VAL = [("photo", 0, 2), ("photo", 1, 2), ("photo", 1, 3), ("sketch", 0, 4), ("sketch", 0, 6), ("sketch", 2, 0)]
OPTIONS = {"domains": DOMAINS, "num_classes": 3, "size": 4}


def write(root):
    """Write images whose grey levels say domain (100 or 200), class (10 to 30) and number."""
    for domain, (task, folder) in enumerate(DOMAINS.items(), start=1):
        for label, count in enumerate(COUNTS[task]):
            for number in range(count):
                path = root / folder / "images" / CLASSES[label] / f"{number:02}.{'png' if number % 2 else 'jpg'}"
                path.parent.mkdir(parents=True, exist_ok=True)
                level = 100 * domain + 10 * label + number
                Image.fromarray(numpy.full((6, 9, 3), level, numpy.uint8)).save(path)
    (root / "sketch" / "readme.txt").write_text("no image")
    return str(root)


def contents(split):
    """Return (domain, class, number) of each sample, read off the images."""
    levels = [round(float(split[index][0].mean()) * 255) for index in range(len(split))]
    return [(list(DOMAINS)[level // 100 - 1], level % 100 // 10, level % 10) for level in levels]


def test_a_sample_carries_the_label_of_its_own_domain_alone(tmp_path):
    dataset = Office(write(tmp_path), **OPTIONS)
    assert dataset.input_shape == (3, 4, 4)
    assert dataset.task_names == ("photo", "sketch")
    for name in SPLITS:
        split = dataset.split(name)
        for index, (domain, label, _) in enumerate(contents(split)):
            expected = {"photo": -1, "sketch": -1} | {domain: label}
            assert split[index][1] == expected
            assert {task: int(target[index]) for task, target in split.targets.items()} == expected
            assert index in split.sources[domain].tolist()
        assert sorted(torch.cat(list(split.sources.values())).tolist()) == list(range(len(split)))
        assert split.targets["photo"].dtype == torch.int64


def test_splits_are_stratified_disjoint_and_frozen(tmp_path):
    root = write(tmp_path)
    found = {name: contents(Office(root, **OPTIONS).split(name)) for name in SPLITS}
    everything = sorted(item for items in found.values() for item in items)
    assert everything == sorted(
        (task, label, number) for task in COUNTS for label in range(3) for number in range(COUNTS[task][label])
    )
    counts = {
        name: {(task, label): sum(item[:2] == (task, label) for item in items) for task in COUNTS for label in range(3)}
        for name, items in found.items()
    }
    part = {("photo", 0): 1, ("photo", 1): 2, ("photo", 2): 0, ("sketch", 0): 2, ("sketch", 1): 0, ("sketch", 2): 1}
    assert counts["val"] == counts["test"] == part
    assert found["val"] == VAL
    assert contents(Office(root, **OPTIONS, split_seed=1).split("val")) != VAL
    alone = Office(root, domains={"sketch": "sketch"}, num_classes=2, size=4).split("val")
    assert [item for item in VAL if item[0] == "sketch"] == [
        ("sketch", label, number) for _, label, number in contents(alone)
    ]


def write_lists(root, **changes):
    lists = {
        "Real Photo_train": "Real Photo/images/alarm/00.jpg 2\nReal Photo/images/alarm/01.png 0\n",
        "Real Photo_val": "Real Photo/images/bike/00.jpg 1\n",
        "Real Photo_test": "Real Photo/images/bike/02.jpg 1\n",
        "sketch_train": "sketch/images/alarm/00.jpg 0\n",
        "sketch_val": "sketch/images/alarm/02.jpg 0\n",
        "sketch_test": "sketch/images/alarm/04.jpg 0\n",
    } | changes
    for name, text in lists.items():
        (root / f"{name}.txt").write_text(text)
    return str(root / "{domain}_{split}.txt")


def test_split_lists_define_splits_and_classes(tmp_path):
    dataset = Office(write(tmp_path), **OPTIONS, lists=write_lists(tmp_path))
    split = dataset.split("train")
    assert contents(split) == [("photo", 0, 0), ("photo", 0, 1), ("sketch", 0, 0)]
    assert split.targets["photo"].tolist() == [2, 0, -1]
    assert split.targets["sketch"].tolist() == [-1, -1, 0]
    assert {source: indices.tolist() for source, indices in split.sources.items()} == {"photo": [0, 1], "sketch": [2]}
    assert contents(dataset.split("test")) == [("photo", 1, 2), ("sketch", 0, 4)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sketch/images/alarm/02.jpg 3", r"sketch_val\.txt, line 1: must be a path and a class 0\.\.2, found '.* 3'"),
        ("sketch/images/alarm/02.jpg", r"sketch_val\.txt, line 1: must be a path and a class"),
        ("sketch/images/alarm/99.jpg 1", r"sketch_val\.txt, line 1: there is no .*alarm/99\.jpg; office31"),
        (
            "sketch/images/alarm/00.jpg 0",
            r"sketch_val\.txt, line 1: .*00\.jpg is listed in .*sketch_train\.txt already",
        ),
        ("../x.jpg 1", r"sketch_val\.txt, line 1: '\.\./x\.jpg' leads out of the folder"),
        ("/etc/passwd 1", r"sketch_val\.txt, line 1: '/etc/passwd' leads out of the folder"),
    ],
)
def test_wrong_lists_are_named(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        Office(write(tmp_path), **OPTIONS, lists=write_lists(tmp_path, sketch_val=text))


def test_absent_lists_are_named(tmp_path):
    lists = write_lists(tmp_path)
    (tmp_path / "sketch_test.txt").unlink()
    with pytest.raises(DataError, match=r"there is no list .*sketch_test\.txt; set dataset\.lists"):
        Office(write(tmp_path), **OPTIONS, lists=lists)


def test_absent_folders_and_classes_are_named(tmp_path):
    with pytest.raises(
        DataError, match=r"there is no folder nowhere/Real Photo; office31 and office_home need <root>/"
    ):
        Office("nowhere", **OPTIONS)
    root = write(tmp_path)
    with pytest.raises(DataError, match=r"must hold 4 folders of classes, found 3 \(alarm, \.\.\., calculator\)"):
        Office(root, **{**OPTIONS, "num_classes": 4})
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no images"):
        Office(root, **{**OPTIONS, "domains": {"empty": "empty"}})


def test_identifiers_are_the_files(tmp_path):
    root = write(tmp_path)
    for cache in ("memory", "none"):
        split = Office(root, **OPTIONS, cache=cache).split("val")
        names = [
            f"{DOMAINS[domain]}/images/{CLASSES[label]}/{number:02}.{'png' if number % 2 else 'jpg'}"
            for domain, label, number in VAL
        ]
        assert split.sample_ids == names


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("normalize", ["none", "imagenet"])
def test_both_caches_give_the_same_batches(tmp_path, workers, normalize):
    root = write(tmp_path)
    found = []
    for cache in ("none", "memory"):
        split = Office(root, **OPTIONS, normalize=normalize, cache=cache).split("train")
        found.append(list(Loader(split, 5, shuffle=True, num_workers=workers).batches()))
    for (first, labels), (second, others) in zip(*found, strict=True):
        assert torch.equal(first, second)
        assert all(torch.equal(labels[task], others[task]) for task in DOMAINS)


def test_images_in_memory_are_decoded_once_to_bytes(tmp_path):
    dataset = Office(write(tmp_path), **OPTIONS)
    split = dataset.split("val")
    assert split.inputs.dtype == torch.uint8
    shutil.rmtree(tmp_path / "sketch")
    assert contents(split) == VAL
    assert dataset.split("val") is split
    assert {domain: indices.tolist() for domain, indices in split.sources.items()} == {
        "photo": [0, 1, 2],
        "sketch": [3, 4, 5],
    }


@pytest.mark.parametrize("cache", ["memory", "device"])
def test_broken_images_are_found_before_training(tmp_path, cache):
    dataset = Office(write(tmp_path), **OPTIONS, cache=cache)
    Office(str(tmp_path), **OPTIONS, cache="none").split("test").paths[3].write_bytes(b"GIF89a")
    with pytest.raises(DataError, match=r"\(sample 3 of the test split\): not a readable image"):
        dataset.split("test")


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_images_are_named_with_their_index(tmp_path, workers):
    dataset = Office(write(tmp_path), **OPTIONS, cache="none")
    split = dataset.split("test")
    split.paths[3].write_bytes(b"GIF89a")
    loader = Loader(split, 5, shuffle=False, num_workers=workers)
    with pytest.raises(DataError, match=rf"{split.paths[3].name} \(sample 3 of the test split\): not a readable image"):
        list(loader.batches())


@pytest.mark.parametrize(
    ("argument", "wrong", "message"),
    [
        ("domains", {}, "domains must name one or more folders, found none"),
        ("num_classes", 1, "num_classes must be >= 2, found 1"),
        ("size", 0, "size must be >= 1, found 0"),
        ("split_seed", -1, "split_seed must be >= 0, found -1"),
        ("cache", "disk", "cache must be one of 'auto', 'memory', 'device', 'none', found 'disk'"),
        ("lists", "{domain}.txt", r"lists must contain \{domain\} and \{split\}, found '\{domain\}\.txt'"),
    ],
)
def test_arguments_out_of_bounds_are_refused(argument, wrong, message):
    with pytest.raises(ValueError, match=message):
        Office("nowhere", **{**OPTIONS, argument: wrong})


@pytest.mark.parametrize("name", ["office31", "office_home"])
def test_it_trains(tmp_path, mtlrun, name):
    folders = {"office31": ["amazon", "dslr", "webcam"], "office_home": ["Art", "Clipart", "Product", "Real World"]}
    for folder in folders[name]:
        for label in range(2):
            (tmp_path / folder / f"class_{label}").mkdir(parents=True)
            for number in range(5):
                image = Image.fromarray(numpy.full((4, 4, 3), number, numpy.uint8))
                image.save(tmp_path / folder / f"class_{label}" / f"{number}.jpg")
    code, _, err = mtlrun(
        f"dataset={name}", f"dataset.root={tmp_path}", "dataset.num_classes=2", "dataset.size=8", "trainer=smoke",
        "runtime.quiet=true", "backbone.width=0.05", "trainer.batch_size=4",
    )  # fmt: skip
    assert code == 0, err


def test_batches_of_training_are_made_of_the_domains_as_the_command_line_says(tmp_path, mtlrun):
    for folder in ("amazon", "dslr", "webcam"):
        for label in range(2):
            (tmp_path / folder / f"class_{label}").mkdir(parents=True)
            for number in range(15 if folder == "amazon" else 5):
                image = Image.fromarray(numpy.full((4, 4, 3), number, numpy.uint8))
                image.save(tmp_path / folder / f"class_{label}" / f"{number}.jpg")
    code, _, err = mtlrun(
        "dataset=office31", f"dataset.root={tmp_path}", "dataset.num_classes=2", "dataset.size=8",
        "runtime.quiet=true", "backbone.width=0.05", "trainer.batch_size=4", "trainer.epochs=1",
        "dataset.sampling.strategy=round_robin", "dataset.cache=none",
    )  # fmt: skip
    assert code == 0, err
    (log,) = tmp_path.rglob("run.log")
    assert "task amazon: 18 samples, 18 drawn per epoch" in log.read_text()
    assert "task dslr: 6 samples, 18 drawn per epoch" in log.read_text()
