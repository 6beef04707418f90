"""The rules of a search: how its trials are chosen, and which are ended early."""

from dataclasses import dataclass

from mtlrun.errors import ConfigError

PRUNERS = (None, "median")
_LEAST = {"trials": 1, "startup": 1, "warmup": 0, "seed": 0}


@dataclass(frozen=True)
class Rules:
    """How trials are chosen and ended early; they may change while a search goes on.

    Args:
        trials: number of them.
        startup: trials that are drawn at random before any is chosen by the results of others; runs are pruned once
            half as many are completed.
        pruner: `median`: end a run whose best value so far is worse than the median of the others after as many
            evaluations; None: let all runs end.
        warmup: evaluations before which no run is pruned.
        seed: of what is random in the choice of trials.

    Raises:
        ConfigError: a value is not allowed.
    """

    trials: int
    startup: int
    pruner: str | None
    warmup: int
    seed: int

    def __post_init__(self) -> None:
        problems = []
        for key, least in _LEAST.items():
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                problems.append(f"hydra.sweeper.{key}={value}: must be a whole number of at least {least}")
        if self.pruner not in PRUNERS:
            problems.append(f"hydra.sweeper.pruner={self.pruner}: must be median or null")
        if problems:
            raise ConfigError(problems)
