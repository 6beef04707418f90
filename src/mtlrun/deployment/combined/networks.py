"""Networks of finished runs: the trunk of each, trained and as it was before, and the heads of its tasks."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mtlrun.deployment.combined.members import Member
from mtlrun.errors import ConfigError, DataError
from mtlrun.models import HardSharing, MultiTaskModel, SingleTask
from mtlrun.runs.restore import restore
from mtlrun.setup.prepare import build_components
from mtlrun.setup.problems import Problems
from mtlrun.training.parts import Parts


@dataclass(frozen=True)
class Network:
    """A trunk that was trained for some tasks.

    Args:
        run: the id of its run.
        trunk: the trained state.
        initial: the state before the first step.
        heads: {task: the trained state of its head}.
        parameters: the names of those entries of the trunk's state that are parameters.
    """

    run: str
    trunk: dict[str, Tensor]
    initial: dict[str, Tensor]
    heads: dict[str, dict[str, Tensor]]
    parameters: tuple[str, ...]

    def weights(self, *, initial: bool = False) -> dict[str, Tensor]:
        """Return the parameters of the trunk, in float64."""
        state = self.initial if initial else self.trunk
        return {name: state[name].double() for name in self.parameters}


def networks_of(member: Member) -> tuple[list[Network], Parts]:
    """Return the networks of a run, on the CPU, and its parts with the trained model.

    Raises:
        DataError, ConfigError, CheckpointError: it cannot be restored, or its tasks share more than a trunk.
    """
    parts = restore(member.folder, device="cpu").parts
    trained, initial = _trunks(parts.model, member), _trunks(_initial_model(member.record.config), member)
    return [
        Network(
            member.name,
            _state(trunk),
            _state(initial[tasks][0]),
            {task: _state(head) for task, head in heads.items()},
            tuple(name for name, _ in trunk.named_parameters()),
        )
        for tasks, (trunk, heads) in trained.items()
    ], parts


def _trunks(model: MultiTaskModel, member: Member) -> dict[tuple[str, ...], tuple[nn.Module, Mapping[str, nn.Module]]]:
    """Return {tasks of a trunk: (trunk, {task: head})}."""
    if isinstance(model, SingleTask):
        return {(task,): (trunk, {task: head}) for task, (trunk, head) in model.task_networks().items()}
    if isinstance(model, HardSharing) and not model.branches and model.rotations is None:
        return {model.task_names: (model.trunk, dict(model.heads.items()))}
    name = member.record.config["names"]["model"]
    raise ConfigError(
        f"{member.name}: model={name} has no single trunk for its tasks; runs that can be merged have model=single, or "
        "model=hard with all stages shared"
    )


def _initial_model(config: Mapping[str, Any]) -> MultiTaskModel:
    """Return the model of a run before its first step, which follows from config and seed."""
    config = {
        **config,
        "runtime": config["runtime"]
        | {"device": "cpu", "num_workers": 0, "rerun": False, "root": tempfile.gettempdir()},
    }
    problems = Problems()
    model = build_components(config, problems)["model"]
    problems.raise_if_any()
    assert isinstance(model, MultiTaskModel)
    return model


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def check_networks(networks: Sequence[Network]) -> None:
    """Raise DataError unless the trunks have the same shapes and started equal, and no task is that of two networks."""
    first = networks[0]
    owners: dict[str, str] = {}
    for network in networks:
        for task in network.heads:
            if task in owners:
                raise DataError(
                    f"task {task} is predicted by {owners[task]} and {network.run}: give one run per task; for several "
                    "runs of one task there is mtlrun ensemble"
                )
            owners[task] = network.run
        here, there = ({name: tuple(v.shape) for name, v in each.trunk.items()} for each in (first, network))
        if here != there:
            raise DataError(
                f"{first.run} and {network.run} have trunks of other shapes; give runs with the same backbone, on the "
                "same inputs"
            )
        if different := [
            name for name, value in first.initial.items() if not torch.equal(value, network.initial[name])
        ]:
            raise DataError(
                f"{first.run} and {network.run} did not start from the same initial weights ({different[0]} differs), "
                "so that a point between their weights means nothing; give runs with the same seed and backbone"
            )
