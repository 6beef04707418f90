"""The keys of `trainer` that save memory, and which runs may have them."""

from collections.abc import Mapping
from typing import Any

from mtlrun.config.settings import Settings
from mtlrun.weightings import GradientWeighting, LossWeighting, Weighting


def check_memory_keys(settings: Settings, weighting: Weighting, config: Mapping[str, Any]) -> list[str]:
    """Return a problem for each key that does not work, or has no effect, in this run.

    Args:
        settings: the group `trainer`.
        weighting: before `setup`.
        config: the resolved config, for the names in the messages.
    """
    name = f"weighting={config['names']['weighting']}"
    problems = []
    if settings.two_pass and (reason := _why_not_two_pass(weighting)):
        problems.append(f"trainer.two_pass=true: {name} {reason}; use trainer.two_pass=false")
    return problems


def _why_not_two_pass(weighting: Weighting) -> str:
    """Return why the key does not work with a weighting, continuing its name; empty if it does."""
    if isinstance(weighting, GradientWeighting):
        return ""
    if isinstance(weighting, LossWeighting):
        return "makes one backward pass as it is"
    return "combines every entry of the task gradients, and makes no weights for a second pass"
