"""What a model is: a map from inputs to {task: prediction}, and the honest account of who shares which parameters."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from torch import Tensor, nn
from torch.export import register_dataclass

from mtlrun.models.backbones import Shape
from mtlrun.models.blocks.batchnorm_statistics import SourceStatistics
from mtlrun.models.heads import ConvHead, DetectionHead, MLPHead


class TaskLike(Protocol):
    """What a model needs to know of a task."""

    @property
    def output_size(self) -> int: ...

    @property
    def dense(self) -> bool: ...

    @property
    def boxes(self) -> bool: ...

    @property
    def head(self) -> Callable[[Shape, Shape], nn.Module] | None: ...


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are trained with one learning rate.

    Args:
        name: as shown on screen and in `lr/<name>`.
        parameters: each parameter of the model is in exactly one group.
        task: the task that they belong to alone, so that no other task's loss reaches them; None if they are shared.
        lr_scale: factor on the learning rate of the task, or on `optimizer.lr` for shared parameters.
        shared_by: for shared parameters that the losses of some tasks only reach: which these are; empty for all.
    """

    name: str
    parameters: list[nn.Parameter]
    task: str | None = None
    lr_scale: float = 1.0
    shared_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class AuxiliaryPredictions:
    """Predictions on the way to the final ones that are trained by the same losses.

    Args:
        predictions: {task: prediction}, shaped like the final ones; tasks may be left out.
        weight: factor of their losses, which are added to those of the final predictions.
    """

    predictions: dict[str, Tensor]
    weight: float = 1.0


@dataclass(frozen=True)
class Output:
    """What a forward pass gives.

    Args:
        predictions: {task: prediction} of the requested tasks, in the model's order; see `make_heads` for shapes.
        representation: the tensor that separates what is shared from what belongs to the tasks, if there is one.
        auxiliary: earlier predictions that are supervised as well; only in training.
        domain_logits: logits [batch, K] of a discriminator that predicts from shared features which task a sample
            belongs to, that is, for which tasks it carries a label; of all tasks, whichever are requested.
        regularizers: named terms, scalars, that are added to the objective with their factors already applied, outside
            the weighting; only in training. Terms of parameters alone are the same whichever tasks are requested.
    """

    predictions: dict[str, Tensor]
    representation: Tensor | None = None
    auxiliary: Sequence[AuxiliaryPredictions] = ()
    domain_logits: Tensor | None = None
    regularizers: Mapping[str, Tensor] = field(default_factory=dict)


# So that a model can be exported by `torch.export` although it returns these.
register_dataclass(AuxiliaryPredictions)
register_dataclass(Output)


class MultiTaskModel(nn.Module, ABC):
    """Base of all sharing architectures."""

    #: True if nothing at all ties the tasks together, so that one run is a set of separate trainings.
    independent_tasks = False
    #: The folder of a run of model=single whose networks this model starts from, for models with a network per task.
    init_from: str | None = None

    def __init__(self, task_names: tuple[str, ...]) -> None:
        super().__init__()
        self.task_names = task_names
        #: Sets of BatchNorm's running statistics, where each source of samples has one of its own.
        self.source_statistics: SourceStatistics | None = None

    @abstractmethod
    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        """Return the predictions for a batch of inputs, and what else the training is to know.

        Args:
            inputs: [batch, ...].
            tasks: those whose predictions are requested; None for all. What only other tasks need is not computed.
        """

    def requested(self, tasks: Sequence[str] | None) -> tuple[str, ...]:
        """Return the tasks whose predictions are requested, in the model's order; None stands for all.

        Raises:
            ValueError: there are none, or the model lacks one.
        """
        if tasks is None:
            return self.task_names
        if not tasks or not set(tasks) <= set(self.task_names):
            found = ", ".join(tasks) or "none"
            raise ValueError(f"tasks must be null or one or more of {', '.join(self.task_names)}, found {found}")
        return tuple(task for task in self.task_names if task in tasks)

    def on_train_step(self, epoch: float, progress: float) -> None:
        """Adapt to the progress of training, before each step; for models with a warm-up or an annealing schedule.

        Args:
            epoch: number of passes over the training data so far, with fractions.
            progress: fraction of the whole training that is done, in [0, 1).
        """

    @abstractmethod
    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the groups; together they hold every parameter once."""

    def state_prefixes(self, tasks: Sequence[str]) -> list[str]:
        """Return the prefixes of the state_dict keys of these tasks' networks; only where tasks are independent."""
        raise NotImplementedError(f"the tasks of {type(self).__name__} are not independent")

    def task_networks(self) -> dict[str, tuple[nn.Module, nn.Module]]:
        """Return each task's own backbone and head, for models that have these: `backbones` and `heads`, by task."""
        backbones, heads = self.get_submodule("backbones"), self.get_submodule("heads")
        return {task: (backbones.get_submodule(task), heads.get_submodule(task)) for task in self.task_names}

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
    def decode(self, representation: Tensor, tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return {task: prediction} of the requested tasks: all task parameters lie after the representation."""

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

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        decode = self.decode if tasks is None else partial(self.decode, tasks=self.requested(tasks))
        return self.output(self.encode(inputs), decode)

    def output(self, representation: Tensor, decode: Callable[[Tensor], dict[str, Tensor]]) -> Output:
        """Return the output that `decode` makes of the representation; RuntimeError if it changes that in place.

        The gradient by it would be that of what it became, and the first task's would be lost without a word.
        """
        version = None if representation.is_inference() else representation._version
        predictions = decode(representation)
        if version is not None and representation._version != version:
            name = type(self).__name__
            raise RuntimeError(f"{name}.decode changes the representation in place; let it make a new tensor")
        return Output(predictions, representation)


def output_shape(task: TaskLike, input_shape: Sequence[int]) -> Shape:
    """Return what a head is to give for one sample: (n,), or (n, height, width) of the input for pixels and boxes."""
    return (task.output_size, *input_shape[-2:]) if task.dense or task.boxes else (task.output_size,)


def make_head(task: TaskLike, feature_shape: Sequence[int], input_shape: Sequence[int]) -> nn.Module:
    """Return a head on features of one shape: the task's own choice, or the plainest one of its kind.

    Args:
        task: decides on the kind of head.
        feature_shape: of one sample's features.
        input_shape: of one sample, for the size of what dense tasks predict, and for where boxes are.
    """
    factory = task.head or (DetectionHead if task.boxes else ConvHead if task.dense else MLPHead)
    return factory(tuple(feature_shape), output_shape(task, input_shape))


def make_heads(
    tasks: Mapping[str, TaskLike], feature_shape: Sequence[int], input_shape: Sequence[int]
) -> nn.ModuleDict:
    """Return one head per task; see `make_head`."""
    return nn.ModuleDict({name: make_head(task, feature_shape, input_shape) for name, task in tasks.items()})


def head_groups(heads: nn.ModuleDict) -> list[ParameterGroup]:
    """Return one parameter group per head."""
    return [ParameterGroup(task, list(head.parameters()), task=task) for task, head in heads.items()]
