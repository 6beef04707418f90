"""Checkpoints: what is refused, and what best.pt holds."""

import pytest
import torch

from mtlrun.errors import CheckpointError
from mtlrun.training import checkpoint


def test_a_checkpoint_of_another_format_is_refused_with_a_way_out(tmp_path):
    torch.save({"format": 1, "weights": []}, tmp_path / "best.pt")
    message = r"best\.pt has checkpoint format 1, and this version of mtlrun reads format 3; train that run anew"
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load_best(tmp_path)
    assert checkpoint.load_last(tmp_path) is None


def test_the_selected_model_is_put_together_from_the_states_of_its_parts(tmp_path):
    states = [{"a": torch.zeros(2)}, {"b": torch.ones(3)}]
    checkpoint.save({"selections": [], "model_states": states}, tmp_path / "best.pt")
    assert checkpoint.load_best(tmp_path).keys() == {"a", "b"}
    assert checkpoint.load_best(tmp_path / "nowhere") is None


def test_global_generators_continue_where_they_were():
    import random

    import numpy

    generators = checkpoint.Generators()
    state = generators.state_dict()
    first = torch.rand(1).item(), random.random(), numpy.random.rand()
    generators.load_state_dict(state)
    assert (torch.rand(1).item(), random.random(), numpy.random.rand()) == first
