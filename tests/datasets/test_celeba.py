"""celeba, on tiny files in both layouts."""

import numpy
import pytest
import torch
from PIL import Image

from mtlrun.datasets import SPLITS, CelebA, Loader
from mtlrun.datasets.celeba import ATTRIBUTES
from mtlrun.errors import DataError

PARTITION = [0, 0, 1, 2, 0, 1, 0, 2]
VALUES = numpy.where(numpy.random.default_rng(0).random((len(PARTITION), 40)) < 0.4, 1, -1)


def write(root, layout="source"):
    if layout == "source":
        attributes, partition, images = (root / name for name in ("Anno", "Eval", "Img/img_align_celeba"))
    else:
        attributes, partition, images = root / "celeba", root / "celeba", root / "celeba" / "img_align_celeba"
    for folder in (attributes, partition, images):
        folder.mkdir(parents=True, exist_ok=True)
    names = [f"{index:06}.jpg" for index in range(1, len(PARTITION) + 1)]
    header = ["5_o_Clock_Shadow", *ATTRIBUTES[1:]]
    rows = [f"{name} " + " ".join(f"{value:2d}" for value in row) for name, row in zip(names, VALUES, strict=True)]
    (attributes / "list_attr_celeba.txt").write_text("\n".join([str(len(names)), " ".join(header) + " ", *rows]) + "\n")
    lines = [f"{name} {part}" for name, part in zip(names, PARTITION, strict=True)]
    (partition / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    for index, name in enumerate(names):
        # Each image has a grey level of its own in its upper half, and is red below.
        pixels = numpy.full((21, 17, 3), index * 20, numpy.uint8)
        pixels[11:] = [255, 0, 0]
        Image.fromarray(pixels).save(images / name, quality=95)
    return str(root)


@pytest.mark.parametrize("layout", ["source", "torchvision"])
def test_samples_are_those_of_the_files_in_the_official_partition(tmp_path, layout):
    dataset = CelebA(write(tmp_path, layout), size=8)
    assert dataset.input_shape == (3, 8, 8)
    assert dataset.task_names == ATTRIBUTES
    for part, name in enumerate(SPLITS):
        split = dataset.split(name)
        chosen = [index for index in range(len(PARTITION)) if PARTITION[index] == part]
        assert len(split) == len(chosen)
        for place, index in enumerate(chosen):
            image, targets = split[place]
            assert list(targets.values()) == ((VALUES[index] + 1) // 2).tolist()
            assert image[:, 0].mean() == pytest.approx(index * 20 / 255, abs=0.03)
            assert image[:, -1].mean(dim=1).tolist() == pytest.approx([1, 0, 0], abs=0.05)
        expected = torch.tensor((VALUES[chosen] + 1) // 2)
        assert torch.equal(torch.stack([split.targets[task] for task in ATTRIBUTES], dim=1), expected)


def test_the_names_of_the_tasks_are_those_of_the_columns():
    assert len(set(ATTRIBUTES)) == 40
    assert [ATTRIBUTES[index] for index in (0, 20, 31, 39)] == ["Five_o_Clock_Shadow", "Male", "Smiling", "Young"]


def test_normalization_is_that_of_imagenet(tmp_path):
    root = write(tmp_path)
    plain = CelebA(root, size=4).split("train")[2][0]
    found = CelebA(root, size=4, normalize="imagenet").split("train")[2][0]
    expected = (plain - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        3, 1, 1
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_hold_whole_numbers(tmp_path, workers):
    loader = Loader(CelebA(write(tmp_path), size=4).split("train"), 4, shuffle=False, num_workers=workers)
    ((images, targets),) = loader.batches()
    assert images.shape == (4, 3, 4, 4)
    assert images.dtype == torch.float32
    assert targets["Smiling"].dtype == torch.int64
    assert targets["Smiling"].tolist() == ((VALUES[[0, 1, 4, 6], ATTRIBUTES.index("Smiling")] + 1) // 2).tolist()


def test_both_caches_give_the_same_batches_of_the_files_that_they_name(tmp_path):
    root, found = write(tmp_path), []
    for cache in ("none", "memory"):
        split = CelebA(root, size=4, cache=cache).split("train")
        assert split.sample_ids == ["000001.jpg", "000002.jpg", "000005.jpg", "000007.jpg"]
        found.append(next(Loader(split, 4, shuffle=True).batches()))
    assert torch.equal(found[0][0], found[1][0])
    assert all(torch.equal(found[0][1][task], found[1][1][task]) for task in ATTRIBUTES)
    assert split.inputs.dtype == torch.uint8


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("content", [b"", b"no image", "half"])
def test_broken_images_are_named_with_their_index(tmp_path, workers, content):
    root = write(tmp_path)
    path = tmp_path / "Img" / "img_align_celeba" / "000005.jpg"
    path.write_bytes(path.read_bytes()[:-100] if content == "half" else content)
    loader = Loader(CelebA(root, size=8).split("train"), 4, shuffle=False, num_workers=workers)
    with pytest.raises(DataError, match=r"000005\.jpg \(sample 2 of the train split\): not a readable image: "):
        list(loader.batches())


def test_absent_files_are_named(tmp_path):
    with pytest.raises(
        DataError, match=r"there is no nowhere/Anno/list_attr_celeba\.txt; celeba needs .*dataset\.root"
    ):
        CelebA("nowhere")
    root = write(tmp_path)
    (tmp_path / "Img" / "img_align_celeba" / "000003.jpg").unlink()
    with pytest.raises(DataError, match=r"img_align_celeba lacks 1 of the listed files, such as 000003\.jpg; celeba"):
        CelebA(root)
    (tmp_path / "Eval" / "list_eval_partition.txt").unlink()
    with pytest.raises(DataError, match=r"there is no .*/Eval/list_eval_partition\.txt; celeba needs"):
        CelebA(root)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("Anno/list_attr_celeba.txt", "8\n", "9\n", r"the first line says 9 images, found 8: truncated\?"),
        ("Anno/list_attr_celeba.txt", "Smiling", "Grinning", "the second line must name CelebA's 40 attributes"),
        ("Anno/list_attr_celeba.txt", "000002.jpg -1", "000002.jpg -2", r"each line .* and 40 of -1, 1: found -2\.\.1"),
        ("Anno/list_attr_celeba.txt", "000002.jpg -1", "000002.jpg", r"each line must hold a name and 40 of -1, 1"),
        ("Eval/list_eval_partition.txt", "000002.jpg 0", "000002.jpg 3", r"a name and 1 of 0, 1, 2: found 0\.\.3"),
        ("Eval/list_eval_partition.txt", "000002.jpg 0\n", "", r"must list the 8 files of .*, in the same order"),
    ],
)
def test_wrong_lists_are_named(tmp_path, file, old, new, message):
    root = write(tmp_path)
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=message) as caught:
        CelebA(root)
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


def test_size_out_of_bounds_is_refused(tmp_path):
    with pytest.raises(ValueError, match="size must be >= 1, found 0"):
        CelebA(write(tmp_path), size=0)


def test_it_trains_on_a_part_of_the_tasks(tmp_path, mtlrun):
    left_out = [f"~tasks.{task}" for task in ATTRIBUTES if task not in ("Male", "Smiling")]
    code, _, err = mtlrun(
        "dataset=celeba", f"dataset.root={write(tmp_path)}", "dataset.size=16", "trainer=smoke", *left_out,
        "runtime.quiet=true", "backbone.width=0.05", "trainer.batch_size=4",
    )  # fmt: skip
    assert code == 0, err
