"""The primary task: where it comes from, and what is refused."""

import pytest
import torch
from helpers import QUICK, read_record, run_folders

from mtlrun.weightings import GCS, Bloop, MetaBalance, combine

METHODS = {"bloop": Bloop, "gcs": GCS, "metabalance": MetaBalance}


@pytest.mark.parametrize("make", METHODS.values())
def test_it_is_found_by_its_name_or_given_by_its_position(make):
    jacobian = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    named, placed, other = make(primary="depth"), make(primary=1), make(primary=2)
    for weighting in (named, placed, other):
        weighting.setup(3)
    named.set_task_names(["seg", "depth", "normals"])
    found = combine(named, jacobian)
    assert torch.equal(found, combine(placed, jacobian))
    assert not torch.equal(found, combine(other, jacobian))


def test_what_is_no_task_is_refused():
    jacobian = torch.ones(3, 5)
    with pytest.raises(ValueError, match="primary must be given, found None"):
        combine(GCS(), jacobian)
    with pytest.raises(ValueError, match=r"primary must be found by its name: call `set_task_names` .* found 'depth'"):
        combine(GCS(primary="depth"), jacobian)
    for wrong in (-1, 3):
        with pytest.raises(ValueError, match=f"primary must be a position from 0 to 2, .* found {wrong}"):
            GCS(primary=wrong).setup(3)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["weighting=gcs"], "null; the tasks are: left, right"),
        (["weighting=bloop", "weighting.primary=lft"], "'lft'; did you mean 'left'? the tasks are: left, right"),
        (["weighting=metabalance", "weighting.primary=1"], "1; the tasks are: left, right"),
    ],
)
def test_a_run_without_a_primary_task_is_refused_in_one_line_that_names_the_tasks(words, found, mtlrun):
    code, _, err = mtlrun(*QUICK, *words)
    assert code == 2
    assert f"weighting.primary must name the task that the other tasks are to help, found {found}\n" in err
    assert len(err.strip().splitlines()) == 1
    assert not run_folders()


def test_a_run_helps_the_task_that_it_names(mtlrun):
    losses = {}
    for primary in ("left", "right"):
        words = ["weighting=bloop", f"weighting.primary={primary}", "weighting.auxiliary_weight=0"]
        code, _, err = mtlrun(*QUICK, *words, "trainer.epochs=6", "trainer.limit_batches=null", "dataset.size=20")
        assert code == 0, err
        (folder,) = [path for path in run_folders() if read_record(path)["config"]["weighting"]["primary"] == primary]
        losses[primary] = {task: values["loss"] for task, values in read_record(folder)["val"].items()}
    assert losses["left"]["left"] < losses["right"]["left"]
    assert losses["right"]["right"] < losses["left"]["right"]


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_is_continued_is_the_one_that_never_stopped(method):
    """The position is found again from the config; what the methods remember is in their state."""
    weighting, fresh = (METHODS[method](primary="b") for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    for each in (weighting, fresh):
        each.setup(2)
        each.set_task_names(["a", "b"])
    for _ in range(3):
        combine(weighting, torch.randn(2, 4, generator=generator))
    fresh.load_state_dict(weighting.state_dict())
    for _ in range(3):
        jacobian = torch.randn(2, 4, generator=generator)
        assert torch.equal(combine(fresh, jacobian), combine(weighting, jacobian))
