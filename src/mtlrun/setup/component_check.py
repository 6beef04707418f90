"""The check of a whole config before anything that it names is called."""

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer

from mtlrun.config.instantiate import check_nested
from mtlrun.config.root import check_root
from mtlrun.config.targets import TARGET, check_targets, named_packages
from mtlrun.datasets import MultiTaskDataset
from mtlrun.errors import ConfigError
from mtlrun.models import MultiTaskModel
from mtlrun.models.backbones import Backbone
from mtlrun.tasks import Task
from mtlrun.training.optim import Schedule
from mtlrun.weightings import Weighting

_EXPECTED = {
    "dataset": MultiTaskDataset,
    "model": MultiTaskModel,
    "match_parameters": MultiTaskModel,
    "backbone": Backbone,
    "weighting": Weighting,
    "optimizer": Optimizer,
    "scheduler": Schedule,
}
# Packages that importing from does nothing.
_TRUSTED = ("mtlrun", "torch")


def check_config(config: Mapping[str, Any]) -> list[str]:
    """Return the problems of a config's root, after a look at all that the config names; nothing is called.

    Modules of the user's are imported last, and only if there are no problems.

    Raises:
        ConfigError: a `_target_` names what may not stand where it does; or the root has problems, and a module of the
            user's would have to be imported to find more.
    """
    problems = check_root(config)
    if of_targets := check_targets(config):
        raise ConfigError(problems + of_targets)
    nodes = [(group, config.get(group), base) for group, base in _EXPECTED.items()]
    tasks = config.get("tasks")
    nodes += [(f"tasks.{task}", node, Task) for task, node in tasks.items()] if isinstance(tasks, Mapping) else []
    present = [(key, node, base) for key, node, base in nodes if isinstance(node, Mapping) and TARGET in node]
    foreign = named_packages(config) - set(_TRUSTED)
    for packages in (_TRUSTED, None) if foreign else (_TRUSTED,):
        found = [line for key, node, base in present for line in check_nested(node, key, base, packages)]
        if found or (problems and foreign):
            raise ConfigError(problems + found)
    return problems
