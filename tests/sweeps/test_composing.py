"""Which runs a sweep consists of, what of them is refused, and what a plan says; nothing is trained."""

from pathlib import Path

import pytest

from mtlrun.errors import ConfigError
from mtlrun.sweeps import launcher
from mtlrun.sweeps.launcher import SweepLauncher

SMALL = ["dataset=kendall_toy", "backbone=mlp", "backbone.hidden=[4]", "trainer=smoke", "runtime.quiet=true"]
STUDY = """# @package _global_
hydra:
  sweeper:
    params: {seed: "0,1"}
    runs:
      - {model: hard, weighting: [equal, mgda], optimizer.lr: 0.01}
      - {model: "single,soft", weighting: equal}
      - {model: hard, weighting: equal, optimizer.lr: [0.01, 0.02]}
    exclude:
      - {model: soft, seed: [1, 2]}
"""


@pytest.fixture
def study():
    Path("conf/study").mkdir(parents=True)
    Path("conf/study/mine.yaml").write_text(STUDY)
    return ["--config-dir=conf", "study=mine", *SMALL]


def names(out):
    """Return the runs of a plan: model, weighting, learning rate and seed of each."""
    lines = [line for line in out.splitlines() if line[:1].isdigit() and "/" in line.split()[0]]
    return [line.split()[1].split("-kendall_toy")[0] for line in lines]


def test_blocks_are_products_without_what_is_excluded_or_there_twice(mtlrun, study):
    code, out, err = mtlrun("plan", "-m", *study)
    assert code == 0, err
    assert sorted(names(out)) == sorted([
        "hard-equal-lr0.01-s0", "hard-equal-lr0.01-s1", "hard-mgda-lr0.01-s0", "hard-mgda-lr0.01-s1",
        "single-equal-lr0.001-s0", "single-equal-lr0.001-s1", "soft-equal-lr0.001-s0",
        "hard-equal-lr0.02-s0", "hard-equal-lr0.02-s1",
    ])  # fmt: skip
    assert "9 runs: 9 new" in out
    assert "GiB of checkpoints" in out
    assert not Path("outputs").exists()
    # What is typed replaces what the study sweeps over.
    code, out, _ = mtlrun("plan", "-m", *study, "seed=1", "weighting=equal")
    assert sorted(names(out)) == sorted(["hard-equal-lr0.01-s1", "single-equal-lr0.001-s1", "hard-equal-lr0.02-s1"])


def test_what_is_wrong_with_a_sweep_is_said_before_anything_starts(mtlrun):
    code, out, err = mtlrun("-m", *SMALL, "weighting=equal,mgda", "model=hard,soft", "seed=0,1")
    assert (code, out) == (2, "")
    assert "weighting=mgda combines the tasks' gradients" in err
    assert err.count("model=soft has none") == 1
    assert "2 of 8 runs are refused; to train the others: hydra.launcher.illegal=skip" in err
    code, out, err = mtlrun("-m", *SMALL, "optimizer.lr=0.1,abc,inf", "seed=0,1")
    assert (code, out) == (2, "")
    assert "abc" in err
    assert "inf" in err
    code, _, err = mtlrun("plan", "-m", *SMALL, "model=hard", "seed=0,1", "hydra.sweeper.exclude=[{model: soft}]")
    assert code == 2
    assert "no run of this sweep has {'model': 'soft'}" in err
    for words, problem in {
        ("hydra.launcher.retry=sometimes",): "must be one of failed, none, all",
        ("hydra.launcher.illegal=maybe",): "must be one of refuse, skip",
        ("hydra.launcher.workers=-1", "hydra.launcher.time_limit=abc"): "mtlrun: 2 problems; nothing was started",
        ("optimizer.lr=interval(0,1)",): "an interval has no values to list",
    }.items():
        code, out, err = mtlrun("-m", *SMALL, "seed=0,1", *words)
        assert (code, out) == (2, ""), words
        assert problem in err
    assert not Path("outputs").exists()


def test_limits_are_numbers_above_zero():
    for key in ("workers", "runs_per_gpu", "time_limit", "memory_limit"):
        for value in (-1, 0, float("inf"), float("nan"), "abc", [1], True):
            with pytest.raises(ConfigError, match=f"^hydra.launcher.{key} must be ") as error:
                SweepLauncher(**{key: value})
            assert len(error.value.problems) == 1, (key, value)


def test_illegal_runs_may_be_left_out(mtlrun, monkeypatch):
    words = [*SMALL, "weighting=mgda,equal", "model=soft", "hydra.launcher.illegal=skip"]
    code, out, err = mtlrun("-m", *words)
    assert code == 0, err
    assert "1 completed, 1 refused" in out
    code, out, _ = mtlrun("plan", "-m", *words)
    assert "2 runs: 1 refused, 1 finished" in out
    assert "weighting=mgda combines the tasks' gradients" in out
    monkeypatch.setattr(launcher, "_write_curves_of_methods", None)  # nothing was trained that could change them
    assert mtlrun("-m", *words)[0] == 0
    code, out, _ = mtlrun("plan", "-m", *words, "runtime.rerun=true")
    assert "2 runs: 1 refused, 1 to be trained anew" in out
