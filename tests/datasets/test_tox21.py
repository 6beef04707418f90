"""tox21, on a small file that the tests write."""

import gzip
import pickle

import numpy
import pytest
import torch
from helpers import read_record, run_folders

from mtlrun.config.compose import compose
from mtlrun.datasets import SPLITS, Tox21
from mtlrun.errors import DataError

COLUMNS = (
    "NR-AR,NR-AR-LBD,NR-AhR,NR-Aromatase,NR-ER,NR-ER-LBD,NR-PPAR-gamma,"
    "SR-ARE,SR-ATAD5,SR-HSE,SR-MMP,SR-p53,mol_id,smiles"
)
FORMULAS = [f"{'C' * (1 + index // 2)}{'ON'[index % 2]}c1ccccc1" for index in range(40)]


def answers(index):
    """Return the twelve cells of a compound: every fifth is empty."""
    return ["" if (index + test) % 5 == 0 else str((index * test) % 2) for test in range(12)]


def lines():
    return [",".join([*answers(index), f"TOX{index}", formula]) for index, formula in enumerate(FORMULAS)]


def write(folder, rows, columns=COLUMNS):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tox21.csv.gz").write_bytes(gzip.compress("\n".join([columns, *rows, ""]).encode()))
    return folder


@pytest.fixture
def root(tmp_path):
    return write(tmp_path / "data", lines())


def test_splits_are_all_compounds_once_with_their_answers(root):
    dataset = Tox21(str(root), num_features=64)
    assert {name: len(dataset.split(name)) for name in SPLITS} == {"train": 32, "val": 4, "test": 4}
    names = [name for split in SPLITS for name in dataset.split(split).sample_ids]
    assert sorted(names) == sorted(f"TOX{index}" for index in range(40))
    for split in map(dataset.split, SPLITS):
        for sample, name in enumerate(split.sample_ids):
            _, targets = split[sample]
            expected = [int(cell) if cell else -1 for cell in answers(int(name[3:]))]
            assert [int(target) for target in targets.values()] == expected
    assert dataset.task_names[:3] == ("NR_AR", "NR_AR_LBD", "NR_AhR")
    assert dataset.task_names[6] == "NR_PPAR_gamma"


def test_inputs_mark_the_strings_that_a_formula_holds(tmp_path):
    # So many places that no two of these strings share one.
    rows = [",".join(["0"] * 12 + [f"TOX{index}", formula]) for index, formula in enumerate(["CCC", "Ccc", *FORMULAS])]
    dataset = Tox21(str(write(tmp_path, rows)), num_features=2**18)
    found = {}
    for split in map(dataset.split, SPLITS):
        inputs, _ = split.batch(range(len(split)))
        assert inputs.shape[1:] == dataset.input_shape == (2**18,)
        assert inputs.dtype == torch.float32
        torch.testing.assert_close(inputs.norm(dim=1), torch.ones(len(split)))
        found |= dict(zip(split.sample_ids, inputs, strict=True))
    assert (found["TOX0"] > 0).sum() == 2  # CC, which it holds twice, and CCC
    assert found["TOX0"].max() == pytest.approx(2**-0.5)
    assert (found["TOX1"] > 0).sum() == 3  # Cc, cc, Ccc: case counts
    assert found["TOX0"] @ found["TOX1"] == 0


def test_a_sample_is_a_row_of_the_batch_and_survives_pickling(root):
    split = Tox21(str(root), num_features=64).split("val")
    inputs, targets = pickle.loads(pickle.dumps(split)).batch(torch.tensor([2, 0]))
    assert torch.equal(inputs[0], split[2][0])
    assert torch.equal(inputs[1], split[0][0])
    assert targets["SR_p53"].tolist() == [int(split[2][1]["SR_p53"]), int(split[0][1]["SR_p53"])]


def test_rows_of_the_same_formula_are_merged_and_contradictions_are_missing(tmp_path, mtlrun):
    again = [",".join([*cells, "TOX99", FORMULAS[7]]) for cells in (["1"] * 11 + [""], [""] * 11 + ["0.0"])]
    dataset = Tox21(str(write(tmp_path, [*lines(), *again])))
    found = {}
    for split in map(dataset.split, SPLITS):
        for sample, name in enumerate(split.sample_ids):
            found[name] = [int(target) for target in split[sample][1].values()]
    assert sorted(found) == sorted(f"TOX{index}" for index in range(40))
    # The tests 3 and 8 have an answer in the other rows only; on 0, 2, 4, 6, 10 and 11 the rows contradict each other.
    assert found.pop("TOX7") == [-1, 1, -1, 1, -1, 1, -1, 1, 1, 1, -1, -1]
    assert all(row == [int(cell or -1) for cell in answers(int(name[3:]))] for name, row in found.items())
    note = "6 answers on which the rows of a compound contradict each other count as missing"
    assert dataset.notes == [note]
    code, out, err = mtlrun("dataset=tox21", f"dataset.root={tmp_path}", "trainer=smoke", "dataset.num_features=64")
    assert code == 0, err
    assert note in " ".join(out.split())
    assert read_record(run_folders()[0])["notes"][0] == note


