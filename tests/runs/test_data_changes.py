"""Data that changes under a run: a finished run says so, and a run that is continued is refused."""

import os
import shutil
from pathlib import Path

import numpy
import pytest
import torch
from helpers import read_record, run_folders, train_until_step
from PIL import Image

from mtlrun.config.compose import compose
from mtlrun.datasets import Loader, MultiTaskDataset, TensorSplit
from mtlrun.errors import DataError
from mtlrun.records import stamps
from mtlrun.records.stamps import as_plain, find_changes, take_stamps
from mtlrun.runs.run import run
from mtlrun.setup.data_paths import find_data_paths

TABLE = [
    "dataset=csv", "dataset.path=t.csv", "+task@tasks.y=regression", "backbone.hidden=[4]",
    "trainer.epochs=3", "trainer.batch_size=4", "runtime.quiet=true",
]  # fmt: skip
IMAGES = [
    "dataset=images", "dataset.root=photos", "dataset.labels=t.csv", "dataset.size=8", "backbone=mlp",
    "backbone.hidden=[4]", "+task@tasks.y=regression", "trainer.epochs=3", "trainer.batch_size=4", "runtime.quiet=true",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _table():
    rows = [f"{number:02}.png,{number / 10},{number / 20}" for number in range(20)]
    Path("t.csv").write_text("\n".join(["file,x,y", *rows]) + "\n")


def change_a_cell(path="t.csv"):
    """Change a label, not the size, and keep nothing of the old time."""
    text = Path(path).read_text()
    assert "1.1,0.55" in text
    Path(path).write_text(text.replace("1.1,0.55", "1.1,9.55"))


def touch(path="t.csv"):
    later = os.stat(path).st_mtime + 60
    os.utime(path, (later, later))


def make_photos():
    Path("photos").mkdir()
    for number in range(20):
        pixels = numpy.full((8, 8, 3), 10 * number, dtype=numpy.uint8)
        Image.fromarray(pixels).save(f"photos/{number:02}.png")


def test_a_finished_run_says_that_its_data_has_changed(mtlrun):
    mtlrun(*TABLE)
    (folder,) = run_folders()
    before = read_record(folder)
    assert before["data"]["t.csv"]["files"] == 1
    change_a_cell()
    code, out, _ = mtlrun(*TABLE)
    assert code == 0
    assert "t.csv has other content of the same size" in " ".join(out.split())
    assert "runtime.rerun=true" in out
    assert read_record(folder) == before
    mtlrun(*TABLE, "runtime.rerun=true")
    assert read_record(folder)["test"] != before["test"]
    assert "t.csv has" not in mtlrun(*TABLE)[1]


def test_a_file_that_was_touched_or_copied_is_the_same(mtlrun):
    mtlrun(*TABLE)
    touch()
    assert "t.csv has" not in mtlrun(*TABLE)[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_a_cell, "t.csv has other content of the same size"),
        (lambda: Path("t.csv").write_text(Path("t.csv").read_text() + "20.png,1,1\n"), "t.csv has 3.. bytes, and had"),
        (lambda: Path("t.csv").unlink(), "t.csv is gone"),
    ],
)
def test_a_run_is_not_continued_on_other_data(change, message, monkeypatch):
    config = compose(TABLE)
    train_until_step(config, 4, monkeypatch)
    (folder,) = run_folders()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    original = Path("t.csv").read_bytes()
    change()
    with pytest.raises(DataError, match=rf"was begun with other data: {message}.*runtime.rerun=true"):
        run(config)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    Path("t.csv").write_bytes(original)  # at another time
    assert run(config).status == "completed"
    change()
    if Path("t.csv").exists():
        rerun = compose([*TABLE, "runtime.rerun=true"])
        assert run(rerun).status == "completed"


def test_the_exit_code_of_a_refused_continuation_is_2(mtlrun, monkeypatch):
    train_until_step(compose(TABLE), 4, monkeypatch)
    change_a_cell()
    code, _, error = mtlrun(*TABLE)
    assert code == 2
    assert "was begun with other data" in error


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_images_belong_to_the_data(cache, monkeypatch):
    make_photos()
    config = compose([*IMAGES, f"dataset.cache={cache}"])
    train_until_step(config, 4, monkeypatch)
    Path("photos/notes.txt").write_text("not an image of the table")
    Image.fromarray(numpy.zeros((8, 8, 3), dtype=numpy.uint8)).save("photos/03.png")
    with pytest.raises(DataError, match=r"photos/\S*png (has|holds)"):
        run(config)


def test_fingerprints_cover_images_that_are_read_when_needed(mtlrun):
    make_photos()
    fingerprints = []
    for name in ("one", "two"):
        mtlrun(*IMAGES, "dataset.cache=none", f"runtime.root={name}")
        fingerprints.append(read_record(run_folders(name)[0])["splits"]["train"]["fingerprint"])
        Image.fromarray(numpy.full((8, 8, 3), 77, dtype=numpy.uint8)).save("photos/03.png")
    assert fingerprints[0] != fingerprints[1]


