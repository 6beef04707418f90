"""The command line: a word without '=' is a subcommand; all other arguments go to Hydra unchanged.

Neither torch nor a module that imports it is imported here, so that `--help` answers at once.
"""

import contextlib
import errno
import gc
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from mtlrun import __version__
from mtlrun.cli import streams
from mtlrun.config.aliases import canonical
from mtlrun.config.shortening import shorten_text, shorten_words
from mtlrun.config.suggest import suggest
from mtlrun.errors import ConfigError, MtlrunError, RunInterruptedError, StorageError
from mtlrun.records.printable import printable

_STARTED = time.monotonic()

# Subcommand -> module with main(arguments) -> exit code.
COMMANDS = {
    "list": "mtlrun.cli.list",
    "compare": "mtlrun.cli.compare",
    "report": "mtlrun.cli.report",
    "affinity": "mtlrun.cli.affinity",
    "predict": "mtlrun.cli.predict",
    "evaluate": "mtlrun.cli.evaluate",
    "ensemble": "mtlrun.cli.ensemble",
    "merge": "mtlrun.cli.merge",
    "export": "mtlrun.cli.export",
    "tensorboard": "mtlrun.cli.tensorboard",
    "status": "mtlrun.cli.status",
    "extend": "mtlrun.cli.extend",
    "plan": "mtlrun.cli.plan",
    "search": "mtlrun.cli.search",
}


def main() -> None:
    """Run the command line and exit with its code."""
    gc.disable()  # until PyTorch is imported: its modules stay, and each collection would look through all of them
    streams.install()
    sys.exit(streams.finish(dispatch(sys.argv[1:])))


