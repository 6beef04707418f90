"""What a model is: a map from inputs to {task: prediction}, and the honest account of who shares which parameters."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from mtlrun.models.heads import MLPHead


class TaskLike(Protocol):
    """What a model needs to know of a task."""

    @property
    def output_size(self) -> int: ...

    @property
    def head(self) -> Callable[[int, int], nn.Module] | None: ...


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are trained with one learning rate.

    Args:
        name: as shown on screen and in `lr/<name>`.
        parameters: each parameter of the model is in exactly one group.
        task: the task that they belong to alone, so that no other task's loss reaches them; None if they are shared.
        lr_scale: factor on the learning rate of the task, or on `optimizer.lr` for shared parameters.
    """

    name: str
    parameters: list[nn.Parameter]
    task: str | None = None
    lr_scale: float = 1.0


class MultiTaskModel(nn.Module, ABC):
    """Base of all sharing architectures."""

    #: True if nothing at all ties the tasks together, so that one run is a set of separate trainings.
    independent_tasks = False

    def __init__(self, task_names: tuple[str, ...]) -> None:
        super().__init__()
        self.task_names = task_names

    @abstractmethod
    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return {task: prediction} for a batch of inputs."""

    def predict(self, inputs: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """Return {task: prediction}, and the shared representation on the way to it where the model has one."""
        return self(inputs), None

    @abstractmethod
    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the groups; together they hold every parameter once."""

    def regularisers(self) -> dict[str, Tensor]:
        """Return named terms, scalar tensors, that are added to the objective with their factors already applied."""
        return {}

    def state_prefixes(self, tasks: Sequence[str]) -> list[str]:
        """Return the prefixes of the state_dict keys of these tasks' networks; only where tasks are independent."""
        raise NotImplementedError(f"the tasks of {type(self).__name__} are not independent")

    def shared_parameters(self) -> list[nn.Parameter]:
        """Return the trainable parameters that more than one task's loss reaches."""
        groups = [group for group in self.parameter_groups() if group.task is None]
        return [parameter for group in groups for parameter in group.parameters if parameter.requires_grad]

    def task_parameters(self) -> dict[str, list[nn.Parameter]]:
        """Return, for each task, the trainable parameters that only its loss reaches."""
        found: dict[str, list[nn.Parameter]] = {task: [] for task in self.task_names}
        for group in self.parameter_groups():
            if group.task is not None:
                found[group.task] += [parameter for parameter in group.parameters if parameter.requires_grad]
        return found


class SharedRepresentationModel(MultiTaskModel):
    """A model in which one tensor separates what is shared from what belongs to the tasks.

    Gradient methods use that: they take the tasks' gradients by this tensor first, and the heads' on the way.
    """

    @abstractmethod
    def encode(self, inputs: Tensor) -> Tensor:
        """Return the shared representation: all shared parameters lie before it."""

    @abstractmethod
    def decode(self, representation: Tensor) -> dict[str, Tensor]:
        """Return {task: prediction}: all task parameters lie after the representation."""

    def add_rotations(self) -> Tensor:
        """Put a rotation of the representation in front of each task's head, and return all of them [K, d, d].

        They start as identities, are a part of the state, not of the parameters, and are written to by whoever asked.
        """
        raise NotImplementedError(f"{type(self).__name__} has no place for rotations of its representation")

    def last_layer(self) -> list[nn.Parameter]:
        """Return the parameters of the last shared layer: of the last shared module that has any of its own."""
        shared = {id(parameter) for parameter in self.shared_parameters()}
        for module in reversed(list(self.modules())):
            found = [parameter for parameter in module.parameters(recurse=False) if id(parameter) in shared]
            if found:
                return found
        return []

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        return self.decode(self.encode(inputs))

    def predict(self, inputs: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        representation = self.encode(inputs)
        version = representation._version
        predictions = self.decode(representation)
        if representation._version != version:
            # Its gradient would be that of what it became, and the first task's would be lost without a word.
            name = type(self).__name__
            raise RuntimeError(f"{name}.decode changes the representation in place; let it make a new tensor")
        return predictions, representation


def make_heads(tasks: Mapping[str, TaskLike], num_features: int) -> nn.ModuleDict:
    """Return one head per task on a feature vector: the task's own choice, or one linear layer."""
    return nn.ModuleDict({name: (task.head or MLPHead)(num_features, task.output_size) for name, task in tasks.items()})


def head_groups(heads: nn.ModuleDict) -> list[ParameterGroup]:
    """Return one parameter group per head."""
    return [ParameterGroup(task, list(head.parameters()), task=task) for task, head in heads.items()]
