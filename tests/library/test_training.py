"""`mtlrun.train` and `mtlrun.compare`: the runs of the command line, from Python."""

import doctest
import math
from importlib import import_module
from pathlib import Path

import numpy
import pandas
import pytest
from helpers import run_folders

import mtlrun
from mtlrun.config.compose import compose
from mtlrun.errors import ConfigError, DataError
from mtlrun.library.training import as_overrides

TOY = {"dataset": "kendall_toy", "trainer": {"epochs": 1, "baselines": False}}
WORDS = ["dataset=kendall_toy", "trainer.epochs=1", "trainer.baselines=false"]

PUBLIC = {"backward", "compare", "component", "compose", "load", "run", "train", "weighting"}


def test_these_names_are_public_and_documented():
    assert set(mtlrun.__all__) == PUBLIC
    assert [name for name in PUBLIC if len((getattr(mtlrun, name).__doc__ or "").splitlines()) < 3] == []


def test_the_examples_in_docstrings_are_true():
    for module in ("mtlrun.library.balancing", "mtlrun.library.training"):
        results = doctest.testmod(import_module(module))
        assert results.attempted > 0
        assert results.failed == 0


def test_a_run_is_the_same_from_python_and_from_the_command_line(mtlrun, capsys):
    from mtlrun import train

    record = train(**TOY, seed=3, overrides=["weighting=UW"])
    shown = capsys.readouterr().out
    assert "weighting=UW is weighting=uncertainty" in shown
    assert "epoch 1, step" in shown
    assert "selected on validation" in shown
    (folder,) = run_folders()
    assert folder.name == record.run_id
    code, out, _ = mtlrun(*WORDS, "weighting=uncertainty", "seed=3")
    assert code == 0
    assert "is finished already" in out
    again = train(**TOY, seed=3, weighting="uncertainty")
    assert "is finished already" in capsys.readouterr().out
    assert (again.run_id, again.test) == (record.run_id, record.test)


def test_what_is_wrong_is_raised_and_nothing_is_on_disk():
    with pytest.raises(ConfigError, match="did you mean 'gradnorm'"):
        mtlrun.train(weighting="gradnrm")
    with pytest.raises(ConfigError) as caught:
        mtlrun.train(**TOY, weighting="cagrad", **{"weighting.c": -1.0, "optimizer.lr": -1})
    assert len(caught.value.problems) == 2
    with pytest.raises(ConfigError, match="seed must be a number, a text, a list, a mapping or None, found set"):
        mtlrun.train(seed={1, 2})
    with pytest.raises(DataError, match=r"none\.csv"):
        mtlrun.train(dataset="csv", **{"dataset.path": "none.csv", "dataset.predict": ["price"]})
    assert not Path("outputs").exists()


VALUES = [
    None, True, 3, -2, 0.5, 1e-12, math.inf, numpy.float32(0.25), numpy.int64(7), Path("a/b.csv"), "plain", "0,1,2",
    "true", "123", "null", "it's", 'say "x"', "back\\slash", "ends with \\", "\\'", "a: b", "[x]", "x=y", "größe",
    "~/data.csv", "{a}", "a,b", "", " space ", [1, "2", None], {"train": "a.csv", "my (first) column": [0.5]}, [],
]  # fmt: skip


def test_any_value_arrives_as_it_is():
    words = as_overrides({f"+dataset.given_{place}": value for place, value in enumerate(VALUES)})
    found = compose(["dataset=kendall_toy", *words])["dataset"]
    for place, value in enumerate(VALUES):
        expected = (
            value.item() if isinstance(value, numpy.generic) else str(value) if isinstance(value, Path) else value
        )
        expected = str(Path("~/data.csv").expanduser()) if value == "~/data.csv" else expected
        assert repr(found[f"given_{place}"]) == repr(expected)


def test_the_runs_of_a_folder_are_a_table_of_pandas(capsys, caplog):
    names = ("equal", "gls")
    quiet = {"runtime": {"quiet": True}}
    records = [mtlrun.train(**TOY, **quiet, weighting=name, seed=seed) for name in names for seed in (0, 1)]
    bad = Path("outputs/broken")
    bad.mkdir()
    (bad / "record.json").write_text("{}")
    frame = mtlrun.compare("outputs")
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == 4
    assert frame.columns[:7].tolist() == ["data", "run_id", "folder", "state", "model", "weighting", "seed"]
    by_run = frame.set_index("run_id")
    for record in records:
        row = by_run.loc[record.run_id]
        assert (row["weighting"], row["seed"]) == (record.config["names"]["weighting"], record.config["seed"])
        for split, tasks in (("test", record.test), ("val", record.val)):
            for task, metrics in tasks.items():
                for metric, value in metrics.items():
                    assert row[f"{split}/{task}/{metric}"] == value
                    assert frame.attrs["directions"][f"{split}/{task}/{metric}"] == record.directions[task][metric]
        assert Path(row["folder"], "record.json").exists()
        assert (row["steps"], row["parameters"]) == (record.steps, sum(record.parameters.values()))
    assert "broken" in "".join(frame.attrs["left_out"])
    assert "it is left out" in caplog.text
    with pytest.raises(DataError, match="there is no such folder"):
        mtlrun.compare("nowhere")
    with pytest.raises(ConfigError, match="name one or more folders"):
        mtlrun.compare()
