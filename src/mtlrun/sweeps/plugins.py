"""The registration of mtlrun's launchers and sweepers as plugins of Hydra."""

import sys
from importlib import import_module
from types import ModuleType

from hydra.core.plugins import Plugins

from mtlrun.sweeps.launcher import PlanLauncher, SweepLauncher
from mtlrun.sweeps.search.sweeper import SearchSweeper
from mtlrun.sweeps.sweeper import StudySweeper


def register() -> None:
    """Let Hydra know the launchers and the sweepers.

    Hydra finds plugins by a name in the package `hydra_plugins`, which other distributions may have brought or not.
    """
    try:
        package = import_module("hydra_plugins")
    except ModuleNotFoundError:
        package = sys.modules["hydra_plugins"] = ModuleType("hydra_plugins")
        package.__path__ = []
    module = package.mtlrun = ModuleType("hydra_plugins.mtlrun")  # type: ignore[attr-defined]
    for plugin in (SweepLauncher, PlanLauncher, StudySweeper, SearchSweeper):
        setattr(module, plugin.__name__, plugin)
        Plugins.instance().register(plugin)