def test_compounds_with_the_strings_of_a_training_compound_are_counted(tmp_path, mtlrun):
    # Of chains of 5 carbons and more, all strings of 2 to 5 characters are the same.
    formulas = {f"TOX{index}": "C" * (6 + index) if index % 3 else f"{index:03}" for index in range(40)}
    write(tmp_path, [",".join([*answers(index), *pair]) for index, pair in enumerate(formulas.items())])
    dataset = Tox21(str(tmp_path))
    train, *others = (
        [{formulas[id][i : i + n] for n in range(2, 6) for i in range(len(formulas[id]))} for id in split.sample_ids]
        for split in map(dataset.split, SPLITS)
    )
    expected = {
        name: sum(compound in train for compound in other) for name, other in zip(SPLITS[1:], others, strict=True)
    }
    assert 0 < expected["test"] < 4
    code, out, err = mtlrun("dataset=tox21", f"dataset.root={tmp_path}", "trainer=smoke", "trainer.batch_size=40")
    assert code == 0, err
    record = read_record(run_folders()[0])
    assert {name: split["repeated"] for name, split in record["splits"].items()} == {"train": None} | expected
    line, *others = record["notes"]
    assert f"{expected['test']} of 4 test samples have the same inputs as a training sample" in line
    assert line in " ".join(out.split())
    undefined = [note for note in others if "not defined, since all" in note]  # of a few compounds tasks have one label
    assert all(" split has " in note for note in others if note not in undefined)
    assert len(undefined) < len(dataset.task_names)  # tasks that lack the same are in one line


def test_splits_are_frozen_and_follow_their_seed(root):
    numpy.random.seed(1)
    assert Tox21(str(root)).split("test").sample_ids == ["TOX15", "TOX29", "TOX31", "TOX33"]
    assert Tox21(str(root), split_seed=1).split("test").sample_ids != Tox21(str(root)).split("test").sample_ids


def test_moleculenets_folder_is_found(root):
    (root / "moleculenet").mkdir()
    (root / "tox21.csv.gz").rename(root / "moleculenet" / "tox21.csv.gz")
    assert len(Tox21(str(root)).split("train")) == 32


def test_an_absent_file_is_named_with_the_way_to_get_it(tmp_path):
    with pytest.raises(DataError) as caught:
        Tox21(str(tmp_path))
    message = str(caught.value)
    assert f"no file {tmp_path}/tox21.csv.gz or {tmp_path}/moleculenet/tox21.csv.gz; set dataset.root" in message
    assert "\n" not in message


PACKED = [gzip.compress(content, mtime=0) for content in (b"a" * 1000, b"\xff")]


@pytest.mark.parametrize("content", [b"not packed", PACKED[0][:-9], PACKED[1]], ids=["plain", "cut", "no text"])
def test_a_file_that_cannot_be_unpacked_is_refused(tmp_path, content):
    (tmp_path / "tox21.csv.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"tox21.csv.gz cannot be unpacked: .*; fetch it anew from https"):
        Tox21(str(tmp_path))


@pytest.mark.parametrize(
    ("rows", "columns", "problem"),
    [
        (lines(), COLUMNS.replace("NR-ER,", "ER,"), "lacks the columns NR-ER;"),
        ([], "", "lacks the columns NR-AR, NR-AR-LBD"),
        ([*lines()[:9], "2" + lines()[9]], COLUMNS, "line 11: NR-AR must be 0, 1 or empty, found '20'"),
        (["0,1"], COLUMNS, "line 2: no formula in the column smiles"),
        (lines()[:9], COLUMNS, "holds 9 different formulas, and 10 or more are needed"),
    ],
)
def test_a_wrong_table_is_refused_with_the_place(tmp_path, rows, columns, problem):
    with pytest.raises(DataError, match=problem):
        Tox21(str(write(tmp_path, rows, columns)))


@pytest.mark.parametrize(("argument", "wrong"), [("num_features", 1), ("split_seed", -1)])
def test_arguments_out_of_bounds_are_refused(root, argument, wrong):
    with pytest.raises(ValueError, match=f"^{argument} must be >= .*, found {wrong}"):
        Tox21(str(root), **{argument: wrong})


def test_it_trains(root, mtlrun):
    code, _, err = mtlrun(
        "trainer=smoke", "trainer.batch_size=16", "runtime.quiet=true", "dataset=tox21", f"dataset.root={root}",
        "dataset.num_features=64",
    )  # fmt: skip
    assert code == 0, err


def test_tox21_chooses_settings_that_the_command_line_may_change():
    config = compose(["dataset=tox21"])
    assert config["backbone"]["hidden"] == [128]
    assert (config["optimizer"]["lr"], config["optimizer"]["weight_decay"]) == (3e-3, 3e-4)
    assert {task["lr"] for task in config["tasks"].values()} == {3e-3}
    changed = compose(["dataset=tox21", "optimizer=sgd", "optimizer.lr=0.1", "backbone.hidden=[8,4]"])
    assert changed["optimizer"]["lr"] == changed["tasks"]["SR_p53"]["lr"] == 0.1
    assert changed["optimizer"]["momentum"] == 0.9
    assert changed["optimizer"]["weight_decay"] == 3e-4
    assert changed["backbone"]["hidden"] == [8, 4]


def test_on_a_device_the_inputs_are_dense_and_the_same(tmp_path):
    split = Tox21(str(write(tmp_path, lines())), num_features=64, cache="device").split("train")
    moved = split.to("cpu")
    rows = [3, 0, 7]
    (found, targets), (expected, _) = moved.batch(rows), split.batch(rows)
    assert torch.equal(found, expected)
    assert torch.equal(moved[3][0], split[3][0])
    assert moved.inputs.shape == (len(split), 64)
    assert set(targets) == set(Tox21.task_names)
