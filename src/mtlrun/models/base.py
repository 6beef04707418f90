"""Base classes of models: maps from inputs to {task: prediction} that declare which tasks share which parameters."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.export import register_dataclass

from mtlrun.models.backbones import Shape
from mtlrun.models.blocks.batchnorm_statistics import SourceStatistics
from mtlrun.models.blocks.last_layer import last_layer, order_of_use
from mtlrun.models.computation import Computation
from mtlrun.models.heads import ConvHead, DetectionHead, MLPHead


class TaskLike(Protocol):
    """The attributes of a task that a model uses."""

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
        task: the only task whose loss reaches the parameters; None if they are shared.
        lr_scale: factor on the learning rate of the task, or on `optimizer.lr` for shared parameters.
        adaptive_lr_scale: the factor under optimizers other than `torch.optim.SGD`, such as Adam, whose steps do not
            grow with the gradient; None for `lr_scale`.
        shared_by: the tasks whose losses reach the parameters, if they are shared by some tasks only; empty for all.
        lr_task: the task whose learning rate shared parameters have, such as those of a head that later tasks see the
            predictions of; None for `optimizer.lr`.
    """

    name: str
    parameters: list[nn.Parameter]
    task: str | None = None
    lr_scale: float = 1.0
    adaptive_lr_scale: float | None = None
    shared_by: tuple[str, ...] = ()
    lr_task: str | None = None


@dataclass(frozen=True)
class AuxiliaryPredictions:
    """Intermediate predictions that are trained with the tasks' losses as well (deep supervision).

    Args:
        predictions: {task: prediction}, shaped like the final ones; tasks may be missing.
        weight: factor of their losses, which are added to those of the final predictions.
    """

    predictions: dict[str, Tensor]
    weight: float = 1.0


@dataclass(frozen=True)
class Output:
    """The result of a forward pass.

    Args:
        predictions: {task: prediction} of the requested tasks, in the model's order; see `make_heads` for shapes.
        representation: the tensor that separates shared from task-specific parameters, if there is one.
        auxiliary: intermediate predictions that are supervised as well; only in training.
        domain_logits: logits [batch, K] of a discriminator that predicts from shared features which task a sample
            belongs to, that is, for which tasks it is labeled. Of all tasks, whichever are requested; only in training.
        cuts: what is between the links of the shared part; see `CutsTrunk`.
        regularizers: {name: scalar} of terms that are added to the objective outside the weighting, with their factors
            already applied; only in training. Regularizers that depend on parameters only are computed in full
            whichever tasks are requested.
    """

    predictions: dict[str, Tensor]
    representation: Tensor | None = None
    auxiliary: Sequence[AuxiliaryPredictions] = ()
    domain_logits: Tensor | None = None
    cuts: Sequence[Tensor | None] = ()
    regularizers: Mapping[str, Tensor] = field(default_factory=dict)


# `torch.export` accepts only registered classes as the result of a model.
register_dataclass(AuxiliaryPredictions)
register_dataclass(Output)


class MultiTaskModel(nn.Module, ABC):
    """Base class of all architectures."""

    #: True if nothing ties the tasks together, so that a run is a set of separate trainings.
    independent_tasks = False
    #: True if the tasks' backbones are equal before the first step, unless `init_from` is given.
    equal_start = False
    #: Folder of a run of model=single whose networks this model starts from, for models with one network per task.
    init_from: str | None = None

    def __init__(self, task_names: tuple[str, ...]) -> None:
        super().__init__()
        self.task_names = task_names
        #: Running statistics of BatchNorm per source of samples; None if all sources share one set.
        self.source_statistics: SourceStatistics | None = None
        #: How passes are computed: in the precision of parameters and inputs unless a run asks for another.
        self.computation = Computation()

    @abstractmethod
    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        """Return the predictions for a batch of inputs and, in training mode, everything else that is trained on.

        Args:
            inputs: [batch, ...].
            tasks: the requested ones; None for all. Whatever only the other tasks need is not computed.
        """

    def requested(self, tasks: Sequence[str] | None) -> tuple[str, ...]:
        """Return the requested tasks in the model's order; all tasks for None.

        Raises:
            ValueError: the list is empty, or names a task that the model lacks.
        """
        if tasks is None:
            return self.task_names
        if not tasks or not set(tasks) <= set(self.task_names):
            names = ", ".join(tasks) or "none"
            raise ValueError(f"tasks must be null or one or more of {', '.join(self.task_names)}, found {names}")
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
        """Return the prefixes of these tasks' networks in the state_dict; only if tasks are independent."""
        raise NotImplementedError(f"the tasks of {type(self).__name__} are not independent")

    def task_networks(self) -> dict[str, tuple[nn.Module, nn.Module]]:
        """Return {task: (backbone, head)}, for models that have the modules `backbones` and `heads`, each by task."""
        backbones, heads = self.get_submodule("backbones"), self.get_submodule("heads")
        return {task: (backbones.get_submodule(task), heads.get_submodule(task)) for task in self.task_names}

    def shared_parameters(self) -> list[nn.Parameter]:
        """Return the trainable parameters that more than one task's loss reaches."""
        groups = [group for group in self.parameter_groups() if group.task is None]
        return [parameter for group in groups for parameter in group.parameters if parameter.requires_grad]

    def task_parameters(self) -> dict[str, list[nn.Parameter]]:
        """Return, for each task, the trainable parameters that only its loss reaches."""
        task_params: dict[str, list[nn.Parameter]] = {task: [] for task in self.task_names}
        for group in self.parameter_groups():
            if group.task is not None:
                task_params[group.task] += [parameter for parameter in group.parameters if parameter.requires_grad]
        return task_params


