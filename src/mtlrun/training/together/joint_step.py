"""A training step of several trainers at once."""

import time
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from mtlrun.gradients import Update
from mtlrun.gradients.assignment import quick_norm_of_grads
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.optim import set_learning_rates
from mtlrun.training.plain_pass import weigh
from mtlrun.training.together.joint_gradients import Turn, combine, stack_gradients
from mtlrun.training.together.joint_pass import JointPass, can_be_stacked
from mtlrun.training.together.stacked_models import StackedModels
from mtlrun.training.together.stacked_optimizer import StackedOptimizer, same_rates
from mtlrun.training.trainer import Trainer
from mtlrun.weightings import LossWeighting


class JointStep:
    """Makes the steps of several trainers together.

    Until `release` is called no trainer may make a step by itself.

    Args:
        trainers: of one config but for the seed, at the same step.
        turn: makes a context for what belongs to one trainer alone, such as its log.
    """

    def __init__(self, trainers: Sequence[Trainer], turn: Turn = lambda _: nullcontext()) -> None:
        self._trainers, self._turn = trainers, turn
        first = trainers[0].parts
        models = [trainer.parts.model for trainer in trainers]
        self._models = StackedModels(models)
        self._pass = JointPass(first.model, first.tasks)
        methods = [trainer.parts.weighting for trainer in trainers]
        #: Empty where gradients are combined.
        self._weightings = [method for method in methods if isinstance(method, LossWeighting)]
        optimizers = [trainer.parts.optimizer for trainer in trainers]
        self._optimizer = StackedOptimizer.make(optimizers, self._models, first.model)
        self._lowest = torch.tensor(first.weighting.lowest_losses(len(first.tasks)), device=first.device)

    def release(self) -> None:
        """Let the trainers make steps by themselves again; afterwards this one makes no more."""
        if self._optimizer is not None:
            self._optimizer.release()
            self._optimizer = None

    def make(self, loaded: Sequence[LabeledBatch]) -> list[Exception | None] | None:
        """Make a step with a batch for each trainer; return the error of each whose step was not applied.

        None, with nothing done, if the batches are not of a kind that can be stacked.
        """
        batches = [trainer.load(batch) for trainer, batch in zip(self._trainers, loaded, strict=True)]
        if not can_be_stacked(batches):
            return None
        for trainer in self._trainers:
            _begin(trainer)
        self._models.zero_grad()
        losses, regularizer = self._pass(self._models, batches)
        for trainer in self._trainers:
            trainer.feed.fetch_ahead()
        updates = (self._weighted if self._weightings else self._combined)(losses, regularizer)
        errors = self._check(losses.detach(), updates, batches)
        self._apply(errors)
        for trainer, error, update in zip(self._trainers, errors, updates, strict=True):
            if error is None and isinstance(update, Update):
                with self._turn(trainer):
                    _end(trainer, update)
        return errors

    def _weighted(self, losses: Tensor, regularizer: Tensor) -> Sequence[Update | Exception]:
        """Make the backward pass of all objectives; return the updates."""
        weights = weigh(self._weightings, losses)
        roots, gradients = [losses], [weights]
        if regularizer.requires_grad:
            roots.append(regularizer)
            gradients.append(torch.ones_like(regularizer))
        torch.autograd.backward(roots, gradients)
        return [Update(*each) for each in zip(losses.detach(), weights, strict=True)]

    def _combined(self, losses: Tensor, regularizer: Tensor) -> Sequence[Update | Exception]:
        """Make the backward passes of all tasks, and let each weighting combine its gradients; return the updates."""
        for trainer in self._trainers:
            trainer.stepper.zero_grad()
        if regularizer.requires_grad:
            regularizer.sum().backward(retain_graph=True)
            self._spread_gradients()
        updates = combine(self._trainers, self._models, losses, self._turn)
        stack_gradients(self._trainers, self._models.trained)
        return updates

    def _check(
        self, losses: Tensor, updates: Sequence[Update | Exception], batches: Sequence[LabeledBatch]
    ) -> list[Exception | None]:
        """Return the error of each trainer whose losses or gradients no step can be made of; clip the gradients."""
        length = quick_norm_of_grads(list(self._models.trained.values()))
        is_sound = (losses >= self._lowest).all() & torch.isfinite(length + losses.sum())
        failed = [update if isinstance(update, Exception) else None for update in updates]
        if self._trainers[0].parts.settings.clip_norm is None and is_sound and not any(failed):
            return failed
        self._spread_gradients()  # which the guards of all may clip
        errors: list[Exception | None] = []
        for trainer, values, batch, error in zip(self._trainers, losses, batches, failed, strict=True):
            try:
                with self._turn(trainer):
                    if error is not None:
                        raise error
                    trainer.guard.check_and_clip(values, trainer.progress.step + 1)
                    trainer.guard.raise_if_bad(lambda _, batch=batch: batch)  # type: ignore[misc]
                errors.append(None)
            except Exception as found:
                errors.append(found)
        return errors

    def _spread_gradients(self) -> None:
        """Give each model its part of the stacked gradients, in the same memory."""
        for name, stacked in self._models.trained.items():
            for number, trainer in enumerate(self._trainers):
                parameter = trainer.parts.model.get_parameter(name)
                parameter.grad = None if stacked.grad is None else stacked.grad[number]

    def _apply(self, errors: Sequence[Exception | None]) -> None:
        """Make the step of each optimizer whose trainer has no error."""
        optimizers = [trainer.parts.optimizer for trainer in self._trainers]
        if self._optimizer is not None and not any(errors) and same_rates(optimizers):
            self._optimizer.step()
            return
        self.release()
        self._spread_gradients()
        for trainer, error in zip(self._trainers, errors, strict=True):
            if error is None:
                trainer.stepper.step(trainer.guard.found_inf)


def _begin(trainer: Trainer) -> None:
    """Do what precedes the forward pass of a step."""
    parts, step = trainer.parts, trainer.progress.step
    parts.weighting.zero_grad(set_to_none=True)
    parts.weighting.active = slice(None)
    set_learning_rates(parts.optimizer, parts.schedule.factor(step, trainer.steps_per_epoch, trainer.total_steps))


def _end(trainer: Trainer, update: Update) -> None:
    """Do what follows the optimizer's step."""
    trainer.parts.weighting.learn()
    trainer.step_means.add(slice(None), update.losses, update.weights, update.gram)
    if trainer.first_step_at is None:
        trainer.first_step_at = time.monotonic()
