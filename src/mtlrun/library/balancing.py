"""The weighting of a training loop of one's own: what the loop calls instead of `loss.backward()`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn

from mtlrun.config.bounds import Count, Seed
from mtlrun.config.values import find_problems
from mtlrun.errors import ConfigError
from mtlrun.gradients import GradientStep, NonFiniteGradientError, Sharing, Update
from mtlrun.library.accumulation import Accumulation
from mtlrun.library.choosing import choose, refuse_what_needs_a_run
from mtlrun.library.given import Given, check_values, diverged
from mtlrun.library.processes import Processes, num_processes
from mtlrun.library.reach import SharingFinder, leaves
from mtlrun.weightings import GradientWeighting, LossWeighting, Weighting
from mtlrun.weightings.base import TaskGradientWeighting
from mtlrun.weightings.capabilities import (
    ClipsSharedGradient,
    ObservesLossesAfterStep,
    ObservesPerformance,
    UsesTaskNames,
)
from mtlrun.weightings.precision import promoted
from mtlrun.weightings.state.active_tasks import task_index


def weighting(
    name: str | Weighting,
    /,
    *,
    tasks: Sequence[str] | None = None,
    steps_per_epoch: int | None = None,
    seed: int = 0,
    process_group: "distributed.ProcessGroup | None" = None,
    **keys: Any,
) -> "LossBalancer":
    """Return a weighting for a training loop of one's own.

    >>> import torch
    >>> from mtlrun import weighting
    >>> trunk, seg, depth = torch.nn.Linear(3, 4), torch.nn.Linear(4, 1), torch.nn.Linear(4, 1)
    >>> balance = weighting("cagrad", c=0.4)
    >>> features = trunk(torch.ones(2, 3))
    >>> update = balance.backward({"seg": seg(features).square().mean(), "depth": depth(features).abs().mean()})
    >>> trunk.weight.grad.shape, balance.tasks
    (torch.Size([4, 3]), ['seg', 'depth'])

    Args:
        name: as in `weighting=<name>` on the command line (`mtlrun list weightings`), or a weighting before `setup`.
        tasks: the names of all tasks; None for those of the first batch.
        steps_per_epoch: optimizer steps of a pass over the training data; for methods that count epochs.
        seed: of methods that draw random numbers.
        process_group: where several processes of `torch.distributed` train together, the group over which losses and
            task gradients are averaged before anything is made of them.
        keys: the keys of `conf/weighting/<name>.yaml`, with their defaults. Where a key has one entry per task, it may
            be {task: entry}. A learning rate of None is 1e-3.

    Raises:
        ConfigError: with all problems of the keys, or if the method works in a run only.
    """
    problems = find_problems(seed, Seed, "seed")
    problems += [] if steps_per_epoch is None else find_problems(steps_per_epoch, Count, "steps_per_epoch")
    if problems:
        raise ConfigError(problems)
    if isinstance(name, Weighting):
        if keys:
            raise ConfigError(f"{', '.join(keys)}: give keys with the name of a weighting, not with an object")
        called = type(name).__name__
        refuse_what_needs_a_run(name, called)
        return LossBalancer(name, called, tasks, steps_per_epoch, seed, process_group)
    method, tasks = choose(name, keys, tasks)
    return LossBalancer(method, name, tasks, steps_per_epoch, seed, process_group)


class LossBalancer:
    """A weighting with all that it needs of a training loop; see `mtlrun.weighting`.

    The steps of a loop are `optimizer.zero_grad()`, `balance.backward(...)`, `optimizer.step()`.

    Args:
        method: the weighting, before `setup`.
        name: what messages call it.
        tasks, steps_per_epoch, seed, process_group: see `mtlrun.weighting`.
    """

    def __init__(
        self,
        method: Weighting,
        name: str,
        tasks: Sequence[str] | None = None,
        steps_per_epoch: int | None = None,
        seed: int = 0,
        process_group: "distributed.ProcessGroup | None" = None,
    ) -> None:
        if steps_per_epoch is None and any(counts_epochs(each) for each in method.methods()):
            raise ConfigError(
                f"steps_per_epoch: weighting={name} counts epochs; give the number of optimizer steps in a pass over "
                "the training data, such as len(loader)"
            )
        if process_group is not None and method.capable_of(ObservesLossesAfterStep):
            raise ConfigError(f"process_group: weighting={name} compares losses after the step, in one process only")
        self.method, self.name, self.steps_per_epoch = method, name, steps_per_epoch
        #: The names of all tasks, in the order of whatever has length K; None before the first batch.
        self.tasks: list[str] | None = None
        #: How many updates were made.
        self.step = 0
        self._seed = seed
        self._update: Update | None = None
        self._updated: list[str] = []
        self._accumulated: Accumulation | None = None
        self._finder = SharingFinder()
        self._processes = None if process_group is None else Processes(process_group)
        self._awaits_losses = False
        self._device = torch.device("cpu")
        if tasks is not None:
            self._set_up(tasks)

    # ------------------------------------------------------------------------------------------------- the step

    def backward(
        self,
        losses: Mapping[str, Tensor],
        *,
        shared: Iterable[nn.Parameter] | None = None,
        representation: Tensor | None = None,
        last_layer: Iterable[nn.Parameter] = (),
        regularizer: Tensor | None = None,
        parts: Sequence[Mapping[str, Tensor]] = (),
        performances: Mapping[str, float] | None = None,
        last: bool = True,
    ) -> Update:
        """Set `.grad` of all parameters to the update that the weighting makes of a batch's losses.

        Parameters that one loss alone reaches, such as those of heads, are found in autograd's graph, and so are the
        shared ones where they are not given: those that several losses reach, or that the representation depends on.
        Only `nn.Parameter`s are found as shared; other tensors that require gradients, such as the inputs of a physical
        law, get none by several losses.

        Args:
            losses: {task: scalar with its graph}; tasks that have no label in the batch are left out.
            shared: the parameters that several losses reach; None to find them, for which the first batch has to have
                all tasks.
            representation: the tensor that separates shared from task-specific parameters; with it, a method that
                compares gradients is faster. None if there is none.
            last_layer: weight and bias of the last shared layer, for `grad_wrt="last_layer"`.
            regularizer: a scalar that joins the objective outside the weighting.
            parts: the losses of equal parts of the batch, for a method that needs them, such as `modo`.
            performances: {task: number in [0, 1], higher is better}, for a method that needs them, such as `dtp`.
            last: False for a micro-batch after which others of the same optimizer step follow; their losses add up to
                those of the step, so each is divided by their number.

        Returns:
            Losses and weights of the tasks in `losses`; without any if `last` is False.

        Raises:
            ConfigError: the arguments do not fit the method, or the losses; nothing was changed.
            DivergedError: a loss or a task gradient is not finite, or a loss lower than the method allows; nothing was
                changed.
        """
        given = Given(
            losses,
            None if shared is None else list(shared),
            representation,
            list(last_layer),
            regularizer,
            parts,
            performances,
            last,
        )
        ordered = self._check(given)
        if not self._accumulates(given):
            return self._make_update(given, ordered)
        if self._accumulated is None:
            self._accumulated = Accumulation()
        if regularizer is not None:
            regularizer.backward(retain_graph=True)
        self._accumulated.add(ordered, {name: leaves(loss)[0] for name, loss in ordered.items()})
        if not last:
            return Update(_values(ordered))
        accumulated, self._accumulated = self._accumulated, None
        if self._processes is not None:
            self._processes.average(accumulated, self.tasks or ())
        ordered = self._in_order(accumulated.with_graph())
        self._check_values(ordered)
        return self._make_update(Given(ordered, given.shared, None, [], None, (), None, True), ordered)

    def after_step(self, losses: Mapping[str, Tensor]) -> None:
        """Take in the losses of the same batch after the optimizer's step, for a method that compares them: `famo`.

        Args:
            losses: {task: scalar}, of the tasks that `backward` was given.
        """
        if not self._awaits_losses:
            raise ConfigError(f"after_step: weighting={self.name} asks for no losses after this step; leave it out")
        if set(losses) != set(self._updated):
            raise ConfigError(f"after_step: needs the losses of {', '.join(self._updated)}, found {', '.join(losses)}")
        after = torch.stack([losses[name].detach() for name in self._updated])
        for comparing in self.method.capable_of(ObservesLossesAfterStep):
            comparing.observe_losses_after_step(after)
        self._awaits_losses = False
        self._learn()

    @property
    def weights(self) -> dict[str, float]:
        """The effective weights {task: weight} of the losses in the last update; empty for a method that has none."""
        if self._update is None or self._update.weights is None:
            return {}
        return dict(zip(self._updated, self._update.weights.tolist(), strict=True))

    # ------------------------------------------------------------------------------------------------ checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes, as data that `torch.load` reads with `weights_only=True`.

        Raises:
            ConfigError: in the midst of a step, before its last micro-batch or `after_step`.
        """
        if self._accumulated is not None or self._awaits_losses:
            raise ConfigError("state_dict: in the midst of a step; save after its last part")
        method = None if self.tasks is None else self.method.state_dict()
        return {"weighting": self.name, "tasks": self.tasks, "step": self.step, "method": method}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken, of a balancer that was made alike.

        Raises:
            ConfigError: the state is of another weighting or of other tasks.
        """
        for key, here in (("weighting", self.name), ("tasks", self.tasks)):
            if here is not None and state[key] is not None and here != state[key]:
                raise ConfigError(f"load_state_dict: the state is of {key}={state[key]}, and here it is {here}")
        if self.tasks is None and state["tasks"] is not None:
            self._set_up(state["tasks"])
        if state["method"] is not None:
            self.method.load_state_dict(state["method"])
        self.step = state["step"]
        self._finder = SharingFinder()
        self._update, self._accumulated, self._awaits_losses = None, None, False

    # ----------------------------------------------------------------------------------------------------- checks

    def _set_up(self, tasks: Sequence[str]) -> None:
        """Take in the names of the tasks."""
        names = [str(name) for name in tasks]
        if len(set(names)) < len(names):
            raise ConfigError(f"tasks: each must have another name, found {', '.join(names)}")
        if len(names) < self.method.minimum_tasks:
            raise ConfigError(
                f"weighting={self.name} combines the gradients of {self.method.minimum_tasks} tasks or more, found "
                f"{len(names)} ({', '.join(names)}); use weighting=equal"
            )
        try:
            self.method.setup(len(names), self._seed)
            for naming in self.method.capable_of(UsesTaskNames):
                naming.set_task_names(names)
        except ValueError as error:
            raise ConfigError(f"weighting.{error}") from error
        self.tasks = names

    def _check(self, given: Given) -> dict[str, Tensor]:
        """Return the losses in the order of the tasks, or raise what `backward` does."""
        if self._processes is None and num_processes() > 1:
            raise ConfigError(
                "process_group: several processes train together, and each would make an update of its part of the "
                "batch alone; give torch.distributed.group.WORLD, or train in one process"
            )
        if self._awaits_losses:
            raise ConfigError(
                f"weighting={self.name} compares losses before and after each step: after optimizer.step(), call "
                "after_step with the losses of the same batch"
            )
        if self.tasks is None and given.losses:
            self._set_up(list(given.losses))
        accumulates = self._accumulates(given)
        problems = given.problems_of_losses(self.tasks or ())
        problems += given.problems_of_method(self.method, self.name, accumulates=accumulates)
        if problems:
            raise ConfigError(problems)
        losses = self._in_order(given.losses)
        if self._processes is None:  # else the others would wait for this one
            self._check_values(losses, whole=not accumulates)
        return losses

    def _accumulates(self, given: Given) -> bool:
        """Return True if a batch's task gradients are to be added to others."""
        return not given.last or self._accumulated is not None or self._processes is not None

    def _check_values(self, losses: Mapping[str, Tensor], *, whole: bool = True) -> None:
        """Raise DivergedError for a loss that no update can be made of; only those of a `whole` batch have bounds."""
        tasks = self.tasks or []
        bounds = self.method.lowest_losses(len(tasks)) if whole else [-torch.inf] * len(tasks)
        if losses:
            check_values(losses, dict(zip(tasks, bounds, strict=True)), self.name, self.step + 1)

    def _in_order(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: losses[name] for name in self.tasks or () if name in losses}

    # ----------------------------------------------------------------------------------------------- the update

    def _make_update(self, given: Given, losses: Mapping[str, Tensor]) -> Update:
        """Make the update of one optimizer step, of all its losses in the order of the tasks."""
        if not losses:
            if given.regularizer is not None:
                given.regularizer.backward()
            return Update(torch.empty(0))
        method, tasks = self.method, self.tasks or []
        sharing = self._find_sharing(given, losses)
        self._move_to(next(iter(losses.values())).device)
        positions = [tasks.index(name) for name in losses]
        method.active = task_index(positions, len(tasks))
        method.zero_grad(set_to_none=True)
        for observing in method.capable_of(ObservesPerformance):
            observing.observe_performance(torch.tensor([float((given.performances or {})[name]) for name in losses]))
        parts = [[part[name] for name in losses] for part in given.parts]
        step = GradientStep(method, sharing)
        try:
            step.add(
                list(losses.values()),
                representation=given.representation,
                regularizer=given.regularizer,
                parts=parts,
            )
            self._update = step.finish()
        except NonFiniteGradientError as error:
            name = list(losses)[error.position]
            raise diverged(
                f"the gradient of task {name} is not finite (NaN or infinite)", self.step + 1, name
            ) from None
        self._updated = list(losses)
        self._awaits_losses = bool(method.capable_of(ObservesLossesAfterStep))
        if not self._awaits_losses:
            self._learn()
        return self._update

    def _find_sharing(self, given: Given, losses: Mapping[str, Tensor]) -> Sharing:
        """Return which parameters the losses reach; weightings of losses need not know."""
        method = self.method
        clips = any(each.max_norm is not None for each in method.capable_of(ClipsSharedGradient))
        if isinstance(method, LossWeighting) and not clips:
            return Sharing([], [[] for _ in losses])
        sharing = self._finder.find(given, losses, self.tasks or [])
        if not sharing.shared:
            raise ConfigError(
                f"shared: weighting={self.name} needs parameters that several losses reach, and there are none"
            )
        return sharing

    def _learn(self) -> None:
        """Let the method move what it learns, at the end of a step."""
        self.method.learn()
        self.step += 1
        if self.steps_per_epoch is not None and self.step % self.steps_per_epoch == 0:
            self.method.epoch_ended()

    def _move_to(self, device: torch.device) -> None:
        """Move the state of the methods to where the losses are; that of Gram methods stays with their solvers."""
        if device == self._device:
            return
        for method in self.method.methods():
            if isinstance(method, GradientWeighting):
                continue
            learned = None if method.learner is None else method.learner.state_dict()
            method.to(device)
            if learned is not None:
                method._learner = None
                assert method.learner is not None
                method.learner.load_state_dict(learned)
        self._device = device


def counts_epochs(method: Weighting) -> bool:
    """Return True if a method, as it is set, does something else at or after the end of an epoch."""
    own = {Weighting.epoch_ended, TaskGradientWeighting.epoch_ended}
    return type(method).epoch_ended not in own or method.first_epoch > 1


def _values(losses: Mapping[str, Tensor]) -> Tensor:
    """Return the losses [K] without graph."""
    return torch.stack([promoted(loss.detach()) for loss in losses.values()]) if losses else torch.empty(0)
