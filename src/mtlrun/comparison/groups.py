"""Groups of runs: the repetitions of one config, which become one row of a table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan
from statistics import fmean, stdev
from typing import Any

from mtlrun.comparison.data_sets import is_table
from mtlrun.comparison.labels import FOLLOWS, Flat, follows, label_configs
from mtlrun.comparison.run import Run
from mtlrun.config.suggest import suggest
from mtlrun.errors import ConfigError
from mtlrun.records.record import Record

#: What tells the repetitions of a config apart: the values of the keys over which its runs are folded, in their order,
#: (seed, fold) by default, and of those that a row mixes.
Repetition = tuple[Any, ...]

#: The keys in which runs of one config may differ.
SEED_AND_FOLD = ("seed", "dataset.fold")


@dataclass
class ConfigGroup:
    """The runs that are one row of a table: those of one config, with different seeds and folds.

    Args:
        label: where this config differs from others of the table, {key: value}.
        runs: all of them, those without a result too.
        over: the keys in which the runs may differ.
        mixed: other keys in which runs of one row differ, here or in other rows, since the user has chosen the rows.
    """

    label: dict[str, Any]
    runs: list[Run] = field(default_factory=list)
    over: tuple[str, ...] = SEED_AND_FOLD
    mixed: tuple[str, ...] = ()

    @property
    def records(self) -> list[Record]:
        """The records of the runs."""
        return [run.record for run in self.runs]

    @property
    def name(self) -> str:
        """A short text that tells this group from the others: names of options, and key=value for other keys."""
        names = self.records[0].config["names"]
        words = [str(value) if key in names else f"{key}={value}" for key, value in self.label.items()]
        return ", ".join(words) or f"{names.get('model')}, {names.get('weighting')}"

    @property
    def test_selected(self) -> bool:
        """True if the results are means over the last evaluations of the test split."""
        return self.runs[0].test_selected

    @property
    def made(self) -> bool:
        """True if the results are not of trainings, but were made from finished runs, as an ensemble is."""
        return bool(self.runs[0].made_from)

    @property
    def num_folds(self) -> int | None:
        """The number of folds that the data are divided into; None without folds, or if each fold is a row."""
        num_folds = self.runs[0].lookup("dataset.num_folds") if "dataset.fold" in self.over else None
        return num_folds if isinstance(num_folds, int) else None

    @property
    def states(self) -> Counter[str]:
        """The number of runs in each state."""
        return Counter(run.state for run in self.runs)

    def averaged_evaluations(self) -> list[int]:
        """Return the number of evaluations behind each test-selected result; empty if the results are not."""
        with_result = [record for record in self.records if record.test] if self.test_selected else []
        return [entry["evaluations"] for record in with_result for entry in record.selection]

    def repetition(self, run: Run) -> Repetition:
        """Return what tells a run from the other ones of its row."""
        return tuple(_hashable(run.lookup(key)) for key in (*self.over, *self.mixed))

    def repetitions(self) -> dict[Repetition, Run]:
        """Return each run under its repetition; of several under one, the later ones have a number in addition."""
        found: dict[Repetition, Run] = {}
        for run in self.runs:
            key, number = self.repetition(run), 1
            while (key if number == 1 else (*key, number)) in found:
                number += 1
            found[key if number == 1 else (*key, number)] = run
        return found

    def results(self, task: str, metric: str, meaning: Any = None) -> dict[Repetition, float]:
        """Return the test metric of each completed run that has it, NaN where it is not defined.

        Args:
            task: its name.
            metric: its name.
            meaning: what the task has to be, `Run.meaning`; None for anything.
        """
        results = {}
        for repetition, run in self.repetitions().items():
            metrics = run.record.test.get(task, {})
            if metric in metrics and (meaning is None or run.meaning(task) == meaning):
                value = metrics[metric]
                results[repetition] = nan if value is None else value
        return results

    def independent(self, values: Mapping[Repetition, float]) -> dict[Any, float]:
        """Return the values that a mean, its interval and tests are over, NaN where one is not defined.

        With folds there is one per fold, the mean over its seeds: runs on the same test samples are not independent of
        each other. Otherwise there is one per repetition of `over`. Where a row puts several configs together, that is
        the mean of these: runs of one seed are not independent either.

        Args:
            values: one per run; those that are not finite do not count.

        Returns:
            {fold, or values of the keys in `over`: mean of the finite values}.
        """
        place = self.over.index("dataset.fold") if self.num_folds is not None else None
        found: dict[Any, list[float]] = {}
        for repetition, value in values.items():
            key = repetition[: len(self.over)] if place is None else repetition[place]
            found.setdefault(key, []).append(value)
        return {
            key: fmean(finite) if (finite := [value for value in of_key if isfinite(value)]) else nan
            for key, of_key in found.items()
        }


def mean_and_spread(samples: Sequence[float]) -> tuple[float, float, int]:
    """Return mean, standard deviation (NaN for one) and number of the finite samples."""
    values = [value for value in samples if isfinite(value)]
    return (fmean(values) if values else nan), (stdev(values) if len(values) > 1 else nan), len(values)


def group_by_config(
    runs: Sequence[Run], *, over: Sequence[str] = SEED_AND_FOLD, by: Sequence[str] | None = None
) -> list[ConfigGroup]:
    """Group runs into rows, in the order of their first runs.

    Runs of two protocols, or on different data, are never in one group, whatever their configs are; nor is what was
    made from runs, such as an ensemble, in one with what was trained.

    Args:
        runs: on one data set.
        over: dotted keys of the config, or groups of it, in which the runs of a row may differ.
        by: keys or groups that the runs of a row have in common; None for all but those of `over`.
    """
    configs = {id(run): _without(run, over) for run in runs}
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        common = configs[id(run)] if by is None else [_hashable(run.lookup(key)) for key in by]
        grouped.setdefault(repr((run.record.protocol, run.content, run.made_from, common)), []).append(run)
    first = [group[0] for group in grouped.values()]
    if by is None:
        labels = label_configs([configs[id(run)] for run in first], [run.content for run in first])
        return [ConfigGroup(label, group, tuple(over)) for label, group in zip(labels, grouped.values(), strict=True)]
    mixed = dict.fromkeys(
        key for group in grouped.values() for key in _differing([configs[id(run)] for run in group]) if key not in by
    )
    labels = [
        {key: run.lookup(key) for key in by} | ({"made_from": run.made_from} if run.made_from else {}) for run in first
    ]
    if len({repr(label) for label in labels}) < len(labels):
        labels = [label | {"data": run.content} for label, run in zip(labels, first, strict=True)]
    return [
        ConfigGroup(label, group, tuple(over), tuple(mixed))
        for label, group in zip(labels, grouped.values(), strict=True)
    ]


def _differing(configs: Sequence[Flat]) -> list[str]:
    """Return the keys in which configs of one row differ."""
    distinct = list({repr(config): config for config in configs}.values())
    labels = label_configs(distinct, [""] * len(distinct))
    return list(dict.fromkeys(key for label in labels for key in label))


def _without(run: Run, over: Sequence[str]) -> Flat:
    """Return the flat config of a run without the keys over which its row is folded, and those that follow them.

    Where a table is does not matter if its content is known.
    """
    dropped = [key for key in over if key != "dataset.fold" or run.fold is not None]
    dropped += ["dataset.path"] if is_table(run.record) and run.content else []
    below = tuple(f"{key}." for key in dropped)
    names = [f"names.{key}" for key in dropped]
    sources = {source for sources in FOLLOWS.values() for source in sources}.intersection(dropped)
    return {
        key: value
        for key, value in run.config.items()
        if key not in dropped
        and key not in names
        and not key.startswith(below)
        and not (sources and follows(key, {name: run.config[name] for name in (key, *sources) if name in run.config}))
    }


def check_keys(option: str, keys: Sequence[str], runs: Sequence[Run]) -> None:
    """Raise ConfigError if no run has one of the keys that an option of the command line names."""
    for key in keys:
        if (
            key not in SEED_AND_FOLD
            and all(run.lookup(key) is None for run in runs)
            and not any(key in run.config for run in runs)
        ):
            known = dict.fromkeys(
                name
                for run in runs
                for name in ("model", "weighting", "backbone", "dataset", "tasks", *run.config)
                if not name.startswith("names.")
            )
            raise ConfigError(f"{option} {key}: no run has this key; {suggest(key, known, 'keys')}")


def _hashable(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool)) or value is None else repr(value)
