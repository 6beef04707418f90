"""Shortcuts through Hydra, whose compositions would be a third of the tests' time; each gives what Hydra gives.

They hold where no folder of the user's own is searched, and in the process of the tests alone: the processes that tests
start take the long way.
"""

import copy

from hydra._internal import defaults_list
from hydra._internal.config_repository import ConfigRepository
from omegaconf import OmegaConf

load_config = ConfigRepository.load_config
create_interpolation_map = defaults_list._create_interpolation_map
_loaded = {}


def take(patch):
    """Let Hydra take the shortcuts until the `MonkeyPatch` is undone."""
    patch.setattr(ConfigRepository, "load_config", load_once)
    patch.setattr(defaults_list, "_create_interpolation_map", create_map_where_it_is_used)


def leave(patch):
    """Let Hydra go its own way until the `MonkeyPatch` is undone."""
    patch.setattr(ConfigRepository, "load_config", load_config)
    patch.setattr(defaults_list, "_create_interpolation_map", create_interpolation_map)


def load_once(self, config_path):
    """Read each shipped file once."""
    sources = self.get_sources()
    if any(source.scheme() == "file" for source in sources):
        return load_config(self, config_path)
    key = (config_path, *((source.provider, source.path) for source in sources))
    if key not in _loaded:
        _loaded[key] = load_config(self, config_path)
    return copy.deepcopy(_loaded[key])


def create_map_where_it_is_used(overrides, defaults, self_added):
    """Make the choices into a config only for defaults lists that refer to a choice, as in `group: ${other}`."""
    used = any("${" in repr(default) for default in defaults)
    return create_interpolation_map(overrides, defaults, self_added) if used else OmegaConf.create()