class MixesNetworks(ABC):
    """Mixin of models with a network per task, whose features learned weights mix."""

    @abstractmethod
    def mixing(self) -> Tensor:
        """Return how large the weights are, [mixtures, K, K]: entry [m, a, b] is for network b in a mixture of task a.

        It is the sum of the absolute values of these weights as a fraction of that over all networks.
        """


class CutsTrunk(ABC):
    """Mixin of models whose shared part is a chain of links that ends with the representation."""

    #: True if the output is to have `cuts` in training: what each link puts out, None where it is changed in place.
    cuts_trunk = False

    @abstractmethod
    def link_parameters(self) -> list[list[nn.Parameter]]:
        """Return the trainable parameters of each link."""


class SharedRepresentationModel(MultiTaskModel):
    """Base class of models in which one tensor separates shared from task-specific parameters.

    Gradient methods take the tasks' gradients with respect to this tensor first; the same backward passes give the
    gradients of the heads.
    """

    _order_of_use: Mapping[nn.Parameter, int] | None = None

    @abstractmethod
    def encode(self, inputs: Tensor) -> Tensor:
        """Return the shared representation: all shared parameters come before it."""

    @abstractmethod
    def decode(self, representation: Tensor, tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return {task: prediction} of the requested tasks: all task-specific parameters come after the representation.

        The representation must not be changed in place.
        """

    def add_rotations(self) -> Tensor:
        """Insert a rotation of the representation before each task's head, and return all of them, [K, d, d].

        They start as identities and are buffers, not parameters: the caller updates them in place.
        """
        raise NotImplementedError(f"{type(self).__name__} has no place for rotations of its representation")

    def last_layer(self) -> list[nn.Parameter]:
        """Return the trainable parameters, weight and bias, of the last shared layer with a weight matrix or a kernel.

        Never the scale and shift of a normalization; an embedding only where nothing else is shared; empty if there is
        no such layer. The last one is that applied last, once `find_last_layer` was called, and until then the one
        defined last.
        """
        return last_layer(self, self.shared_parameters(), self._order_of_use)

    def find_last_layer(self, inputs: Tensor) -> None:
        """Find out in which order the layers are applied to a batch of inputs, for `last_layer`."""
        self._order_of_use = order_of_use(self.encode(inputs))

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        decode = self.decode if tasks is None else partial(self.decode, tasks=self.requested(tasks))
        return self.output(self.encode(inputs), decode)

    def output(self, representation: Tensor, decode: Callable[[Tensor], dict[str, Tensor]]) -> Output:
        """Return the output for a representation; RuntimeError if `decode` changes it in place.

        Autograd would differentiate with respect to the modified tensor and silently drop the first task's gradient.
        """
        representation = self.computation.boundary(representation)
        unknown = torch.compiler.is_compiling() or representation.is_inference()
        version = None if unknown else representation._version
        predictions = decode(self.computation.beyond(representation))
        if version is not None and representation._version != version:
            name = type(self).__name__
            raise RuntimeError(f"{name}.decode changes the representation in place; let it make a new tensor")
        return Output(predictions, representation)


def output_shape(task: TaskLike, input_shape: Sequence[int]) -> Shape:
    """Return the output shape of a head for one sample: (n,), or (n, height, width) for pixels and boxes."""
    return (task.output_size, *input_shape[-2:]) if task.dense or task.boxes else (task.output_size,)


def make_head(task: TaskLike, feature_shape: Sequence[int], input_shape: Sequence[int]) -> nn.Module:
    """Return the head that the task configures, or else the default head for its kind of prediction.

    Args:
        task: decides on the kind of head.
        feature_shape: shape of one sample's features.
        input_shape: shape of one sample; predictions at each pixel, and boxes, refer to its height and width.
    """
    factory = task.head or (DetectionHead if task.boxes else ConvHead if task.dense else MLPHead)
    return factory(tuple(feature_shape), output_shape(task, input_shape))


def make_heads(
    tasks: Mapping[str, TaskLike], feature_shape: Sequence[int], input_shape: Sequence[int]
) -> nn.ModuleDict:
    """Return one head per task; see `make_head`."""
    return nn.ModuleDict({name: make_head(task, feature_shape, input_shape) for name, task in tasks.items()})


def task_groups(*modules: nn.ModuleDict) -> list[ParameterGroup]:
    """Return one parameter group per task, with the parameters of all its modules.

    Args:
        modules: each {task: module}; the last one names all tasks, and the others may lack some.
    """
    return [
        ParameterGroup(
            task, [p for by_task in modules if task in by_task for p in by_task[task].parameters()], task=task
        )
        for task in modules[-1]
    ]
