"""The updates of several trainers whose weightings combine task gradients: K backward passes for all of them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from mtlrun.gradients import GradientStep, NonFiniteGradientError, Update
from mtlrun.gradients.matrix_rows import MatrixRows
from mtlrun.gradients.task_gradients import PartialGradient, TaskGradients, fill, gradients_of
from mtlrun.training.guard import diverged
from mtlrun.training.together.stacked_models import StackedModels
from mtlrun.training.trainer import Trainer
from mtlrun.weightings import JacobianWeighting

#: Makes a context for what belongs to one trainer alone, such as its log.
Turn = Callable[[Trainer], AbstractContextManager[None]]


class GivenGradients(GradientStep):
    """A step whose backward passes somebody else makes: `begin` with the losses, then `take`, then `finish`."""

    def begin(self, losses: Tensor) -> Tensor:
        """Take the losses [K] of the batch, without graph; return by what [K] each gradient is to be multiplied."""
        positions = range(len(losses))
        self._add_losses(losses, positions)
        return torch.stack(list(self._scales.scaled(torch.ones_like(losses).unbind(), positions)))

    def take(self, gradients: TaskGradients) -> None:
        """Take the gradients of the losses, multiplied as asked for."""
        self._add_gradients(gradients, range(len(gradients.compared)))


def combine(trainers: Sequence[Trainer], models: StackedModels, losses: Tensor, turn: Turn) -> list[Update | Exception]:
    """Set `.grad` of each trainer's model to its update, and return what was done, or why it cannot be.

    Args:
        trainers: whose weightings compare gradients with respect to the shared parameters.
        models: theirs, stacked.
        losses: [num_trainers, K], with their graph, which is freed.
        turn: see `Turn`.
    """
    tasks = list(trainers[0].parts.tasks)
    steps = []
    for trainer in trainers:
        is_logged = trainer.timetable.log_is_due(trainer.progress.step + 1)
        steps.append(GivenGradients(trainer.parts.weighting, trainer.sharing.of(tasks), want_gram=is_logged))
    slopes = [step.begin(values) for step, values in zip(steps, losses.detach().unbind(), strict=True)]
    names = {parameter: name for name, parameter in trainers[0].parts.model.named_parameters()}
    sharing = trainers[0].sharing
    shared = [models.parameters[names[parameter]] for parameter in sharing.shared]
    own = [[models.parameters[names[parameter]] for parameter in sharing.task_params[task]] for task in tasks]
    scaled = (losses * torch.stack(slopes)).sum(dim=0).unbind()
    taken = [
        gradients_of([loss], [*shared, *group], None, retain=number < len(tasks) - 1)
        for number, (loss, group) in enumerate(zip(scaled, own, strict=True))
    ]
    updates: list[Update | Exception] = []
    for number, (trainer, step) in enumerate(zip(trainers, steps, strict=True)):
        of_one = [[None if part is None else part[number] for part in gradient] for gradient in taken]
        with turn(trainer):
            step.take(_divided(of_one, trainer, len(shared)))
            try:
                updates.append(step.finish())
            except NonFiniteGradientError as error:
                task = tasks[error.position]
                updates.append(diverged(f"the gradient of task {task}", task, trainer.progress.step + 1))
    return updates


def _divided(gradients: Sequence[PartialGradient], trainer: Trainer, num_shared: int) -> TaskGradients:
    """Return gradients of shared parameters, followed by the tasks' own, as a step takes them."""
    of_shared, shared = [gradient[:num_shared] for gradient in gradients], trainer.sharing.shared
    rows = MatrixRows(len(gradients), shared) if isinstance(trainer.parts.weighting, JacobianWeighting) else None
    if rows is not None:
        for position, gradient in enumerate(of_shared):
            rows.put(position, gradient)
    compared, reached = fill(of_shared, shared, rows)
    return TaskGradients(compared, [], [list(gradient[num_shared:]) for gradient in gradients], reached, rows)


def stack_gradients(trainers: Sequence[Trainer], parameters: Mapping[str, Tensor]) -> None:
    """Make the gradients of stacked parameters from those of the models; None where no model has one."""
    models = [trainer.parts.model for trainer in trainers]
    for name, stacked in parameters.items():
        gradients = [model.get_parameter(name).grad for model in models]
        present = [gradient for gradient in gradients if gradient is not None]
        stacked.grad = torch.stack(present) if len(present) == len(models) else None
