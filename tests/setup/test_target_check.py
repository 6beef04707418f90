"""Labels of splits that do not hold them, checked before a GPU can meet them."""

import pytest
import torch
from helpers import QUICK

from mtlrun.datasets import Loader, MultiDigits
from mtlrun.errors import DataError
from mtlrun.setup.target_check import TargetCheck
from mtlrun.tasks import Classification


class NoTargets(torch.utils.data.Dataset):
    """A split that does not hold its targets."""

    def __init__(self, split):
        self.split = split

    def __len__(self):
        return len(self.split)

    def __getitem__(self, index):
        return self.split[index]


def test_a_class_that_there_is_not_is_named_with_its_sample_of_the_split():
    samples = [(torch.zeros(2), {"it": torch.tensor(3 if number == 5 else number % 3)}) for number in range(8)]
    check = TargetCheck("train", {"it": Classification(3)})
    for workers in (0, 1):
        loader = Loader(samples, 4, shuffle=True, seed=1, num_workers=workers, check=check)
        with pytest.raises(DataError, match=r"train split, task it: targets must be in 0\.\.2.*found 3 at sample 5"):
            list(loader.batches())
    with pytest.raises(DataError, match="found 3 at sample 5"):
        loader.first(8)


def test_labels_of_tasks_that_are_not_trained_are_let_be():
    samples = [(torch.zeros(2), {"it": torch.tensor(number), "other": torch.tensor(9)}) for number in range(3)]
    check = TargetCheck("train", {"it": Classification(3)})
    assert len(list(Loader(samples, 4, shuffle=True, seed=1, check=check).batches())) == 1


def test_a_run_names_the_sample(mtlrun, monkeypatch):
    split = MultiDigits.split

    def broken(self, which):
        whole = split(self, which)
        if which == "val":
            whole.targets["left"][300] = 10
        return NoTargets(whole)

    monkeypatch.setattr(MultiDigits, "split", broken)
    code, _, err = mtlrun(*QUICK, "trainer.eval_batch_size=512", "trainer.epochs=1")
    assert code == 2
    assert "dataset: val split, task left: targets must be in 0..9" in err
    assert "found 10 at sample 300" in err
