"""omniglot_alphabets, on drawings that the tests write."""

import io
import re
import zipfile

import numpy
import pytest
import torch
from PIL import Image

from mtlrun.datasets import SPLITS, OmniglotAlphabets
from mtlrun.errors import DataError

ALPHABETS = {"Greek": 3, "Japanese_(katakana)": 4}
DRAWERS = 20


def drawing(place):
    """Return a PNG file, white with a column of ink whose place tells what it is."""
    pixels = numpy.ones((105, 105), dtype=bool)
    pixels[:, place] = False
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, "PNG")
    return packed.getvalue()


def files(*alphabets):
    """Return {path in the set: content}; the ink's column is 25 x the character's number + the drawer's."""
    return {
        f"{alphabet}/character{label + 1:02}/{label:04}_{drawer:02}.png": drawing(25 * label + drawer)
        for alphabet in alphabets
        for label in range(ALPHABETS[alphabet])
        for drawer in range(1, DRAWERS + 1)
    }


def pack(path, contents):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(f"{path.stem}/{name}", content)
    return path


@pytest.fixture
def root(tmp_path):
    pack(tmp_path / "data" / "images_background_small1.zip", files("Greek"))
    pack(tmp_path / "data" / "images_background_small2.zip", files(*ALPHABETS))
    return tmp_path / "data"


def test_each_sample_carries_the_label_of_its_own_alphabet(root):
    dataset = OmniglotAlphabets(str(root), size=105)
    assert dataset.task_names == ("Greek", "Japanese_katakana")
    seen = set()
    for name, share in {"train": 14, "val": 3, "test": 3}.items():
        split = dataset.split(name)
        assert {task: len(rows) for task, rows in split.sources.items()} == {
            "Greek": 3 * share,
            "Japanese_katakana": 4 * share,
        }
        assert sorted(torch.cat(list(split.sources.values())).tolist()) == list(range(len(split)))
        for task, rows in split.sources.items():
            (other,) = set(dataset.task_names) - {task}
            for row in rows.tolist():
                image, targets = split[row]
                (column,) = (image[0, 50] > 0).nonzero().flatten().tolist()
                label, drawer = divmod(column, 25)
                assert (targets[task], targets[other]) == (label, -1)
                assert re.sub(r"\W", "", split.sample_ids[row].split("/")[0]) == task
                assert split.sample_ids[row].endswith(f"/character{label + 1:02}/{label:04}_{drawer:02}.png")
                seen.add((name, task, label, drawer))
    assert len(seen) == 7 * DRAWERS
    for task in dataset.task_names:
        drawers = {name: {drawer for part, own, _, drawer in seen if (part, own) == (name, task)} for name in SPLITS}
        assert [len(drawers[name]) for name in SPLITS] == [14, 3, 3]
        assert not drawers["train"] & drawers["val"] | drawers["train"] & drawers["test"]
        assert not drawers["val"] & drawers["test"]


def test_images_are_ink_on_zero_scaled_to_the_size(root):
    dataset = OmniglotAlphabets(str(root), size=35)
    assert dataset.input_shape == (1, 35, 35)
    ink = dataset.split("train").inputs * 0.219 + 0.081
    assert ink.shape == (98, 1, 35, 35)
    assert ink.min().item() == pytest.approx(0, abs=1e-6)
    # A column of 1 in 105 pixels, spread over a few of 35: a third of a pixel in all, and more at the rim.
    torch.testing.assert_close(ink[:, 0].sum(dim=2), torch.full((98, 35), 1 / 3), rtol=0, atol=0.05)


def test_unpacked_folders_give_the_same(root, tmp_path):
    other = tmp_path / "unpacked" / "omniglot"
    for archive in root.iterdir():
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(other)
    for name in SPLITS:
        packed, unpacked = (OmniglotAlphabets(str(place)).split(name) for place in (root, other.parent))
        assert torch.equal(packed.inputs, unpacked.inputs)
        assert packed.sample_ids == unpacked.sample_ids


def test_alphabets_can_be_chosen_which_changes_nothing_for_them(root):
    everything, one = OmniglotAlphabets(str(root)), OmniglotAlphabets(str(root), alphabets=["Japanese_katakana"])
    assert one.task_names == ("Japanese_katakana",)
    rows = everything.split("val").sources["Japanese_katakana"]
    assert torch.equal(one.split("val").inputs, everything.split("val").inputs[rows])
    assert (one.split("val").targets["Japanese_katakana"] >= 0).all()


def test_splits_are_frozen_and_follow_their_seed(root):
    def drawers(seed):
        names = OmniglotAlphabets(str(root), split_seed=seed).split("test").sample_ids
        return sorted({int(name[-6:-4]) for name in names})

    assert drawers(0) == [3, 14, 17]
    assert drawers(1) != drawers(0)


def test_absent_files_are_named_with_the_way_to_get_them(tmp_path):
    with pytest.raises(DataError) as caught:
        OmniglotAlphabets(str(tmp_path))
    message = str(caught.value)
    assert f"no images_background_small1.zip in {tmp_path} or {tmp_path}/omniglot" in message
    assert "set dataset.root, or fetch the zip files from https" in message
    assert "\n" not in message


def test_an_absent_alphabet_is_named(root):
    with pytest.raises(DataError, match=r"dataset.alphabets: no alphabet Greke in .*Greek"):
        OmniglotAlphabets(str(root), alphabets=["Greke"])


def test_broken_files_are_named(root):
    path = root / "images_background_small1.zip"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"images_background_small1.zip cannot be unpacked: .*; fetch it anew"):
        OmniglotAlphabets(str(root))
    broken = "Greek/character02/0001_05.png"
    pack(path, files("Greek") | {broken: drawing(1)[:60]})
    with pytest.raises(DataError, match=rf"small1.zip/.*{re.escape(broken)} is not a readable image"):
        OmniglotAlphabets(str(root))


def test_two_drawings_are_too_few(tmp_path):
    pack(tmp_path / "images_background.zip", dict(list(files("Greek").items())[:2]))
    with pytest.raises(DataError, match=r"Greek in .* has 2 drawings per character"):
        OmniglotAlphabets(str(tmp_path))


@pytest.mark.parametrize(
    ("argument", "wrong", "bounds"),
    [("size", 7, ">= 8"), ("split_seed", -1, ">= 0"), ("alphabets", [], "one or more different names")],
)
def test_arguments_out_of_bounds_are_refused(root, argument, wrong, bounds):
    with pytest.raises(ValueError, match=rf"^{argument} must be {bounds}, found {re.escape(str(wrong))}"):
        OmniglotAlphabets(str(root), **{argument: wrong})


SIX = [f"~tasks.{name}" for name in ("Balinese", "Early_Aramaic", "Korean", "Latin", "Sanskrit", "Tagalog")]


def test_it_trains_a_subset_of_the_tasks(root, mtlrun):
    options = ["trainer=smoke", "trainer.batch_size=32", "runtime.quiet=true", "dataset=omniglot_alphabets"]
    code, _, err = mtlrun(*options, f"dataset.root={root}", *SIX, "dataset.sampling.strategy=cycle")
    assert code == 0, err
    (log,) = root.parent.rglob("run.log")
    assert "task Greek: 42 samples, 32 drawn per epoch" in log.read_text()  # two batches of one source each
    assert "task Japanese_katakana: 56 samples, 32 drawn per epoch" in log.read_text()
    code, _, err = mtlrun(*options, f"dataset.root={root}", *SIX, "tasks.Greek.num_classes=2")
    assert code == 2
    assert "task Greek: targets must be in 0..1" in err
