"""Several observers as one: each is notified of everything, and none of them can end the training."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mtlrun.errors import RunInterruptedError, StorageError
from mtlrun.records.notes import NOTED
from mtlrun.records.record import Record
from mtlrun.training.captions import Picture
from mtlrun.training.observers.base import Metrics, Observer

logger = logging.getLogger(__name__)


@dataclass
class _Watched:
    """An observer, and how it is doing.

    Args:
        observer: what is notified.
        works: False once it is switched off.
        state: the last one that it gave.
        saved_step: when it gave that.
        gaps: of earlier processes: the steps, from after the first to the second, that it missed.
    """

    observer: Observer
    works: bool = True
    state: dict[str, Any] = field(default_factory=dict)
    saved_step: int = 0
    gaps: list[list[int]] = field(default_factory=list)


class Observers:
    """Several observers, notified one after the other.

    Whoever looks at a run must not end it: an observer that raises an exception is switched off with a warning, which
    is also a note of the record. A run that is continued tries it again, from the last state that it gave. Only
    exceptions of a `required` observer are raised, and those by which a user or a signal stops the program.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._all = [_Watched(observer) for observer in observers]
        self._step = 0  # the last one that was notified of

    def started(self, record: Record, step: int) -> None:
        self._step = step
        for watched in self._all:
            watched.saved_step = step
            for after, until in watched.gaps:
                what = f"{watched.observer} has nothing from after step {after} to step {until}, since it had failed"
                logger.warning("%s", what, extra=NOTED)
        self._notify("started", record, step)

    def trained(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        self._step = step
        self._notify("trained", step, epoch, values)

    def averaged(self, step: int, epoch: int, losses: Mapping[str, float]) -> None:
        self._notify("averaged", step, epoch, losses)

    def validated(self, step: int, epoch: int, metrics: Metrics, selected: bool) -> None:
        self._step = step
        self._notify("validated", step, epoch, metrics, selected)

    def pictured(self, step: int, pictures: Mapping[str, Picture]) -> None:
        self._notify("pictured", step, pictures)

    def tested(self, step: int, metrics: Metrics) -> None:
        self._notify("tested", step, metrics)

    def closed(self) -> None:
        """Close each one, whatever happens to the others; the first error of a required one is raised afterwards."""
        first: Exception | None = None
        for watched in self._all:
            try:
                self._call(watched, "closed")
            except Exception as error:
                first = first or error
        if first is not None:
            raise first

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Close all; an error of the block is not hidden by one that closing raises."""
        try:
            self.closed()
        except Exception as second:
            if error is None:
                raise
            logger.warning("%s", second)

    def start_anew(self) -> None:
        self.load_state_dict([{} for _ in self._all])

    def state_dict(self) -> list[dict[str, Any]]:
        """Return the state of each; of one that is switched off the last one that it gave, and what it misses."""
        states = []
        for watched in self._all:
            state = self._call(watched, "state_dict")
            gaps = watched.gaps
            if watched.works:
                watched.state, watched.saved_step = state, self._step
            else:
                gaps = [*gaps, [watched.saved_step, self._step]]
            states.append({**watched.state, "gaps": gaps} if gaps else watched.state)
        return states

    def load_state_dict(self, states: Sequence[Mapping[str, Any]]) -> None:
        numbers = [number for state in states for value in state.values() for number in _flatten(value)]
        if not all(type(number) is int and number >= 0 for number in numbers) or len(states) != len(self._all):
            raise ValueError(f"observers must have {len(self._all)} states of sizes, found {states}")
        for watched, state in zip(self._all, states, strict=True):
            watched.state = {key: value for key, value in state.items() if key != "gaps"}
            watched.gaps = state.get("gaps", [])
            self._call(watched, "load_state_dict", watched.state)

    def _notify(self, event: str, *arguments: Any) -> None:
        for watched in self._all:
            self._call(watched, event, *arguments)

    def _call(self, watched: _Watched, method: str, *arguments: Any) -> Any:
        """Return what a method of an observer that works returns; if it fails, switch the observer off."""
        if not watched.works:
            return None
        try:
            return getattr(watched.observer, method)(*arguments)
        except (KeyboardInterrupt, RunInterruptedError):
            raise
        except BaseException as error:  # that is, SystemExit as well, which Rich raises for a closed pipe
            if watched.observer.required:
                raise
            watched.works = False
            self._warn(watched.observer, error)
            try:
                watched.observer.closed()
            except (KeyboardInterrupt, RunInterruptedError):
                raise
            except BaseException:
                logger.debug("%s cannot be closed", watched.observer, exc_info=True)
            return None

    def _warn(self, observer: Observer, error: BaseException) -> None:
        if isinstance(error, StorageError):
            what = str(error)
        else:
            what = f"{observer} has failed ({type(error).__name__}: {error})"
            logger.debug("%s", what, exc_info=True)  # to run.log only: a class of the user's may have to be mended
        logger.warning("%s; the run goes on without it", what, extra=NOTED)


def _flatten(value: Any) -> list[Any]:
    return [number for item in value for number in _flatten(item)] if isinstance(value, list) else [value]
