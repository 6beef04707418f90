"""Runs of several seeds from one composed config."""

import copy
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

#: The key that asks for several seeds.
SEVERAL = "trainer.vectorized_seeds"


def several_seeds(cfg: DictConfig) -> int | None:
    """Return how many seeds a composed config asks for; None for one, and for what is refused later."""
    number, first = (OmegaConf.select(cfg, key, default=None) for key in (SEVERAL, "seed"))
    return number if type(number) is int and type(first) is int and number > 1 else None


def by_seed(
    cfg: DictConfig, overrides: Sequence[str], *, seed_is_given: bool = False
) -> list[tuple[DictConfig, list[str]]]:
    """Return the composed config of each seed that `trainer.vectorized_seeds` asks for, and the words for it alone.

    Args:
        cfg: composed, not resolved, so that whatever refers to the seed follows it.
        overrides: of the command line.
        seed_is_given: return that of its seed only, since the others have configs of their own.
    """
    number = several_seeds(cfg)
    if number is None:
        return [(cfg, list(overrides))]
    words = [word for word in overrides if word.lstrip("+").partition("=")[0] not in (SEVERAL, "seed")]
    runs = []
    for seed in range(cfg.seed, cfg.seed + (1 if seed_is_given else number)):
        one = copy.deepcopy(cfg)
        OmegaConf.update(one, "seed", seed)
        OmegaConf.update(one, SEVERAL, None)
        runs.append((one, [*words, f"seed={seed}"]))
    return runs


def explain_several_seeds(number: int) -> str:
    """Return why a config that asks for several seeds cannot be that of one run."""
    return (
        f"{SEVERAL}={number} makes {number} runs, which is for mtlrun with and without -m, and not for a search, a "
        f"cluster or Python; there, leave it out"
    )
