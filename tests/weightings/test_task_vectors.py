"""Task vectors: the state of methods that remember a vector of gradients per task."""

import pytest
import torch

from mtlrun.weightings import DBMTL, ExcessMTL, MoCo
from mtlrun.weightings.state.task_vectors import TaskVectors


def test_vectors_are_zeros_of_the_gradients_precision_at_first_use():
    vectors = TaskVectors().like(torch.ones(2, 5, dtype=torch.float64), 3)
    assert torch.equal(vectors, torch.zeros(3, 5, dtype=torch.float64))


def test_what_is_written_is_kept():
    remembered = TaskVectors()
    remembered.like(torch.ones(2, 5), 3)[1] = 7
    assert remembered.like(torch.ones(3, 5), 3)[1].tolist() == [7] * 5


def test_vectors_are_saved_from_their_first_use_on_and_loaded_into_a_fresh_instance():
    remembered = TaskVectors()
    assert remembered.state_dict() == {}
    remembered.like(torch.ones(3, 5), 3)[1] = 7
    fresh = TaskVectors()
    fresh.load_state_dict(remembered.state_dict())
    assert torch.equal(fresh.like(torch.ones(3, 5), 3), remembered.vectors)
    fresh.vectors[1] = 8
    assert remembered.vectors[1, 0] == 7


def test_loading_the_state_from_before_the_first_step_forgets_the_vectors():
    remembered = TaskVectors()
    remembered.like(torch.ones(3, 5), 3)
    remembered.load_state_dict(TaskVectors().state_dict())
    assert remembered.vectors is None


@pytest.mark.parametrize("cls", [DBMTL, ExcessMTL, MoCo])
def test_grad_wrt_representation_is_refused_by_methods_that_keep_task_vectors(cls):
    with pytest.raises(ValueError, match=r"grad_wrt must be 'shared' .* found 'representation'"):
        cls(grad_wrt="representation")


@pytest.mark.parametrize("cls", [DBMTL, ExcessMTL, MoCo])
def test_vectors_of_a_task_without_a_loss_do_not_change(cls, take_step):
    weighting = cls()
    weighting.setup(3)
    remembered = next(part for part in weighting.children() if isinstance(part, TaskVectors))
    jacobian = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    take_step(weighting, jacobian, torch.ones(3))
    before = remembered.vectors.clone()
    take_step(weighting, jacobian[[0, 2]].flip(1), torch.ones(2), active=[0, 2])
    assert torch.equal(remembered.vectors[1], before[1])
    assert (remembered.vectors[[0, 2]] != before[[0, 2]]).any(dim=1).all()
