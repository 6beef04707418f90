"""run_together(): several seeds of one config, each a run with a folder and a record of its own, in one process."""

import logging
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import Any

from rich.console import Console

from mtlrun.errors import MtlrunError, RunInterruptedError
from mtlrun.records.display import make_console, print_line
from mtlrun.records.identity import run_folder
from mtlrun.records.record import Record, finished_record
from mtlrun.runs.run import PendingStep, run_by_steps
from mtlrun.runs.signals import stop_signals
from mtlrun.setup.prepare import prepare
from mtlrun.setup.together import check_together
from mtlrun.training.together.joint_steps import JointSteps

logger = logging.getLogger("mtlrun")


class Member:
    """One of the runs that are trained together.

    Args:
        config: of the run.
        overrides: what the user would type to get this run alone.
        running: the run, step by step.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        overrides: Sequence[str],
        running: Generator[PendingStep, None, Record],
    ) -> None:
        self.config, self.overrides = config, overrides
        #: The step that is to be made next; None before the first and after the last.
        self.pending: PendingStep | None = None
        #: Its record, or the error that ended it early.
        self.record: Record | None = None
        self.error: Exception | None = None
        self._running = running
        self._handlers = list(logger.handlers)

    def advance(self, error: BaseException | None = None) -> None:
        """Go on to the next step, or end the run by the error of the last one."""
        self.pending = None
        with self.turn():
            try:
                self.pending = next(self._running) if error is None else self._running.throw(error)
            except StopIteration as end:
                self.record = end.value
            except Exception as raised:
                self.error = raised

    def abandon(self, error: BaseException) -> None:
        """End the run by an error that is not its own, or a signal that ends all at once."""
        self.pending = None
        with self.turn(), suppress(BaseException):
            self._running.throw(error)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Within the block, log lines go to where this run sends them, and to nobody else's log."""
        others, logger.handlers = logger.handlers, self._handlers
        try:
            yield
        finally:
            logger.handlers = others


def run_together(
    configs: Sequence[Mapping[str, Any]],
    overrides: Sequence[Sequence[str]],
    *,
    console: Console | None = None,
    started: float | None = None,
) -> list[Member]:
    """Train or continue the runs of these configs, a step of each in turn or of all at once; return them, ended.

    Runs that are behind catch up first. One that ends early, by an error of its own, does not end the others.

    Args:
        configs: that differ in their seed only, of 2 runs or more.
        overrides: of each run; see `mtlrun.runs.run.run`.
        console: for what the first run prints, and a line when another one ends; standard output if left out.
        started: `time.monotonic()` when the program started.

    Raises:
        ConfigError, DataError: before anything is on disk.
    """
    console = console or make_console()
    if any(finished_record(config) is None for config in configs):
        check_together(prepare(configs[0]), len(configs))
    with ExitStack() as stack, open(os.devnull, "w") as nowhere:
        signals = _once(stack)
        consoles = [console, *(Console(file=nowhere) for _ in configs[1:])]
        members = [
            Member(config, words, run_by_steps(config, overrides=words, console=out, started=started, signals=signals))
            for config, words, out in zip(configs, overrides, consoles, strict=True)
        ]
        try:
            for member in members:
                _advance(member, console)
            _train(members, console)
        except BaseException as error:  # a second signal, or a fault that is nobody's own
            for member in members:
                if member.pending is not None:
                    member.abandon(error)
            raise
    return members


def _once(stack: ExitStack) -> Callable[[], nullcontext[Callable[[], int | None]]]:
    """Return what makes a context for each run in which signals are recorded: from the first one on until `stack` ends.

    Before there is a run, a signal ends the program at once.
    """
    entered: list[Callable[[], int | None]] = []

    def enter() -> nullcontext[Callable[[], int | None]]:
        if not entered:
            entered.append(stack.enter_context(stop_signals()))
        return nullcontext(entered[0])

    return enter


def _train(members: Sequence[Member], console: Console) -> None:
    """Make all steps that are left."""
    live = _pending(members)
    turns = {id(pending.trainer): member.turn for member, pending in live}
    steps = JointSteps(lambda trainer: turns[id(trainer)]())
    seeds = [member.config["seed"] for member, _ in live]
    for _, pending in live:
        pending.trainer.seeds_together = seeds
        pending.trainer.start_clock()  # the others were prepared since
    while live:
        for _, pending in live:
            pending.trainer.count_seconds()
            pending.trainer.num_trainings = len(live)
        first = min(pending.trainer.progress.step for _, pending in live)
        turn = [(member, pending) for member, pending in live if pending.trainer.progress.step == first]
        is_chosen = bool(steps.reason)
        errors = steps.make([pending.trainer for _, pending in turn], [pending.batch for _, pending in turn])
        if steps.reason and not is_chosen:
            for member, _ in live:
                with member.turn():
                    logger.info("seeds %s in one process: %s", _listed(seeds), steps.reason)
        for (member, _), error in zip(turn, errors, strict=True):
            _advance(member, console, error)
        live = _pending(members)
    steps.release()


def _advance(member: Member, console: Console, error: Exception | None = None) -> None:
    """Let a run go on, or end by an error; say so if it ends early, but for a signal, which ends all."""
    member.advance(error)
    if member.error is not None and not isinstance(member.error, RunInterruptedError):
        kind = "" if isinstance(member.error, MtlrunError) else f"{type(member.error).__name__}: "
        print_line(console, f"{run_folder(member.config)}: {kind}{member.error}")


def _pending(members: Sequence[Member]) -> list[tuple[Member, PendingStep]]:
    """Return the runs that have a step to make, each with its step."""
    return [(member, member.pending) for member in members if member.pending is not None]


def _listed(seeds: Sequence[int]) -> str:
    """Return seeds in words, such as `0 to 7`."""
    in_order = list(range(seeds[0], seeds[0] + len(seeds))) == list(seeds)
    return f"{seeds[0]} to {seeds[-1]}" if in_order and len(seeds) > 1 else ", ".join(map(str, seeds))
