"""The sweeper that Hydra calls for a search."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from mtlrun.config.instantiate import check_arguments
from mtlrun.errors import ConfigError
from mtlrun.sweeps.search.rules import Rules
from mtlrun.sweeps.sweeper import Block, parse_block, plain

_OLDEST = (4, 9)  # version of Optuna
_HOW_TO_INSTALL = "pip install 'mtlrun[search]'"


class SearchSweeper(Sweeper):
    """A search by Optuna; see conf/hydra/sweeper/search.yaml for the arguments."""

    # Hydra takes plugins from this package only, or those that are registered under a name of it.
    __module__ = "hydra_plugins.mtlrun"

    def __init__(
        self,
        trials: int = 20,
        objectives: Sequence[str] = ("mean_skill",),
        pruner: str | None = "median",
        warmup: int = 1,
        startup: int = 10,
        seed: int = 0,
        params: Block | None = None,
    ) -> None:
        _check_optuna()
        self._rules = Rules(trials, startup, pruner, warmup, seed)
        self._objectives, self._params = plain(objectives), plain(params) or {}
        if problems := check_arguments(SearchSweeper, {"params": self._params}, "hydra.sweeper"):
            raise ConfigError(problems)
        if not isinstance(self._objectives, list) or not all(isinstance(name, str) for name in self._objectives):
            raise ConfigError(
                f"hydra.sweeper.objectives={self._objectives!r}: must be a list such as [mean_skill] or "
                "[<task>/<metric>,<task>/<metric>]"
            )

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher."""
        self._parser = OverridesParser.create(config_loader=hydra_context.config_loader)
        self._launcher: Any = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Sequence[JobReturn]:
        """Search in the space that the study and the command line describe.

        Raises:
            ConfigError: before anything was started.
            SweepError, RunInterruptedError: as in `SweepLauncher.train`.
        """
        from mtlrun.sweeps.launcher import PlanLauncher, SweepLauncher
        from mtlrun.sweeps.search.searching import plan_search, search
        from mtlrun.sweeps.search.space import make_space

        if not isinstance(self._launcher, SweepLauncher):
            raise ConfigError("hydra/launcher: a search needs hydra/launcher=mtlrun, which runs are added to")
        space = make_space(parse_block(self._parser, self._params) + self._parser.parse_overrides(arguments))
        points = space.num_points()
        if points is not None and self._rules.trials > points:
            raise ConfigError(
                f"hydra.sweeper.trials={self._rules.trials}: the space has {points} runs only; train all by mtlrun -m, "
                f"or choose at most {points} trials"
            )
        do = plan_search if isinstance(self._launcher, PlanLauncher) else search
        do(self._launcher, space, self._objectives, self._rules)
        return []


def _check_optuna() -> None:
    """Raise ConfigError unless a version of Optuna is installed that will do; to import it takes half a second."""
    try:
        found = version("optuna")
    except PackageNotFoundError:
        raise ConfigError(f"a search needs Optuna, which is not installed: {_HOW_TO_INSTALL}") from None
    if tuple(int(part) for part in found.split(".")[:2]) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise ConfigError(f"a search needs Optuna {oldest} or later, found {found}: {_HOW_TO_INSTALL}")
