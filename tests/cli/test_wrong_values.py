"""Sweeps with values that cannot work: those are named before the first run."""

from pathlib import Path

import pytest
from helpers import QUICK, run_folders
from test_messages import refused


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["optimizer.lr=0.1,abc", "weighting=equal,nope"], ["weighting=nope: there is", "optimizer.lr must be a numb"]),
        (["optimizer.lr=abc,-1,0.1", "seed=0,x"], ["optimizer.lr must be", "optimizer.lr must be > 0", "seed must be"]),
        (["model=mmoe", "model.num_experts=2,0", "trainer.epochs=0"], ["trainer.epochs mus", "model.num_experts must"]),
        (["seed=range(0,300)", "trainer.log_every=3,0"], ["trainer.log_every must be >= 1, found 0"]),
        (["seed=range(0,300)", "optimizer.lr=-1"], ["optimizer.lr must be > 0, found -1"]),
        (["tasks.left.weight=1,-1"], ["tasks.left.weight must be > 0, or size, found -1"]),
        (["dataset=csv", "dataset.path=d.csv,no.csv", "dataset.predict=[y]"], ["no.csv: there is no such file, as se"]),
        (["dataset=csv", "dataset.path=d.csv", "dataset.predict=[y],[z]"], ["d.csv: there is no column 'z' for datas"]),
        (["hydra.sweep.dir=left", "seed=0,x"], ["seed must be a whole number >= 0, found 'x'"]),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_before_the_first_run(mtlrun, arguments, expected):
    Path("d.csv").write_text("x,y\n" + "".join(f"{row},{row % 7}\n" for row in range(60)))
    problems = refused(mtlrun, "-m", *arguments)
    assert len(problems) == len(expected), problems
    assert all(any(problem.startswith(start) for problem in problems) for start in expected), problems


def test_combinations_that_are_refused_are_named_and_may_be_left_out(mtlrun):
    words = ["-m", *(word for word in QUICK if not word.startswith("trainer.epochs")), "runtime.quiet=true"]
    words += ["trainer.epochs=null,1", "trainer.steps=null,2"]
    code, out, err = mtlrun(*words)
    assert (code, out, run_folders()) == (2, "", [])
    assert err.count("trainer.epochs or steps must be null, found 1 and 2") == 1
    assert "of 4 runs are refused; to train the others: hydra.launcher.illegal=skip" in err
    code, out, err = mtlrun(*words, "hydra.launcher.illegal=skip")
    assert code == 0, err
    assert out.count("completed in") == len(run_folders()) >= 2


@pytest.mark.parametrize("key", ["hydra.job.chdir=true", "hydra.run.dir=elsewhere", "hydra.output_subdir=.hydra"])
def test_keys_that_would_move_or_lose_outputs_are_refused(mtlrun, key):
    for words in ([], ["-m", "seed=0,1"]):
        (problem,) = refused(mtlrun, *QUICK, key, *words)
        assert problem.startswith(f"{key.split('=')[0]}=")
        assert problem.endswith("; leave it out")
