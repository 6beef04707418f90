"""Trainer: the training loop, the step, and when to evaluate, log and save."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from mtlrun.datasets import Loaded
from mtlrun.errors import RunInterruptedError
from mtlrun.gradients import NonFiniteGradientError, Update
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.captured_passes import CapturedForward, CapturedPasses, CudaGraphs
from mtlrun.training.checkpoint import Checkpoints, Generators, Stateful
from mtlrun.training.constants import ConstantPredictions
from mtlrun.training.evaluation import evaluate, gather
from mtlrun.training.feed import Feed, LabeledPair
from mtlrun.training.forward import Forward, ModelSharing, positions
from mtlrun.training.guard import Guard, diverged
from mtlrun.training.lookahead import look_ahead, measure_affinity
from mtlrun.training.observers import Observer, Observers
from mtlrun.training.optim import set_learning_rates
from mtlrun.training.outputs import SplitOutputs
from mtlrun.training.parts import Parts
from mtlrun.training.pictures import draw, has_pictures
from mtlrun.training.progress import Progress, Timetable
from mtlrun.training.selection import SelectedModel, Selection, TaskBests
from mtlrun.training.skill import log_references, log_stand_ins
from mtlrun.training.skipped_steps import SkippedSteps
from mtlrun.training.step_means import StepMeans
from mtlrun.training.stepping import Stepper
from mtlrun.weightings import LossWeighting, PartsWeighting
from mtlrun.weightings.capabilities import ObservesLossesAfterStep, ObservesPerformance

# After so many seconds without a checkpoint an epoch ends with one; after an evaluation it always does.
_SECONDS_UNSAVED = 5.0


class Trainer:
    """Trains the model of `parts`, from the first step or from the newest checkpoint, to the end.

    Args:
        parts: what to train, with what.
        folder: for checkpoints.
        run_id: which the checkpoints hold, so that those of another run are not taken for this one's.
        observers: notified of all that happens.
        stop_signal: returns the number of a signal that asks to stop, None as long as there is none.
        checkpoint_seconds: write a checkpoint at least this often, besides one at each epoch's end; None for not.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        folder: Path,
        run_id: str = "",
        observers: Sequence[Observer] = (),
        stop_signal: Callable[[], int | None] = lambda: None,
        checkpoint_seconds: float | None = None,
    ) -> None:
        self.parts, self.observers, self.checkpoints = parts, Observers(observers), Checkpoints(folder, run_id)
        self.stop_signal, self.checkpoint_seconds = stop_signal, checkpoint_seconds
        self.steps_per_epoch, self.total_steps = parts.steps_per_epoch, parts.total_steps
        self.sharing = ModelSharing(parts.model)
        lowest = torch.tensor(parts.weighting.lowest_losses(len(parts.tasks)), dtype=torch.float64, device=parts.device)
        self.stepper = Stepper(parts.optimizer)
        self._weighting_learns = any(True for _ in parts.weighting.parameters())
        self.skips = SkippedSteps(parts.model.computation.scale, parts.weighting, parts.settings)
        reads_at_once = parts.device.type == "cpu" or not self.stepper.knows_found_inf or self.skips.must_be_seen
        self.guard = Guard(parts.model, self.sharing, parts.settings, lowest, reads_at_once=reads_at_once)
        graphs = CudaGraphs(parts.device) if parts.settings.cuda_graph else None
        self.captured = None if graphs is None else CapturedPasses(parts.model, parts.tasks, graphs)
        self.progress = Progress()
        self.feed = Feed(parts.device, self.load, self.progress)
        self.timetable = Timetable(parts.settings, parts.steps_per_epoch, parts.total_steps)
        self.selected = SelectedModel(parts.model, parts.selection_rules)
        self.main_metrics = {name: task.main_metric for name, task in parts.tasks.items()}
        self.task_bests = TaskBests(self.main_metrics, parts.skills)
        self.step_means = StepMeans(list(parts.tasks))
        #: All that changes during training, as it stands in last.pt. Observers come last, since they cut back files.
        self.state: dict[str, Stateful] = {
            "progress": self.progress,
            "model": parts.model,
            "optimizer": parts.optimizer,
            "weighting": parts.weighting,
            "step_means": self.step_means,
            "skills": parts.skills,
            "selected": self.selected,
            "task_bests": self.task_bests,
            "generators": Generators(parts.device),
            "observers": self.observers,
        }
        if self.skips.scale is not None:
            self.state = {"gradient_scale": self.skips.scale, **self.state}
        #: {split: what the heads put out in the selected state}, complete after `test`.
        self.outputs = {split: self._no_outputs(split) for split in ("val", "test")}
        self.has_ended = False  # and is saved; the model then holds the selected weights
        self.evaluating = False  # and what ended the training early, if anything did, happened in an evaluation
        self.first_step_at: float | None = None  # time.monotonic()
        #: The seeds that this process trains together, if there are several, and how many of them still train.
        self.seeds_together: list[int] = []
        self.num_trainings = 1
        #: Of the last evaluation that this process made, for whoever watches.
        self.newest_metrics: dict[str, dict[str, float]] = {}
        self._counted_at = self._saved_at = time.monotonic()

    # ---------------------------------------------------------------------------------------------- the loop

    def fit(self) -> None:
        """Train from the current `progress` to the end.

        Raises:
            DivergedError: a loss or gradient is not finite; nothing of that step was applied, nor of later ones.
            RunInterruptedError: `stop_signal` asked for it; the state is on disk.
        """
        for batch, meta_batch in self.steps():
            self.train_step(batch, meta_batch)

    def steps(self) -> Iterator[LabeledPair]:
        """Yield the batch of each step that is left; do all that is due between steps, and at the end.

        Whoever asks for the next one has made the step, by `train_step` or in a way that comes to the same.
        """
        is_due = self.timetable.evaluation_is_due(self.progress)  # if the run was stopped before it was made
        if is_due:
            self.validate()
        if is_due or not self.finished():  # a run that was stopped after the end of its training is saved as it ended
            while not self.finished():
                yield from self.steps_of_epoch()
            self.save()
        self.has_ended = True

    def steps_of_epoch(self) -> Iterator[LabeledPair]:
        """Yield the remaining batches of this epoch; make the evaluations that are due between its steps."""
        progress = self.progress
        self.parts.model.train()
        for batches in self.batches():
            yield batches
            progress.step += 1
            progress.batch += 1
            self.log_step()
            self.pause_if_asked()
            if self.timetable.evaluation_is_due(progress):
                self.validate()
            if self.finished():
                return
            if self.checkpoint_seconds is not None and time.monotonic() - self._saved_at > self.checkpoint_seconds:
                self.save()
        self.parts.weighting.epoch_ended()
        self.step_means.start_epoch()
        progress.epoch += 1
        progress.batch = 0
        # Epochs of a small table take less time than writing a checkpoint.
        if progress.evaluated_step == progress.step or time.monotonic() - self._saved_at > _SECONDS_UNSAVED:
            self.save()

    def batches(self) -> Iterator[LabeledPair]:
        """Yield the remaining batches of this epoch, each with a meta batch if the method looks ahead."""
        loaders, progress = self.parts.loaders, self.progress
        batches = loaders["train"].batches(progress.epoch, start=progress.batch)
        if "meta" in loaders:
            meta_batches = loaders["meta"].batches(progress.epoch, start=progress.batch)
            return self.feed.pairs(zip(batches, meta_batches, strict=True))
        return self.feed.pairs((batch, None) for batch in batches)

    def finished(self) -> bool:
        """Return True if all steps are made, or patience has run out for all tasks."""
        return self.progress.step >= self.total_steps or self.selected.out_of_patience(self.progress.evaluations)

    def pause_if_asked(self) -> None:
        """Raise RunInterruptedError if a signal asks to stop, after writing a checkpoint if training has not ended."""
        number = self.stop_signal()
        if number is not None:
            if not self.has_ended:
                self.save()
            raise RunInterruptedError(number)

    # ---------------------------------------------------------------------------------------------- the step

    def train_step(self, batch: LabeledBatch | Loaded, meta_batch: LabeledBatch | Loaded | None = None) -> None:
        """Make one step: forward, losses, the weighting fills `.grad`, guard, clip, optimizer; the weighting learns."""
        parts, step = self.parts, self.progress.step
        weighting, optimizer = parts.weighting, parts.optimizer
        self.stepper.zero_grad()
        if self._weighting_learns:
            weighting.zero_grad(set_to_none=True)
        factor = parts.schedule.factor(step, self.steps_per_epoch, self.total_steps)
        set_learning_rates(optimizer, factor)
        parts.model.on_train_step(step / self.steps_per_epoch, step / self.total_steps)
        batch = self.load(batch)
        if meta_batch is not None:
            look_ahead(weighting, parts.model, batch, self.load(meta_batch), factor * optimizer.defaults["lr"])
        if batch.active and self.timetable.affinity_is_due(step + 1):
            affinity = measure_affinity(parts.model, batch, self.sharing.shared, optimizer)
            self.step_means.add_affinity(positions(batch.active, batch), affinity)

        forward = self.forward(batch)
        self.feed.fetch_ahead()
        if not forward.active:
            return  # no task has a label in this batch, or in each of its parts
        weighting.active = active = positions(forward.active, batch)
        for method in weighting.capable_of(ObservesPerformance):
            assert isinstance(forward, Forward)
            method.observe_performance(forward.performances())
        update = self.backward(forward)
        if update is None:
            self.skips.count(step + 1, True, read=True)
            return
        self.guard.check_and_clip(update.losses, step + 1, active)
        if self.guard.reads_at_once:
            self.guard.raise_if_bad(lambda _: batch)
        if self.skips.count(step + 1, self.guard.is_skipped, read=self.guard.reads_at_once):
            self.step_means.add(active, update.losses, update.weights, None)
            return
        self.stepper.step(self.guard.found_inf)
        for comparing in weighting.capable_of(ObservesLossesAfterStep):
            assert isinstance(forward, Forward)
            comparing.observe_losses_after_step(forward.losses_again())
        weighting.learn()
        self.step_means.add(active, update.losses, update.weights, update.gram)
        if self.first_step_at is None:
            self.first_step_at = time.monotonic()

    def load(self, batch: LabeledBatch | Loaded) -> LabeledBatch:
        """Copy what a loader gives to the device; return a batch that is there as it is."""
        if isinstance(batch, LabeledBatch):
            return batch
        return LabeledBatch.load(self.parts.tasks, batch, self.parts.device)

    def batch_of_step(self, step: int) -> LabeledBatch:
        """Return the batch of a step, counted from 1, once more, and have the model be as it was at that step."""
        epoch, number = divmod(step - 1, self.steps_per_epoch)
        self.parts.model.train()
        self.parts.model.on_train_step((step - 1) / self.steps_per_epoch, (step - 1) / self.total_steps)
        return self.load(next(iter(self.parts.loaders["train"].batches(epoch, start=number))))

    def forward(self, batch: LabeledBatch) -> Forward | CapturedForward:
        """Send a batch through the model, at once or in micro-batches."""
        if self.captured is not None and not self.timetable.gradients_are_due(self.progress.step + 1):
            replayed = self.captured.forward(batch)
            if replayed is not None:
                return replayed
        weighting = self.parts.weighting
        num_parts = weighting.num_parts if isinstance(weighting, PartsWeighting) else 1
        repeatable = bool(weighting.capable_of(ObservesLossesAfterStep))
        micro_batches = self.parts.settings.micro_batches
        forward = Forward(self.parts.model, batch, micro_batches, num_parts=num_parts, repeatable=repeatable)
        self.progress.leave_out([task for task in batch.active if task not in forward.active], num_parts)
        return forward

    def backward(self, forward: Forward | CapturedForward) -> Update | None:
        """Let the weighting make an update of the losses; afterwards `.grad` is complete. None for a step to skip."""
        weighting, step = self.parts.weighting, self.progress.step + 1
        is_due = self.timetable.gradients_are_due if isinstance(weighting, LossWeighting) else self.timetable.log_is_due
        settings = self.parts.settings
        try:
            return forward.backward(
                weighting,
                self.sharing,
                want_gram=is_due(step),
                vmap=settings.vmap_backward,
                two_pass=settings.two_pass or settings.stream_rows,
            )
        except NonFiniteGradientError as error:
            self.guard.raise_if_bad(self.batch_of_step)  # an earlier step may have been the first bad one
            if self.skips.explains(error):
                return None
            task = forward.active[error.position]
            raise diverged(f"the gradient of task {task}", task, step) from None

    # ------------------------------------------------------------------------------------- evaluation and log

    def validate(self) -> None:
        """Evaluate the validation split, and write best.pt if the model is the best so far."""
        self.evaluating = True
        parts, progress, epoch = self.parts, self.progress, self.progress.epoch + 1
        self.guard.raise_if_bad(self.batch_of_step)
        self.skips.check(progress.step)
        outputs = self._no_outputs("val")
        metrics = self.evaluate("val", outputs=outputs)
        parts.skills.fix_references(metrics)
        if progress.evaluations == 0 and parts.dataset.protocol == "standard":
            asked = [pair for rule in parts.selection_rules if isinstance(rule, Selection) for pair in rule.asked_for()]
            log_stand_ins(parts.skills.find_undefined(metrics, [*self.main_metrics.items(), *asked]))
            log_references(parts.skills, self.main_metrics)
        progress.evaluations += 1
        improved = self.selected.update(progress.evaluations, epoch, progress.step, metrics)
        self.task_bests.update(progress.evaluations, epoch, progress.step, metrics)
        for rule in self.selected.rules:
            if rule.number == progress.evaluations:
                self.outputs["val"].take(rule.tasks, outputs)
        if improved:
            self.checkpoints.save_best(self.selected.weights())
        progress.evaluated_step = progress.step
        self.newest_metrics = metrics
        self.observers.averaged(progress.step, epoch, self.step_means.epoch_losses())
        self.observers.validated(progress.step, epoch, metrics, improved)
        if parts.settings.log_pictures and has_pictures(parts.tasks):
            batch = self.load(parts.loaders["val"].first(parts.settings.log_pictures))
            self.observers.pictured(progress.step, draw(parts.model, batch))
        parts.model.train()
        self.evaluating = False

    def test(self) -> dict[str, dict[str, float]]:
        """Evaluate the test split with the selected model state; if there are several, each for its tasks.

        What the heads put out for both splits is then in `outputs`. That for validation is known from the evaluation
        that was selected, unless the run was stopped since.
        """
        self.evaluating = True
        metrics: dict[str, dict[str, float]] = {}
        outputs = self.outputs
        for names in self.selected.load_in_turn():
            metrics |= self.evaluate("test", names, outputs["test"])
            tasks = {name: self.parts.tasks[name] for name in outputs["val"].missing(names)}
            if tasks:
                loader = self.parts.loaders["val"]
                gather(self.parts.model, tasks, loader, self.parts.device, self.pause_if_asked, outputs["val"])
        return {name: metrics[name] for name in self.parts.tasks}

    def _no_outputs(self, split: str) -> SplitOutputs:
        """Return where outputs for a split are gathered; those for validation are of use for the file alone."""
        used = split == "test" or self.parts.runtime.predictions != "none"
        return SplitOutputs(self.parts.tasks if used else {}, self.parts.loaders[split])

    def evaluate(
        self, split: str, names: Sequence[str] | None = None, outputs: SplitOutputs | None = None
    ) -> dict[str, dict[str, float]]:
        """Return {task: {metric: value}}, pooled over the labeled samples of the split, of some tasks or of all.

        The first evaluation of a task on a split also evaluates its constant prediction. What the heads put out is
        added to `outputs`.
        """
        parts, trivial = self.parts, self.parts.skills.trivial.setdefault(split, {})
        tasks = {name: parts.tasks[name] for name in names or parts.tasks}
        loader, device = parts.loaders[split], parts.device
        if all(name in trivial for name in tasks):
            return evaluate(parts.model, tasks, loader, device, self.pause_if_asked, outputs=outputs)
        constants = ConstantPredictions(tasks)
        metrics = evaluate(parts.model, tasks, loader, device, self.pause_if_asked, constants.add, outputs)
        trivial |= constants.metrics(loader, device, self.pause_if_asked)
        return metrics

    def log_step(self) -> None:
        """Hand the means of the last steps to the observers, if due; only then are they read from the device."""
        step, weighting = self.progress.step, self.parts.weighting
        if not self.timetable.log_is_due(step):
            return
        self.guard.raise_if_bad(self.batch_of_step)
        values = self.step_means.means() | self.skips.check(step)
        values |= {f"lr/{group['name']}": group["lr"] for group in self.parts.optimizer.param_groups}
        values |= {f"lr/{name}": learner.lr for name, learner in weighting.learners().items()}
        if not isinstance(weighting, LossWeighting):
            values["weighting/fallbacks"] = weighting.fallbacks
        self.guard.check_fallbacks(weighting.fallbacks, step)
        self.observers.trained(step, self.progress.epoch + 1, values)
        self.step_means.reset()

    # --------------------------------------------------------------------------------------------- checkpoints

    def save(self) -> None:
        """Write last.pt: the whole state of the training; DivergedError if one of its steps was bad."""
        self.guard.raise_if_bad(self.batch_of_step)
        self.count_seconds()
        self._saved_at = self._counted_at
        self.checkpoints.save_training(self.state)

    def start_clock(self) -> None:
        """Count seconds of the training from now on."""
        self._counted_at = self._saved_at = time.monotonic()

    def count_seconds(self) -> None:
        """Add the time since this was last called to that of the training, or its part if there are several."""
        now = time.monotonic()
        self.progress.seconds += (now - self._counted_at) / self.num_trainings
        self._counted_at = now

    def resume(self) -> bool:
        """Restore the newest readable checkpoint; return False if there is none, and the training starts anew."""
        if not self.checkpoints.restore_training(self.state):
            self.observers.start_anew()
            return False
        if self.progress.evaluations:  # best.pt may be of a later evaluation, or damaged
            self.checkpoints.save_best(self.selected.weights())
        self.progress.resumed += 1
        self.start_clock()
        return True
