"""The sweeper that Hydra calls: which runs a sweep consists of."""

import sys
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from mtlrun.config.instantiate import check_arguments
from mtlrun.config.shortening import shorten
from mtlrun.errors import ConfigError

Block = Mapping[str, Any]


class StudySweeper(Sweeper):
    """Blocks of runs, each the product of its values; see conf/hydra/sweeper/mtlrun.yaml for the arguments.

    Unlike Hydra's basic sweeper it hands all runs to the launcher at once, which composes each of them once.
    """

    # Hydra takes plugins from this package only, or those that are registered under a name of it.
    __module__ = "hydra_plugins.mtlrun"

    def __init__(
        self,
        params: Block | None = None,
        runs: Sequence[Block] | None = None,
        exclude: Sequence[Block] | None = None,  # which the launcher sees to, since it knows each run's whole config
    ) -> None:
        given = {"params": plain(params), "runs": plain(runs), "exclude": plain(exclude)}
        if problems := check_arguments(StudySweeper, given, "hydra.sweeper"):
            raise ConfigError(problems)
        self._params, self._blocks = given["params"] or {}, given["runs"] or [{}]
        self._launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher."""
        self._parser = OverridesParser.create(config_loader=hydra_context.config_loader)
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Sequence[JobReturn]:
        """Launch the runs that the study and the command line ask for."""
        assert self._launcher is not None
        runs = self.list_runs(arguments)
        if len(runs) == 1:
            print("mtlrun: -m: no key has several values, such as seed=0,1,2, so this is one run", file=sys.stderr)
        return self._launcher.launch(runs, initial_job_idx=0)

    def list_runs(self, arguments: Sequence[str]) -> list[list[str]]:
        """Return the overrides of each run, without those that are there twice.

        Args:
            arguments: the overrides of the command line, which replace those of the study that have the same key.

        Raises:
            ConfigError: a block of the study cannot be read, or an override has no values that could be listed.
        """
        found: dict[tuple[str, ...], None] = {}
        typed = self._parser.parse_overrides(list(arguments))
        for block in self._blocks:
            values: dict[str, list[str]] = {}
            for override in [*parse_block(self._parser, {**self._params, **block}), *typed]:
                key = override.get_key_element()
                if not override.is_sweep_override():
                    values[key] = [f"{key}={override.get_value_element_as_str()}"]
                    continue
                if not override.is_discrete_sweep():
                    raise ConfigError(f"{override.input_line}: an interval has no values to list; write a,b or range()")
                values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
            found |= dict.fromkeys(product(*values.values()))
        return [list(overrides) for overrides in found]


def parse_block(parser: OverridesParser, block: Block) -> list[Override]:
    """Return the overrides that the values of a study stand for.

    Raises:
        ConfigError: a value is none that could be on the command line.
    """
    overrides, problems = [], []
    for key, value in block.items():
        try:
            overrides.append(parser.parse_override(f"{key}={as_text(value)}"))
        except HydraException:
            problems.append(f"hydra.sweeper: {key}: {shorten(value)} is not understood; write values as on the command "
                            'line, such as "0,1,2" or "range(3)"')  # fmt: skip
    if problems:
        raise ConfigError(problems)
    return overrides


def plain(value: Any) -> Any:
    """Return a value of a config as plain containers."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def as_text(value: Any) -> str:
    """Return a value of a YAML as on the command line; a list there is a list of values to sweep over."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(as_text, value)) if isinstance(value, list) else str(value)
