"""The runs of a sweep, composed: each one's config is fixed here, and nothing that is edited later changes it."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import filter_overrides
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from mtlrun.config.compose import compose_with_hydra, resolve, without_hydra
from mtlrun.config.diagnosis import diagnose, first_line
from mtlrun.config.root import check_root
from mtlrun.config.seeds import by_seed, several_seeds
from mtlrun.errors import ConfigError, MtlrunError
from mtlrun.sweeps.checking import put_together
from mtlrun.sweeps.jobs import Job

#: Runs that are named where a problem concerns several.
_MOST_NAMED = 5


def compose_jobs(composer: "Composer", runs: Sequence[Sequence[str]]) -> tuple[list[Job], list[str]]:
    """Return a job for each run that `hydra.sweeper.exclude` does not leave out, and what is wrong with others.

    Runs that are the same are made once. With `trainer.vectorized_seeds`, each run is one for each of so many seeds, or
    those that differ in the given seeds alone are put together.

    Args:
        composer: of the sweep.
        runs: the overrides of each run.

    Raises:
        ConfigError: an exclusion has no effect, or leaves out all runs.
    """
    base = composer.base
    exclude = _exclusions(base)
    effective: set[int] = set()
    jobs: dict[str, Job] = {}
    problems: list[tuple[Sequence[str], str]] = []
    refused: tuple[Sequence[str], Exception] | None = None
    together: dict[str, int] = {}
    gives_seeds = len({word for overrides in runs for word in overrides if word.startswith("seed=")}) > 1
    for number, overrides in enumerate(runs):
        try:
            cfg = composer.compose(overrides)
        except (HydraException, OmegaConfBaseException) as error:
            refused = refused or (overrides, error)
            continue
        with open_dict(cfg.hydra.job):
            cfg.hydra.job.id = cfg.hydra.job.num = number
        matching = [index for index, entry in enumerate(exclude) if _matches(entry, cfg)]
        effective |= set(matching)
        if matching:
            continue
        HydraConfig.instance().set_config(cfg)  # for ${hydra:...}
        typed = list(filter_overrides(overrides))
        number_together = several_seeds(cfg)
        for of_seed, words in by_seed(without_hydra(cfg), typed, seed_is_given=gives_seeds):
            try:
                config = resolve(of_seed, cfg.hydra.runtime.choices, words)
            except MtlrunError as error:
                found = error.problems if isinstance(error, ConfigError) else [str(error)]
                problems += [(typed, problem) for problem in found]
                break
            if found := check_root(config):
                problems += [(typed, problem) for problem in found]
                break
            job = Job(len(jobs) + 1, config, words)
            jobs.setdefault(job.run_id, job)
            if number_together is not None:
                together[job.run_id] = number_together
    put_together(list(jobs.values()), together)
    sentences = gather(problems, runs)
    if refused is not None:
        sentences = [*_diagnose(*refused, base), *sentences]
    if not sentences:
        if idle := [str(entry) for index, entry in enumerate(exclude) if index not in effective]:
            raise ConfigError(f"hydra.sweeper.exclude: no run of this sweep has {' or '.join(idle)}; leave it out")
        if not jobs:
            raise ConfigError("hydra.sweeper.exclude leaves out all runs")
    return list(jobs.values()), sentences


def config_dirs(base: DictConfig) -> list[str]:
    """Return the folders of the user's YAML, as --config-dir gave them."""
    return [source.path for source in base.hydra.runtime.config_sources if source.provider == "command-line"]


def _diagnose(run: Sequence[str], error: Exception, base: DictConfig) -> list[str]:
    """Return what is wrong with what was typed, or with what a study makes of it in a run that Hydra refuses."""
    compose = partial(compose_with_hydra, config_dir=next(iter(config_dirs(base)), None))
    typed = list(base.hydra.overrides.task)
    return (
        diagnose(typed, compose, sweeping=True).problems
        or diagnose(list(run), compose, sweeping=True).problems
        or [first_line(error)]
    )


