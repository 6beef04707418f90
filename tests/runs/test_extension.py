"""mtlrun extend: a finished run goes on as another, longer one, and ends as if it had been that long from the start."""

from pathlib import Path

import pytest
import torch
from helpers import read_lines, read_record, run_folders

from mtlrun.records.record import Record

TOY = ["dataset=kendall_toy", "backbone=mlp", "backbone.hidden=[4]", "trainer.batch_size=20", "runtime.quiet=true"]


def best(folder):
    state = torch.load(folder / "checkpoints" / "best.pt", weights_only=True)
    return [tensor for part in state["model_states"] for tensor in part.values()]


def test_an_extended_run_is_the_longer_run(mtlrun):
    assert mtlrun(*TOY, "weighting=uncertainty", "trainer.epochs=3", "runtime.study=short")[0] == 0
    (short,) = Path("outputs/short").iterdir()
    before = (short / "record.json").read_bytes()
    code, _, err = mtlrun("extend", str(short), "trainer.epochs=7", "runtime.study=long")
    assert code == 0, err
    assert mtlrun(*TOY, "weighting=uncertainty", "trainer.epochs=7", "runtime.study=direct")[0] == 0
    (long,), (direct,) = Path("outputs/long").iterdir(), Path("outputs/direct").iterdir()
    assert long.name == direct.name
    assert all(torch.equal(one, two) for one, two in zip(best(long), best(direct), strict=True))
    records = Record.read(long), Record.read(direct)
    assert records[0].test == records[1].test
    assert records[0].steps == records[1].steps == 35
    assert [line["step"] for line in read_lines(long, "val")] == [line["step"] for line in read_lines(direct, "val")]
    assert read_record(long)["parent"] == {"run_id": short.name, "steps": 15, "folder": str(short)}
    assert read_record(direct)["parent"] is None
    assert (short / "record.json").read_bytes() == before
    assert mtlrun("extend", str(short), "trainer.epochs=7", "runtime.study=long")[0] == 0
    assert len(run_folders("outputs/long")) == 1


@pytest.mark.parametrize(
    ("words", "length", "problem"),
    [
        (["scheduler=cosine"], ["trainer.epochs=4"], "learning rates depend on the length"),
        (["model=ltb"], ["trainer.epochs=4"], "anneals depends on the length"),
        ([], ["trainer.epochs=2"], "that is how long"),
        ([], ["trainer.epochs=1"], "5 steps are not more than the 10"),
        ([], ["optimizer.lr=1"], "optimizer.lr=1: may be trainer.epochs"),
        ([], ["trainer.patience=3"], "what is the new length?"),
        ([], [], "what is the new length?"),
    ],
)
def test_what_cannot_be_extended_is_refused(mtlrun, words, length, problem):
    assert mtlrun(*TOY, *words, "trainer.epochs=2")[0] == 0
    (folder,) = run_folders()
    code, _, err = mtlrun("extend", str(folder), *length)
    assert code == 2
    assert problem in err
    assert run_folders() == [folder]