def dispatch(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; an error in the user's input is one message, not a traceback."""
    try:
        if "--version" in arguments:
            print(f"mtlrun {__version__}")
            return 0
        command = arguments[0] if arguments else ""
        if command in COMMANDS:
            return int(import_module(COMMANDS[command]).main(arguments[1:]))
        return train(arguments)
    except KeyboardInterrupt:
        return 130
    except SystemExit as error:  # from Hydra's argument parser, or the end of a sweep
        return error.code if isinstance(error.code, int) else 1
    except MtlrunError as error:
        print_error(error)
        return error.exit_code
    except OSError as error:
        return _refuse_name(error)


def _refuse_name(error: OSError) -> int:
    """Say that a name is longer than that of a file can be, and return the exit code; any other error is raised."""
    if error.errno != errno.ENAMETOOLONG:
        raise error
    refused = ConfigError(f"{shorten_text(str(error.filename))}: this name is longer than that of a file can be")
    print_error(refused)
    return refused.exit_code


def complain(text: str) -> None:
    """Print a text to standard error, without what a terminal would obey."""
    print(printable(text), file=sys.stderr)


def print_error(error: MtlrunError, *, rerun: bool = False) -> None:
    """Print an error's message to standard error, and how to go on; `runtime.rerun=true` would start anew."""
    again = "the same command without runtime.rerun=true" if rerun else "the same command"
    way_on = f"; {error.way_on}" if isinstance(error, ConfigError) and error.way_on else ""
    if isinstance(error, RunInterruptedError):
        complain(f"mtlrun: {error}; {again} goes on from here")
    elif isinstance(error, StorageError):
        complain(f"mtlrun: {error}; once it can be, {again} goes on")
    elif isinstance(error, ConfigError) and len(error.problems) > 1:
        complain(f"mtlrun: {len(error.problems)} problems; nothing was started" + way_on)
        for problem in error.problems:
            complain(f"  - {shorten_words(problem)}")
    else:
        complain(f"mtlrun: {shorten_words(str(error))}" + way_on)


def train(arguments: Sequence[str]) -> int:
    """Let Hydra compose one run, or the runs of a sweep, and train them; return the exit code."""
    import hydra
    from hydra._internal.utils import get_args_parser
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

    from mtlrun.config.arguments import sort_arguments, sweeps
    from mtlrun.config.compose import check_sweep, compose_single_run, make_importable, register_with_hydra, resolve
    from mtlrun.config.seeds import by_seed
    from mtlrun.config.words import choose_foreign, find_problem_of_folder, join_problems, mend_words
    from mtlrun.runs.signals import exiting_at_once

    arguments, misspelled = mend_words(arguments, get_args_parser())
    if not misspelled and arguments:
        check_command(arguments[0])
    arguments, notes = canonical(arguments)
    for note in notes:
        complain(note)
    arguments = sort_arguments(get_args_parser(), arguments)
    parsed = get_args_parser().parse_args(arguments)
    of_folder = None if parsed.config_dir is None else find_problem_of_folder(parsed.config_dir)
    config_dir = None if of_folder else parsed.config_dir
    make_importable(config_dir)
    register_with_hydra()
    if misspelled or of_folder:
        unknown = not parsed.overrides or (of_folder and choose_foreign(parsed.overrides))
        more = [] if unknown else _all_problems(None, parsed.overrides, config_dir, sweeping=parsed.multirun)
        raise ConfigError([*([of_folder] if of_folder else []), *join_problems(misspelled, more)])
    exit_codes: list[int] = []

    def task(cfg: DictConfig) -> None:
        hydra_config = HydraConfig.get()
        overrides = list(hydra_config.overrides.task)
        sweeping = hydra_config.mode == RunMode.MULTIRUN
        if sweeping:
            if hydra_config.job.num == 0 and not sweeps(parsed.overrides, hydra_config.sweeper):
                complain("mtlrun: -m: no key has several values, such as seed=0,1,2, so this is one run")
            print(printable(f"run {hydra_config.job.num + 1}: {' '.join(overrides)}"), flush=True)
        try:
            # Only the first run's time includes the start of the program.
            started = time.monotonic() if exit_codes else _STARTED
            runs = by_seed(cfg, overrides)
            configs = [resolve(of_seed, hydra_config.runtime.choices, words) for of_seed, words in runs]
            config = configs[0]
            if len(runs) == 1:
                exit_codes.append(train_one(config, overrides, started))
            else:
                exit_codes.append(train_seeds(configs, [words for _, words in runs], started))
        except RunInterruptedError as error:
            print_error(error, rerun=config["runtime"]["rerun"])
            sys.exit(error.exit_code)  # also ends a sweep
        except StorageError as error:
            print_error(error, rerun=config["runtime"]["rerun"])
            exit_codes.append(error.exit_code)
        except MtlrunError as error:
            # Not raised: Hydra would print a line before the message, and an invalid run must not end a sweep.
            print_error(error)
            exit_codes.append(error.exit_code)
        except OSError as error:
            try:
                exit_codes.append(_refuse_name(error))
            except OSError:
                complain(traceback.format_exc().rstrip())
                exit_codes.append(1)
        except Exception:  # a bug, here or in a user's class, or a fault of the machine: the traceback shows where
            complain(traceback.format_exc().rstrip())
            exit_codes.append(1)

    with exiting_at_once(), _hydra_environment(arguments):
        try:
            if parsed.help:
                from mtlrun.cli.help import help_text

                text = help_text(parsed.overrides, parsed.config_dir, resolve=parsed.resolve)
                if text is not None:
                    print(printable(text))
                    return 0
            if parsed.cfg == "job" and parsed.package is None and not parsed.multirun:
                from mtlrun.cli.help import completed_config

                text = completed_config(parsed.overrides, parsed.config_dir, resolve=parsed.resolve)
                if text is not None:
                    print(printable(text), end="")
                    return 0
            others = {key: value for key, value in vars(parsed).items() if key not in ("overrides", "config_dir")}
            cfg = None if any(others.values()) else compose_single_run(parsed.overrides, parsed.config_dir)
            if cfg is not None:
                task(cfg)
            else:
                from mtlrun.sweeps.plugins import register

                register()
                check_sweep(parsed.overrides, parsed.config_dir)
                streams.begin_run()
                hydra.main(version_base="1.3", config_path="pkg://mtlrun.conf", config_name="config")(task)()
        except (HydraException, OmegaConfBaseException, ValueError) as error:  # ValueError: Hydra's, of group=null
            sweeping = parsed.multirun or parsed.experimental_rerun is not None
            raise ConfigError(_all_problems(error, parsed.overrides, parsed.config_dir, sweeping=sweeping)) from error
    return max(exit_codes, default=0)


def train_several(arguments: Sequence[str], *words: str) -> int:
    """Train as with `-m`, whether it is among the arguments or not, and with further words; return the exit code."""
    multirun = [] if {"-m", "--multirun"} & set(arguments) else ["-m"]
    return train([*multirun, *arguments, *words])


def check_command(word: str) -> None:
    """Raise ConfigError if the first word of a command line is neither a command, an option nor an override."""
    from mtlrun.config.words import explain_bare_word

    if "=" in word or word.startswith(("-", "~")):
        return
    allowed = suggest(word, COMMANDS, "commands")
    unknown = f"{word}: no such command; {allowed}; to train, write key=value (see: mtlrun --help)"
    raise ConfigError(explain_bare_word(word) or unknown)


def _all_problems(
    error: Exception | None, overrides: Sequence[str], config_dir: str | None, *, sweeping: bool
) -> list[str]:
    """Return the problems of a command line that could not be composed, including those of its valid overrides.

    That of `error` is among them if nothing else explains it.
    """
    from functools import partial

    from mtlrun.config.compose import compose, compose_with_hydra
    from mtlrun.config.diagnosis import diagnose, first_line

    found = diagnose(overrides, partial(compose_with_hydra, config_dir=config_dir), sweeping=sweeping)
    problems = list(found.problems)
    if found.swept and not sweeping:  # what is meant by several values is not known
        return problems
    if found.swept:  # the values of a sweep cannot all be set at once
        from mtlrun.setup.sweep import by_key, find_wrong_values

        problems += found.independent(find_wrong_values(by_key(found.sound), config_dir))
    else:
        from mtlrun.setup.prepare import prepare

        try:
            prepare(compose(found.sound, config_dir))
        except ConfigError as more:
            problems += found.independent(more.problems)
        except MtlrunError as more:
            problems += found.independent([str(more)])
    if problems or error is None:
        return problems
    return error.__cause__.problems if isinstance(error.__cause__, ConfigError) else [first_line(error)]


def collect_garbage() -> None:
    """Let Python collect garbage from now on, where it has been kept from it until the modules were imported."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def train_one(config: dict[str, Any], overrides: list[str], started: float) -> int:
    """Train one run, or show its result if it is finished; return the exit code."""
    from mtlrun.cli.show import show
    from mtlrun.records.record import finished_record

    streams.begin_run()
    record = finished_record(config)
    again = record is not None
    if record is None or record.lacks_baselines(config):
        from mtlrun.runs.run import run  # imports torch, which is not needed to show a finished run

        collect_garbage()
        record = run(config, overrides=overrides, started=started)
    show(record, config, again=again)
    return 3 if record.status == "diverged" else 0


def train_seeds(configs: Sequence[dict[str, Any]], overrides: Sequence[Sequence[str]], started: float) -> int:
    """Train runs that differ in their seed in one process, show the result of each, and return the exit code."""
    from mtlrun.cli.show import show
    from mtlrun.records.record import finished_record
    from mtlrun.runs.together import run_together

    streams.begin_run()
    again = [finished_record(config) is not None for config in configs]
    collect_garbage()
    codes = []
    for member, was_finished in zip(run_together(configs, overrides, started=started), again, strict=True):
        if isinstance(member.error, RunInterruptedError):
            raise member.error
        if member.record is None:
            assert member.error is not None
            codes.append(member.error.exit_code if isinstance(member.error, MtlrunError) else 1)
            continue
        show(
            member.record, {**member.config, "runtime": {**member.config["runtime"], "quiet": True}}, again=was_finished
        )
        codes.append(3 if member.record.status == "diverged" else 0)
    return max(codes)


@contextlib.contextmanager
def _hydra_environment(arguments: Sequence[str]) -> Any:
    """Give Hydra its arguments and a temporary folder for its files, and let it raise its errors."""
    saved_argv, saved_environment = sys.argv, dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="mtlrun-") as scratch:
        sys.argv = ["mtlrun", *arguments]
        os.environ |= {"HYDRA_FULL_ERROR": "1", "MTLRUN_SCRATCH": scratch}
        try:
            yield
        finally:
            sys.argv = saved_argv
            os.environ.clear()
            os.environ.update(saved_environment)
