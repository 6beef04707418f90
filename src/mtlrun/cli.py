"""The command line: a word without '=' is a subcommand; everything else goes to Hydra untouched.

Imports neither torch nor anything that does: `--help` answers at once.
"""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from mtlrun import __version__
from mtlrun.errors import ConfigError, MtlrunError, RunInterruptedError
from mtlrun.suggest import suggest

_STARTED = time.time()

# Subcommand -> module with main(arguments) -> exit code.
COMMANDS = {"list": "mtlrun.commands.list"}


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(dispatch(sys.argv[1:]))


def dispatch(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; errors meant for the user end as one message, not as a traceback."""
    try:
        if "--version" in arguments:
            print(f"mtlrun {__version__}")
            return 0
        command = arguments[0] if arguments else ""
        if command in COMMANDS:
            return int(import_module(COMMANDS[command]).main(arguments[1:]))
        if command and "=" not in command and not command.startswith(("-", "~")):
            allowed = suggest(command, COMMANDS, "commands")
            raise ConfigError(f"{command}: no such command; {allowed}; to train, write key=value (see: mtlrun --help)")
        return train(arguments)
    except KeyboardInterrupt:
        return 130
    except MtlrunError as error:
        print_error(error)
        return error.exit_code


def print_error(error: MtlrunError) -> None:
    """Print an error's message to standard error."""
    if isinstance(error, RunInterruptedError):
        print(f"mtlrun: {error}; the same command goes on from here", file=sys.stderr)
    elif isinstance(error, ConfigError) and len(error.problems) > 1:
        print(f"mtlrun: {len(error.problems)} problems; nothing was started", file=sys.stderr)
        for problem in error.problems:
            print(f"  - {problem}", file=sys.stderr)
    else:
        print(f"mtlrun: {error}", file=sys.stderr)


def train(arguments: Sequence[str]) -> int:
    """Let Hydra compose one run, or the runs of a sweep, and train them; return the exit code."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

    from mtlrun.config import make_importable, register_resolvers, resolve
    from mtlrun.diagnosis import diagnose

    config_dir = _config_dir(arguments)
    make_importable(config_dir)
    register_resolvers()
    exit_codes: list[int] = []

    @hydra.main(version_base="1.3", config_path="pkg://mtlrun.conf", config_name="config")
    def task(cfg: DictConfig) -> None:
        hydra_config = HydraConfig.get()
        sweeping = hydra_config.mode == RunMode.MULTIRUN
        try:
            config = resolve(cfg, hydra_config.runtime.choices)
            exit_codes.append(train_one(config, list(hydra_config.overrides.task), announce=sweeping))
        except (MtlrunError, RunInterruptedError) as error:
            if not sweeping or isinstance(error, RunInterruptedError):
                raise
            # One run that cannot work does not end the sweep.
            print(f"run {' '.join(hydra_config.overrides.task)}:", file=sys.stderr)
            print_error(error)
            exit_codes.append(error.exit_code)

    verbose = os.environ.get("HYDRA_FULL_ERROR") == "1"
    with _hydra_environment(arguments):
        try:
            task()
        except (HydraException, OmegaConfBaseException) as error:
            if verbose:
                raise
            overrides = [item for item in arguments if ("=" in item and not item.startswith("-")) or item[:1] == "~"]
            raise ConfigError(diagnose(error, overrides, config_dir)) from error
    return max(exit_codes, default=0)


def train_one(config: dict[str, Any], overrides: list[str], *, announce: bool) -> int:
    """Train one run, or show it if it is finished already; return the exit code."""
    from mtlrun.commands.show import show
    from mtlrun.folder import finished_record

    if announce:
        print(f"run {' '.join(overrides)}", flush=True)
    record = finished_record(config)
    again = record is not None
    if record is None:
        from mtlrun.run import run  # imports torch, which a finished run can be shown without

        record = run(config, overrides=overrides, started=_STARTED)
    show(record, config, again=again)
    return 3 if record.status == "diverged" else 0


def _config_dir(arguments: Sequence[str]) -> str | None:
    """Return the value of --config-dir, the one option of Hydra's that matters here too."""
    for index, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name in ("--config-dir", "-cd"):
            return value or (arguments[index + 1] if index + 1 < len(arguments) else None)
    return None


@contextlib.contextmanager
def _hydra_environment(arguments: Sequence[str]) -> Any:
    """Give Hydra its arguments, a folder for what it insists on writing, and the order to pass on its errors."""
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