def test_fingerprints_cover_inputs_of_any_size(mtlrun, monkeypatch):
    """The inputs differ in one entry, and nothing else does."""
    from mtlrun.setup.split_summary import summarize

    inputs = torch.zeros(2**23 + 2**12, 2)  # 64 MiB and some
    loader = Loader(TensorSplit(inputs, {}), 1000, shuffle=False)
    before = summarize(loader, {})
    inputs[-1, -1] = 1
    assert summarize(loader, {}).fingerprint != before.fingerprint


class Drawn(MultiTaskDataset):
    """A dataset of a user, whose samples are made by code that may change."""

    input_shape = (2,)
    task_names = ("y",)
    shift = 0.0

    def split(self, name):
        inputs = torch.arange(20.0).reshape(10, 2)
        return TensorSplit(inputs, {"y": inputs[:, 0] + Drawn.shift})


def test_splits_that_differ_without_a_file_are_noticed_as_well(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    import test_data_changes

    Path("conf/dataset").mkdir(parents=True)
    Path("conf/dataset/drawn.yaml").write_text(
        "# @package _global_\n# Drawn.\ndefaults:\n  - /task@tasks.y: regression\n  - override /backbone: mlp\n"
        "dataset:\n  _target_: test_data_changes.Drawn\n"
    )
    config = compose(["dataset=drawn", *TABLE[3:]], "conf")
    train_until_step(config, 4, monkeypatch)
    monkeypatch.setattr(test_data_changes.Drawn, "shift", 1.0)
    with pytest.raises(DataError, match="the train split has other samples, labels or weights now"):
        run(config)


def test_compare_does_not_average_over_different_data(mtlrun):
    for seed in (0, 1):
        mtlrun(*TABLE, f"seed={seed}")
        change_a_cell() if seed == 0 else None
    _, out, _ = mtlrun("compare", "outputs")
    assert out.split()[0] == "data"
    assert out.count("1 of 2, 1 missing") == 2


def test_a_copy_of_the_data_elsewhere_is_the_same_data(mtlrun):
    Path("elsewhere").mkdir()
    shutil.copy("t.csv", "elsewhere/t.csv")
    contents = [
        {key: stamp[key] for key in ("names", "content")}
        for path in ("t.csv", "elsewhere/t.csv")
        for stamp in as_plain(take_stamps([path])).values()
    ]
    assert contents[0] == contents[1]


def test_contents_that_are_too_large_to_be_hashed_leave_a_doubt(monkeypatch):
    monkeypatch.setattr(stamps, "_MOST_BYTES", 10)
    taken = as_plain(take_stamps(["t.csv"]))
    assert not find_changes(taken).possible
    touch()
    assert find_changes(taken).possible == ["t.csv"]
    assert not find_changes(taken).certain


def test_links_in_a_circle_are_followed_once():
    Path("a").mkdir()
    Path("a/file").write_text("1")
    Path("a/b").symlink_to(Path("a").resolve())
    (stamp,) = take_stamps(["a"]).values()
    assert stamp.files == 1


def test_whatever_a_config_names_by_path_is_stamped():
    Path("folder/checkpoints").mkdir(parents=True)
    for name in ("w.pt", "mlp", "folder/checkpoints/best.pt", "data.bin"):
        Path(name).write_text(name)
    Path("equal").mkdir()
    config = {
        "names": {"model": "mlp"},
        "dataset": {"_target_": "mlp", "source": "data.bin", "inputs": ["equal"], "root": "nowhere"},
        "model": {"init_from": "folder"},
        "backbone": {"weights": "w.pt"},
        "runtime": {"root": "folder"},
    }
    dataset = Drawn()
    assert find_data_paths(config, dataset) == ["data.bin", "folder/checkpoints/best.pt", "w.pt"]
    dataset.data_paths = ["a", Path("b")]
    assert find_data_paths(config, dataset) == ["a", "b", "folder/checkpoints/best.pt", "w.pt"]


def test_a_finished_run_says_that_its_data_may_have_changed(mtlrun, monkeypatch, caplog):
    monkeypatch.setattr(stamps, "_MOST_BYTES", 10)
    mtlrun(*TABLE)
    assert "cannot be known" not in mtlrun(*TABLE)[1]
    touch()
    assert "t.csv was modified since" in mtlrun(*TABLE)[1]
    run(compose(TABLE))  # from Python, which prints no result
    assert "t.csv was modified since" in caplog.text


def test_a_file_that_cannot_be_read_leaves_a_doubt(monkeypatch):
    taken = as_plain(take_stamps(["t.csv"]))
    touch()

    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr("builtins.open", refuse)
    assert find_changes(taken).possible == ["t.csv"]
    assert next(iter(take_stamps(["t.csv"]).values())).content is None


def test_names_of_a_pattern_hold_the_folders_below_it():
    hashes = []
    for folders in ("ab", "ac"):
        for folder in folders:
            Path("p", folder).mkdir(parents=True)
            Path("p", folder, "1.png").write_text("same")
        hashes.append(next(iter(take_stamps(["p/**/*.png"]).values())).names)
        shutil.copytree("p", "elsewhere")
        assert next(iter(take_stamps(["elsewhere/**/*.png"]).values())).names == hashes[-1]
        shutil.rmtree("p")
        shutil.rmtree("elsewhere")
    assert hashes[0] != hashes[1]
