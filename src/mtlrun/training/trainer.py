"""The training loop: fit, train_step, validate, evaluate; and its state, all of it."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mtlrun.config.settings import Settings
from mtlrun.datasets import Loaded, Loader
from mtlrun.errors import CheckpointError, DivergedError, FallbackError, RunInterruptedError
from mtlrun.gradients import NonFiniteGradientError, Update
from mtlrun.models import MultiTaskModel
from mtlrun.tasks import Task
from mtlrun.training import checkpoint
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.forward import BatchPass, Forward, ModelSharing, positions, predict
from mtlrun.training.guard import find_non_finite
from mtlrun.training.lookahead import look_ahead
from mtlrun.training.observers import Observer
from mtlrun.training.optim import Schedule, set_learning_rates
from mtlrun.training.pictures import draw, has_pictures
from mtlrun.training.selection import Choice
from mtlrun.training.step_means import Window
from mtlrun.weightings import LossWeighting, PartsWeighting, Weighting
from mtlrun.weightings.capabilities import ObservesLossesAfterStep, ObservesPerformance, RotatesRepresentation

logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """Where a training stands. Counts are of what is done."""

    step: int = 0
    epoch: int = 0
    batch: int = 0  # of this epoch
    evaluations: int = 0
    evaluated_step: int = 0  # at which the last evaluation was made
    seconds: float = 0.0
    resumed: int = 0


class Trainer:
    """Trains a model; everything it is made of is built elsewhere and passed in.

    Args:
        model: the network, on `device`.
        tasks: {name: task}, in the order of the weighting's K tasks.
        weighting: after `setup`.
        optimizer: over all parameters of model and weighting, with a `initial_lr` in each group.
        schedule: the factor on all learning rates.
        loaders: {"train", "val", "test"}, and "again" for methods that look ahead: the training split in another order.
        selections: what is made of the evaluations of each set of tasks that is judged together.
        settings: the group `trainer`.
        device: where to compute.
        folder: for checkpoints.
        observers: told of everything.
        stop_signal: returns the number of a signal that asks to stop, None while there is none.
        checkpoint_seconds: write a checkpoint at least so often, besides one at each epoch's end; None for not.
    """

    def __init__(
        self,
        *,
        model: MultiTaskModel,
        tasks: Mapping[str, Task],
        weighting: Weighting,
        optimizer: Optimizer,
        schedule: Schedule,
        loaders: Mapping[str, Loader],
        selections: Sequence[Choice],
        settings: Settings,
        device: torch.device,
        folder: Path,
        observers: Sequence[Observer] = (),
        stop_signal: Callable[[], int | None] = lambda: None,
        checkpoint_seconds: float | None = None,
    ) -> None:
        self.model = model
        self.tasks = tasks
        self.weighting = weighting
        self.optimizer = optimizer
        self.schedule = schedule
        self.loaders = loaders
        self.selections = selections
        self.settings = settings
        self.device = device
        self.folder = folder
        self.observers = observers
        self.stop_signal = stop_signal
        self.checkpoint_seconds = checkpoint_seconds

        self.progress = Progress()
        self.window = Window(list(tasks), device)
        self.steps_per_epoch = loaders["train"].num_batches
        self.total_steps = settings.steps or (settings.epochs or 0) * self.steps_per_epoch
        self.first_step_at: float | None = None  # time.time()
        self._resumed_at = self._saved_at = time.monotonic()
        self._best: list[dict[str, Tensor]] = [{} for _ in selections]
        self._sharing = ModelSharing(model)
        # What is clipped together: everything, or each network of a set of separate trainings.
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._clipped = list(self._sharing.task_params.values()) if model.independent_tasks else [trainable]

    # ---------------------------------------------------------------------------------------------- the loop

    def fit(self) -> None:
        """Train to the end, from wherever `progress` stands.

        Raises:
            DivergedError: a loss or gradient is not finite; nothing of that step was applied.
            RunInterruptedError: `stop_signal` asked for it; the state is on disk.
        """
        if self.evaluation_is_due():  # a run that was stopped between a step and its evaluation
            self.validate()
        while not self.finished():
            self.train_epoch()
        self.save()

    def train_epoch(self) -> None:
        """Make the remaining steps of this epoch, and the evaluations that fall due on the way."""
        progress = self.progress
        self.model.train()
        for batch, other in self.batches():
            self.train_step(batch, other)
            progress.step += 1
            progress.batch += 1
            self.log_step()
            self.pause_if_asked()
            if self.evaluation_is_due():
                self.validate()
            if self.finished():
                return
            if self.checkpoint_seconds is not None and time.monotonic() - self._saved_at > self.checkpoint_seconds:
                self.save()
        self.weighting.epoch_ended()
        progress.epoch += 1
        progress.batch = 0
        self.save()

    def batches(self) -> Iterator[tuple[Loaded, Loaded | None]]:
        """Give the rest of this epoch's batches, each with another one of the training split if the method wants it."""
        names = ["train", "again"] if "again" in self.loaders else ["train"]
        streams = [self.loaders[name].batches(self.progress.epoch, start=self.progress.batch) for name in names]
        for found in zip(*streams, strict=True):
            yield found[0], found[1] if len(found) > 1 else None

    def load(self, batch: Loaded) -> LabeledBatch:
        """Bring a batch of the loader's to the device."""
        return LabeledBatch.load(self.tasks, batch, self.device)

    def train_step(self, loaded: Loaded, other: Loaded | None = None) -> None:
        """Make one step: forward, losses, the weighting fills `.grad`, guard, clip, step.

        Args:
            loaded: the batch of this step.
            other: another one of the training split, for a method that looks ahead.
        """
        step = self.progress.step
        self.optimizer.zero_grad(set_to_none=True)
        set_learning_rates(self.optimizer, self.schedule.factor(step, self.steps_per_epoch, self.total_steps))
        self.model.on_train_step(step / self.steps_per_epoch, step / self.total_steps)
        batch = self.load(loaded)
        if other is not None:
            look_ahead(self.weighting, self.model, batch, self.load(other), self.optimizer.param_groups[0]["lr"])

        forward = self.forward(batch)
        if not forward.active:
            return  # no task has a label in this batch
        self.weighting.active = positions(forward.active, batch)
        for method in self.weighting.capable_of(ObservesPerformance):
            method.observe_performance(forward.performances())
        update = self.backward(forward, batch)
        self.guard_and_clip(update.losses, batch)

        self.optimizer.step()
        for rotating in self.weighting.capable_of(RotatesRepresentation):
            rotating.on_optimizer_step()
        for comparing in self.weighting.capable_of(ObservesLossesAfterStep):
            comparing.observe_losses_after_step(forward.losses_now())
        self.window.add(self.weighting.active, update.losses, update.weights, update.gram)
        if self.first_step_at is None:
            self.first_step_at = time.time()

    def forward(self, batch: LabeledBatch) -> Forward:
        """Send a batch through the model, at once or in micro-batches."""
        num_parts = self.weighting.num_parts if isinstance(self.weighting, PartsWeighting) else 1
        return Forward(self.model, batch, self.settings.micro_batches, num_parts=num_parts)

    def backward(self, forward: Forward, batch: LabeledBatch) -> Update:
        """Let the weighting make an update of the losses."""
        due, vmap = self.gradients_are_due(self.progress.step + 1), self.settings.vmap_backward
        try:
            return forward.backward(self.weighting, self._sharing, want_gram=due, vmap=vmap)
        except NonFiniteGradientError as error:
            task = forward.active[error.position]
            raise self.diverged(batch, f"the gradient of task {task}", task) from None

    def guard_and_clip(self, losses: Tensor, batch: LabeledBatch) -> None:
        """Raise DivergedError unless losses and gradients are finite; clip these where that is asked for."""
        norms = [nn.utils.get_total_norm(_gradients(parameters)) for parameters in self._clipped]
        if not torch.isfinite(torch.stack([*norms, losses.sum()])).all():
            raise self.diverged(batch)
        if self.settings.clip_norm is not None:
            for parameters, norm in zip(self._clipped, norms, strict=True):
                nn.utils.clip_grads_with_norm_(parameters, self.settings.clip_norm, norm)

    def diverged(self, batch: LabeledBatch, what: str | None = None, task: str | None = None) -> DivergedError:
        """Return the error that names the task and the step; the slow path may look at everything again."""
        if what is None:
            self.optimizer.zero_grad(set_to_none=True)
            for micro_batch in batch.split(self.settings.micro_batches):
                losses = BatchPass(self.model, micro_batch).losses
                what, task = find_non_finite(losses, self._sharing.shared, self._sharing.task_params)
                if task is not None:
                    break
        step = self.progress.step + 1
        return DivergedError(
            f"step {step}: {what} is not finite (NaN or infinite); this step was not applied. "
            "Try a lower learning rate or trainer.clip_norm=1",
            step,
            task,
        )

    # ------------------------------------------------------------------------------------- evaluation and log

    def evaluation_is_due(self) -> bool:
        """Say whether the validation split is to be evaluated between this step and the next."""
        progress, settings = self.progress, self.settings
        if progress.step == progress.evaluated_step:
            return False
        if settings.evaluate_every_steps is not None:
            due = progress.step % settings.evaluate_every_steps == 0
        else:
            due = progress.batch == self.steps_per_epoch and (progress.epoch + 1) % settings.evaluate_every == 0
        return due or progress.step >= self.total_steps

    def finished(self) -> bool:
        """Say whether all steps are made, or patience has run out for all tasks."""
        exhausted = all(selection.exhausted(self.progress.evaluations) for selection in self.selections)
        return self.progress.step >= self.total_steps or exhausted

    def validate(self) -> None:
        """Evaluate the validation split, and keep the weights if they are the best so far."""
        metrics = self.evaluate("val")
        progress = self.progress
        progress.evaluations += 1
        improved = False
        for index, selection in enumerate(self.selections):
            # Patience that has run out is final, also while other tasks go on.
            if not selection.exhausted(progress.evaluations - 1) and selection.offer(
                progress.evaluations, progress.epoch + 1, progress.step, metrics
            ):
                self._best[index] = self.weights_of(selection)
                improved = True
        if improved:
            self.save_best()
        progress.evaluated_step = progress.step
        for observer in self.observers:
            observer.validated(progress.step, progress.epoch + 1, metrics, improved)
        self.show_pictures()
        self.model.train()

    def evaluate(self, split: str) -> dict[str, dict[str, float]]:
        """Return {task: {metric: value}}, pooled over the labeled samples of the split."""
        self.model.eval()
        meters = {name: task.meter().to(self.device) for name, task in self.tasks.items()}
        with torch.inference_mode():
            for loaded in self.loaders[split].batches():
                for stream in self.load(loaded).source_batches:
                    predictions = predict(self.model, stream).predictions
                    for name in stream.active:
                        meters[name].update(stream.pick(name, predictions[name]), stream.targets[name])
                self.pause_if_asked()
        return {name: meter.compute() for name, meter in meters.items()}

    def show_pictures(self) -> None:
        """Hand pictures of the first validation samples to the observers, for the tasks that have some."""
        if self.settings.log_pictures and has_pictures(self.tasks):
            self.model.eval()
            pictures = draw(self.model, self.load(self.loaders["val"].first(self.settings.log_pictures)))
            for observer in self.observers if pictures else ():
                observer.pictured(self.progress.step, pictures)

    def log_is_due(self, step: int) -> bool:
        """Say whether after this step the means since the last time are handed to the observers."""
        return step % self.settings.log_every == 0 or step >= self.total_steps

    def gradients_are_due(self, step: int) -> bool:
        """Say whether this step's task gradients are wanted for the curves where the method could do without."""
        if isinstance(self.weighting, LossWeighting):
            every = self.settings.log_gradients_every
            return every is not None and step % every == 0
        return self.log_is_due(step)

    def log_step(self) -> None:
        """Hand the means of the last steps to the observers, when it is time; this is where the device is read."""
        progress = self.progress
        if not self.log_is_due(progress.step):
            return
        values = self.window.means() | {f"lr/{group['name']}": group["lr"] for group in self.optimizer.param_groups}
        fallbacks = self.weighting.fallbacks
        if not isinstance(self.weighting, LossWeighting):
            values["weighting/fallbacks"] = fallbacks
        if fallbacks > max(self.settings.max_fallbacks * progress.step, 10):
            raise FallbackError(
                f"step {progress.step}: the weighting has fallen back in {fallbacks} steps, more than "
                f"trainer.max_fallbacks={self.settings.max_fallbacks} allows; a method that is not itself is not tested"
            )
        for observer in self.observers:
            observer.trained(progress.step, progress.epoch + 1, values)
        self.window.reset()

    # --------------------------------------------------------------------------------------------- checkpoints

    def pause_if_asked(self) -> None:
        """Write a checkpoint and raise RunInterruptedError if a signal has asked to stop."""
        number = self.stop_signal()
        if number is not None:
            self.save()
            raise RunInterruptedError(number)

    def weights_of(self, selection: Choice) -> dict[str, Tensor]:
        """Return a copy, on the CPU, of the part of the model's state that this selection is about."""
        state = self.model.state_dict()
        if self.model.independent_tasks:
            mine = tuple(f"{prefix}." for prefix in self.model.state_prefixes(selection.tasks))
            state = {key: value for key, value in state.items() if key.startswith(mine)}
        return {key: value.detach().to("cpu", copy=True) for key, value in state.items()}

    def load_best(self) -> None:
        """Put the selected weights into the model."""
        state = {key: value for part in self._best for key, value in part.items()}
        self.model.load_state_dict(state)

    def save_best(self) -> None:
        """Write best.pt: the selected weights and where they were selected, the one place that says so."""
        state = {
            "selections": [selection.state_dict() for selection in self.selections],
            "weights": self._best,
        }
        checkpoint.save(state, self.folder / checkpoint.BEST)

    def save(self) -> None:
        """Write last.pt: the whole state of the training."""
        now = time.monotonic()
        self.progress.seconds += now - self._resumed_at
        self._resumed_at = self._saved_at = now
        state = {
            "progress": {field.name: getattr(self.progress, field.name) for field in fields(Progress)},
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "weighting": self.weighting.state_dict(),
            "window": self.window.state_dict(),
            "generators": checkpoint.generator_states(),
            "observers": [observer.state_dict() for observer in self.observers],
        }
        checkpoint.save_last(state, self.folder)

    def resume(self) -> bool:
        """Go back to the newest checkpoint that can be read; say whether there is one."""
        state = checkpoint.load_last(self.folder)
        best = None
        if state is not None and state["progress"]["evaluations"] > 0:
            try:
                best = checkpoint.load(self.folder / checkpoint.BEST)
            except CheckpointError as error:
                logger.warning("%s", error)
            if best is None:
                logger.warning("without a readable %s the run cannot be continued; it starts anew", checkpoint.BEST)
                state = None
        if state is None:
            for observer in self.observers:
                observer.load_state_dict({})
            return False
        self.progress = Progress(**state["progress"])
        self.progress.resumed += 1
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.weighting.load_state_dict(state["weighting"])
        self.window.load_state_dict(state["window"])
        if best is not None:
            self._best = best["weights"]
            for selection, content in zip(self.selections, best["selections"], strict=True):
                selection.load_state_dict(content)
        for observer, content in zip(self.observers, state["observers"], strict=True):
            observer.load_state_dict(content)
        checkpoint.restore_generators(state["generators"])
        self._resumed_at = self._saved_at = time.monotonic()
        return True


def _gradients(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]
