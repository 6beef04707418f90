"""Networks: the model of a run in each of the states that were selected."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mtlrun.errors import CheckpointError, DataError
from mtlrun.models import MultiTaskModel
from mtlrun.records.folder import BEST, CHECKPOINTS
from mtlrun.records.record import Record
from mtlrun.training.checkpoint import Checkpoints
from mtlrun.training.selection import merge_states


@dataclass(frozen=True)
class Network:
    """The model in one of the states that were selected.

    Args:
        model: with the weights of that state.
        tasks: those that the state was selected for.
    """

    model: MultiTaskModel
    tasks: Sequence[str]


def read_states(folder: Path, record: Record) -> list[dict[str, Tensor]]:
    """Return the model states of best.pt.

    Args:
        folder, record: of the run.

    Raises:
        DataError: there is no best.pt.
        CheckpointError: it is damaged, of another run or of another version of mtlrun.
    """
    states = Checkpoints(folder / CHECKPOINTS, record.run_id).load_model_states()
    if states is None:
        raise DataError(f"{folder / CHECKPOINTS / BEST} is gone, so there are no weights of this run")
    return states


def load_networks(
    model: MultiTaskModel, states: Sequence[Mapping[str, Tensor]], record: Record, folder: Path
) -> list[Network]:
    """Return the model in each of its states: that of all tasks, or one for each of several selections.

    Args:
        model: as built; it gets the weights of the first.
        states: as `read_states` returns them.
        record, folder: of the run.

    Raises:
        CheckpointError: the states do not fit the model, or the record.
    """
    path = folder / CHECKPOINTS / BEST
    if model.independent_tasks or len(states) == 1:
        chosen = [(list(model.task_names), merge_states(states))]
    else:
        selected = [entry["tasks"] for entry in record.selection]
        if len(selected) != len(states):
            raise CheckpointError(f"{path} holds {len(states)} states, and the record names {len(selected)} selections")
        chosen = [(tasks, dict(state)) for tasks, state in zip(selected, states, strict=True)]
    networks = []
    for number, (tasks, state) in enumerate(chosen):
        network = copy.deepcopy(model) if number else model
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise CheckpointError(
                f"{path} does not fit the model of this run: {error}; the code of one of its classes has changed since"
            ) from error
        networks.append(Network(network.eval().requires_grad_(False), tasks))
    return networks