class Composer:
    """Composes runs as Hydra does, the options that several runs have in common once.

    Hydra takes ten times as long for the files of the chosen options as for the values of all other keys.

    Args:
        loader: Hydra's.
        base: the config of the sweep, with the node `hydra`.
    """

    def __init__(self, loader: ConfigLoaderImpl, base: DictConfig) -> None:
        self._loader, self.base = loader, base
        self._repository = CachingConfigRepository(loader.repository)
        self._composed: dict[tuple[str, ...], DictConfig] = {}

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Return the config of one run, with the node `hydra`."""
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        values = [override for override in parsed if not self._is_choice(override)]
        if any(override.is_hydra_override() for override in values):
            return self._loader.load_sweep_config(self.base, list(overrides))
        choices = tuple(override.input_line or "" for override in parsed if self._is_choice(override))
        if choices not in self._composed:
            self._composed[choices] = self._loader.load_sweep_config(self.base, list(choices))
        cfg = copy.deepcopy(self._composed[choices])
        self._loader._apply_overrides_to_config(values, cfg)
        with open_dict(cfg.hydra):
            cfg.hydra.overrides.task = list(filter_overrides(overrides))
        return cfg

    def _is_choice(self, override: Override) -> bool:
        return self._repository.group_exists(override.key_or_group)


def gather(problems: Sequence[tuple[Sequence[str], str]], runs: Sequence[Sequence[str]]) -> list[str]:
    """Return one sentence for each problem, with the runs that have it unless the problem itself names them.

    Args:
        problems: the overrides of a run, and what is wrong with it.
        runs: the overrides of all runs.
    """
    concerned: dict[str, list[Sequence[str]]] = {}
    for overrides, problem in problems:
        concerned.setdefault(problem, []).append(overrides)
    return [_sentence(problem, with_it, runs) for problem, with_it in concerned.items()]


def _sentence(problem: str, concerned: Sequence[Sequence[str]], runs: Sequence[Sequence[str]]) -> str:
    differing = {word for run in runs for word in run if not all(word in other for other in runs)}
    shared = [word for word in concerned[0] if word in differing and all(word in run for run in concerned)]
    if len(concerned) == sum(set(shared) <= set(run) for run in runs):  # all runs with these words, and no other
        if all(word.partition("=")[2].strip("[]'\"") in problem for word in shared):
            return problem
        return f"{' '.join(shared)}: {problem}"
    names = [" ".join(word for word in run if word in differing) for run in concerned]
    more = f" and {len(names) - _MOST_NAMED} more runs" if len(names) > _MOST_NAMED else ""
    return f"{'; '.join(names[:_MOST_NAMED])}{more}: {problem}"


def _exclusions(base: DictConfig) -> list[Mapping[str, Any]]:
    """Return the entries of `hydra.sweeper.exclude`.

    Raises:
        ConfigError: one is not a mapping.
    """
    entries = base.hydra.sweeper.get("exclude")
    plain = [] if entries is None else OmegaConf.to_container(entries, resolve=True)
    if not isinstance(plain, list) or not all(isinstance(entry, dict) and entry for entry in plain):
        raise ConfigError(
            f"hydra.sweeper.exclude={plain!r}: must be a list of entries such as {{model: single, weighting: [mgda]}}"
        )
    return plain


def _matches(entry: Mapping[str, Any], cfg: DictConfig) -> bool:
    return all(
        value in (allowed if isinstance(allowed, list) else [allowed])
        for (key, allowed), value in zip(entry.items(), _values(entry, cfg), strict=True)
    )


def _values(keys: Mapping[str, Any], cfg: DictConfig) -> Iterator[Any]:
    """Yield the chosen option of each key that is a group, the value in the config of each other."""
    choices = cfg.hydra.runtime.choices
    for key in keys:
        yield choices[key] if key in choices else OmegaConf.select(cfg, key)
