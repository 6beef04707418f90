"""Runs of several seeds from one composed config."""

import copy
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

#: The key that asks for several seeds.
SEVERAL = "trainer.vectorized_seeds"


def by_seed(cfg: DictConfig, overrides: Sequence[str]) -> list[tuple[DictConfig, list[str]]]:
    """Return the composed config of each seed that `trainer.vectorized_seeds` asks for, and the words for it alone.

    The config itself if the key is null, or has a value that is refused later.

    Args:
        cfg: composed, not resolved, so that whatever refers to the seed follows it.
        overrides: of the command line.
    """
    number, first = (OmegaConf.select(cfg, key, default=None) for key in (SEVERAL, "seed"))
    if type(number) is not int or type(first) is not int or number < 2:
        return [(cfg, list(overrides))]
    words = [word for word in overrides if word.lstrip("+").partition("=")[0] not in (SEVERAL, "seed")]
    runs = []
    for seed in range(first, first + number):
        one = copy.deepcopy(cfg)
        OmegaConf.update(one, "seed", seed)
        OmegaConf.update(one, SEVERAL, None)
        runs.append((one, [*words, f"seed={seed}"]))
    return runs


def explain_several_seeds(number: int) -> str:
    """Return why a config that asks for several seeds cannot be that of one run."""
    return (
        f"{SEVERAL}={number} makes {number} runs, which is for a single command without -m, and not for one run of a "
        f"sweep, a search or Python; there, leave it out and give seed=range({number}), or a run for each seed"
    )
