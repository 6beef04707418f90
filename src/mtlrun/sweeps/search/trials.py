"""The trials of a search: asked for one at a time, trained as jobs, and kept in a file that outlives the program."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from mtlrun.errors import MtlrunError
from mtlrun.records.folder import METRICS
from mtlrun.records.identity import config_hash
from mtlrun.records.record import Record
from mtlrun.sweeps.jobs import Job
from mtlrun.sweeps.search.objectives import Objectives
from mtlrun.sweeps.search.rules import Rules
from mtlrun.sweeps.search.space import Space

#: In the search's folder: every operation of Optuna, a line of JSON each.
JOURNAL = "trials.jsonl"
#: Attributes of a trial: the number of the one that it tries again, the ID of its run, why it failed, and whether it
#: was refused.
_AGAIN, _RUN, _REASON, _REFUSED = "again", "run", "reason", "refused"
#: Attributes of the study: its objectives, the fingerprint of the validation split.
_OBJECTIVES, _SAMPLES = "objectives", "samples"


def folder_of(job: Job, space: Space, objectives: Objectives) -> Path:
    """Return the folder of a search, which is another one if anything but its length or its rules is.

    Args:
        job: one of its runs, always the same one.
        space: that is searched.
        objectives: that are compared.
    """
    identity = [space.describe(), objectives.names, config_hash(job.config)]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    return job.folder.parent / f"search-{digest}"


def count_ended(folder: Path) -> int:
    """Return the number of trials in the folder of a search that were completed or stopped early; changes nothing."""
    path = folder / JOURNAL
    if not path.exists():
        return 0
    storage = JournalStorage(JournalFileBackend(str(path), lock_obj=_FolderIsHeld(str(path))))
    study = optuna.load_study(study_name=folder.name, storage=storage)
    return len(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED]))


class Trials:
    """The trials of a search, as jobs for the scheduler.

    A trial whose job did not end, since the program was killed, is asked for again with the same values, and so is one
    that failed, if the launcher would try its run again. In Optuna's terms the earlier trial has then failed, and the
    later one takes its place. What is random depends on the seed and the place of the trial alone, so that a search
    that goes on draws nothing twice.

    Args:
        folder: of the search, which the caller holds the lock of.
        space, objectives, rules: of the search.
        typical: a job that needs as much room as any trial's.
        make_job: returns the job of some overrides, with its state if there is nothing left to train; raises
            MtlrunError if there can be no such run.
    """

    def __init__(
        self,
        folder: Path,
        space: Space,
        objectives: Objectives,
        rules: Rules,
        typical: Job,
        make_job: Callable[[Sequence[str]], Job],
    ) -> None:
        self.typical, self.total = typical, rules.trials
        self._space, self._objectives, self._rules, self._make_job = space, objectives, rules, make_job
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._prunes = rules.pruner is not None and len(objectives.names) == 1
        path = folder / JOURNAL
        _cut_to_whole_lines(path)
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path), lock_obj=_FolderIsHeld(str(path)))),
            study_name=folder.name,
            directions=objectives.directions,
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(max(rules.startup // 2, 1), rules.warmup + 1) if self._prunes else None,
        )
        if _OBJECTIVES not in self._study.user_attrs:
            self._study.set_user_attr(_OBJECTIVES, objectives.names)
        self._jobs: dict[int, Job] = {}  # {number of the trial: its job}
        self._running: dict[int, Trial] = {}  # {number of the job: its trial}
        self._curves: dict[int, tuple[int, int]] = {}  # {number of the job: bytes read, evaluations reported}
        self.finished = self._take_up()
        self.total = max(self.total, self._num_places())

    # ---------------------------------------------------------------------------------------------- earlier trials

    def _take_up(self) -> list[Job]:
        """Go on from the trials of earlier programs: return the jobs that have ended, and queue what did not."""
        finished = []
        replaced, places = self._replaced(), self._places()
        for trial in self._study.get_trials(deepcopy=False):
            left = trial.state == TrialState.RUNNING
            if left and trial.number not in replaced:
                complete = set(trial.params) == set(self._space.distributions)
                self._study.enqueue_trial(trial.params if complete else {}, user_attrs={_AGAIN: trial.number})
            if left:
                self._study.tell(trial.number, state=TrialState.FAIL)
            if left or trial.number in replaced or not trial.state.is_finished():
                continue
            job = self._find_job(trial)
            if job is None:
                continue
            job.number = places[trial.number]
            refused = _REFUSED in trial.user_attrs
            if trial.state == TrialState.FAIL and not refused and (job.state == "waiting" or self._has_values(job)):
                self._study.enqueue_trial(trial.params, user_attrs={_AGAIN: trial.number})
                continue
            self._jobs[trial.number] = job
            job.was_done = True
            if trial.state == TrialState.FAIL:
                job.state = "refused" if refused else "diverged" if job.state == "diverged" else "failed"
                job.error = job.error or trial.user_attrs.get(_REASON)
            else:
                job.state = "pruned" if trial.state == TrialState.PRUNED else "completed"
            finished.append(job)
        return finished

    def _find_job(self, trial: FrozenTrial) -> Job | None:
        """Return the job of an earlier trial, None if its run cannot be composed."""
        with suppress(MtlrunError):
            return self._make_job(self._space.overrides(trial.params))
        return None

    def _has_values(self, job: Job) -> bool:
        """Return True if the run is completed, by another sweep since its trial failed, and all values are finite."""
        record = _read_record(job) if job.state == "completed" else None
        if record is None or not self._is_comparable(record):
            return False
        return not self._objectives.undefined(self._objectives.values(record))

    def _replaced(self) -> set[int]:
        trials = self._study.get_trials(deepcopy=False)
        return {trial.user_attrs[_AGAIN] for trial in trials if _AGAIN in trial.user_attrs}

    def _places(self) -> dict[int, int]:
        """Return {number of a trial: its place among all, from 1}; a trial takes the place of the one it replaces."""
        places: dict[int, int] = {}
        for trial in self._study.get_trials(deepcopy=False):
            again = trial.user_attrs.get(_AGAIN)
            places[trial.number] = max(places.values(), default=0) + 1 if again is None else places[again]
        return places

    def _num_places(self) -> int:
        return max(self._places().values(), default=0)

    # -------------------------------------------------------------------------------------------- for the scheduler

    def next_job(self) -> Job | None:
        """Return the job of a further trial, None if there is none to come."""
        while True:
            waiting = self._study.get_trials(deepcopy=False, states=[TrialState.WAITING])
            place = self._num_places() + 1
            if not waiting and place > self._rules.trials:
                return None
            seed = int(np.random.SeedSequence([self._rules.seed, place]).generate_state(1)[0])
            self._study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=self._rules.startup)
            trial = self._study.ask(dict(self._space.distributions))
            try:
                job = self._make_job(self._space.overrides(trial.params))
            except MtlrunError as error:
                self._fail(trial, str(error))
                continue
            job.number = self._places()[trial.number]
            trial.set_user_attr(_RUN, job.run_id)
            self._jobs[trial.number], self._running[job.number] = job, trial
            return job

    def ended(self, job: Job) -> None:
        """Tell Optuna what has become of a job; one without finite values becomes a failed one."""
        trial = self._running[job.number]
        if job.state == "interrupted":  # the same command asks for it again
            return
        del self._running[job.number]
        record = _read_record(job)
        if job.state == "completed":
            values = [] if record is None else self._objectives.values(record)
            problem = "its record cannot be read" if record is None else self._objectives.undefined(values)
            if record is not None and not self._is_comparable(record):
                problem = "it was validated on other samples than the trials before it"
            if problem:
                job.state, job.error = "failed", f"no value for the search: {problem}"
        if job.state == "completed":
            self._report(job, trial)
            self._study.tell(trial, values)
        elif job.state == "pruned":
            self._report(job, trial)
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            if job.state == "refused":
                trial.set_user_attr(_REFUSED, True)
            self._fail(trial, job.error or job.state)

    def _is_comparable(self, record: Record) -> bool:
        """Return True if a run was validated on the same samples as the first one that was completed."""
        samples = record.splits.get("val", {}).get("fingerprint")
        if samples is None:
            return True
        if _SAMPLES not in self._study.user_attrs:
            self._study.set_user_attr(_SAMPLES, samples)
        return bool(self._study.user_attrs[_SAMPLES] == samples)

    def _fail(self, trial: Trial, reason: str) -> None:
        trial.set_user_attr(_REASON, reason)
        self._study.tell(trial, state=TrialState.FAIL)

    def find_hopeless(self, running: Sequence[Job]) -> list[Job]:
        """Return the running jobs that the pruner gives up, after their newest evaluations were reported."""
        if not self._prunes:
            return []
        found = []
        for job in running:
            trial = self._running[job.number]
            if self._report(job, trial) and trial.should_prune():
                job.error = f"worse than the median of the trials after {self._curves[job.number][1]} evaluations"
                found.append(job)
        return found

    def _report(self, job: Job, trial: Trial) -> bool:
        """Report the evaluations of a job that are new; return True if there were any."""
        if not self._prunes:
            return False
        size, reported = self._curves.get(job.number, (0, 0))
        path = job.folder / METRICS
        now = path.stat().st_size if path.exists() else 0
        trivial = self._constants(job)
        if now == size or trivial is None:
            return False
        values = self._objectives.curve(job.folder, trivial)
        for number, value in enumerate(values[reported:], start=reported + 1):
            if isfinite(value):
                trial.report(value, number)
        self._curves[job.number] = (now, len(values))
        return len(values) > reported

    def _constants(self, job: Job) -> dict[str, Any] | None:
        """Return the metrics of constant predictions on validation, from any completed run; None if there is none.

        They depend on the data alone. While a run runs, its record does not have them yet.
        """
        for other in [job, *self._jobs.values()]:
            if other.state == "completed" and (record := _read_record(other)) is not None:
                return record.trivial.get("val", {})
        return None

    # --------------------------------------------------------------------------------------------------- the result

    def describe_best(self, command_of: Callable[[Job], str]) -> list[str]:
        """Return lines on the best trial, or on those of the Pareto set, with the command of each."""
        completed = self._study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        if not completed:
            return ["no trial was completed"]
        one = len(self._objectives.names) == 1
        best = [self._study.best_trial] if one else self._study.best_trials
        what = "best" if one else f"Pareto set, {len(best)}"
        lines = [f"{what} of {len(completed)} completed trials by {', '.join(self._objectives.names)} on validation:"]
        for trial in best:
            job = self._jobs[trial.number]
            values = ", ".join(f"{value:.6g}" for value in trial.values)
            params = ", ".join(f"{key}={value}" for key, value in trial.params.items())
            lines += [f"{values}  {job.run_id}: {params}", f"    again:  {command_of(job)}"]
        return lines


class _FolderIsHeld(JournalFileOpenLock):
    """No lock: the lock of the search's folder ends with the process, where a file of Optuna's would stay behind."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _cut_to_whole_lines(path: Path) -> None:
    """Remove what a killed process has left of a line; Optuna would append to it and could never read it again."""
    with suppress(FileNotFoundError), open(path, "r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
            os.fsync(file.fileno())


def _read_record(job: Job) -> Record | None:
    with suppress(MtlrunError):
        return Record.read(job.folder)
    return None
