"""The space of a search: which keys take which values, by Hydra's grammar for sweeps."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import prod
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from mtlrun.errors import ConfigError

#: Keys, and whatever is below the keys that end in a dot, that are not to be searched over, and why.
_NOT_SEARCHED = {
    "seed": "the best of several seeds is chance; search with one, and train the best with several",
    "dataset": "results on different datasets cannot be compared; make a search for each",
    "experiment": "it may set anything; search over the keys that it sets",
    "study": "it may set anything; search over the keys that it sets",
    "runtime.": "it is where and how a run is computed, and no hyperparameter",
    "hydra.": "it is about the search itself",
}
_ALLOWED = "write a,b,c or range(a,b) or interval(a,b) or int(interval(a,b)) or tag(log,interval(a,b))"


@dataclass(frozen=True)
class Space:
    """The keys that are searched over, and those that are the same in all trials.

    Args:
        fixed: overrides of every trial.
        distributions: {key: the values that it may take}.
    """

    fixed: Sequence[str]
    distributions: Mapping[str, BaseDistribution]

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """Return the overrides of the run with these values."""
        return [*self.fixed, *(f"{key}={_as_text(params[key])}" for key in self.distributions)]

    def corners(self) -> list[list[str]]:
        """Return the overrides of a few runs: with the lowest and highest value of each key, and with each choice.

        What is not varied has its first value. If these runs can be composed and prepared, so can most others.
        """
        first = {key: _extremes(distribution)[0] for key, distribution in self.distributions.items()}
        runs = [self.overrides(first)]
        for key, distribution in self.distributions.items():
            runs += [self.overrides({**first, key: value}) for value in _extremes(distribution)[1:]]
        return runs

    def num_points(self) -> int | None:
        """Return the number of runs that there are in the space, None if it has no end."""
        counts = [_num_values(distribution) for distribution in self.distributions.values()]
        known = [count for count in counts if count is not None]
        return prod(known) if len(known) == len(counts) else None

    def lines(self) -> list[str]:
        """Return a line on each key: its values in words."""
        return [f"{key}: {_in_words(distribution)}" for key, distribution in self.distributions.items()]

    def describe(self) -> dict[str, Any]:
        """Return the keys and what values they take, as plain data."""
        return {key: json.loads(distribution_to_json(item)) for key, item in self.distributions.items()}


def make_space(overrides: Sequence[Override]) -> Space:
    """Return the space that overrides describe; of two for the same key, the later one counts.

    Raises:
        ConfigError: one cannot be searched over, or none has several values.
    """
    latest = {override.get_key_element().lstrip("+~"): override for override in overrides}
    fixed: list[str] = []
    distributions: dict[str, BaseDistribution] = {}
    problems: list[str] = []
    for override in latest.values():
        if not override.is_sweep_override():
            fixed.append(override.input_line or "")
            continue
        key = override.key_or_group
        reason = _NOT_SEARCHED.get(key) or _NOT_SEARCHED.get(key.split(".")[0].split("/")[0] + ".")
        if reason is not None:
            problems.append(f"{override.input_line}: {key} is not to be searched over: {reason}")
            continue
        try:
            distributions[override.get_key_element()] = _distribution(override)
        except ValueError as error:
            problems.append(f"{override.input_line}: {error}")
    if not distributions and not problems:
        problems.append(f"no key has several values to search over; {_ALLOWED}")
    if problems:
        raise ConfigError(problems)
    return Space(fixed, distributions)


def _distribution(override: Override) -> BaseDistribution:
    """Return the values that an override stands for.

    Raises:
        ValueError: there are none, or they cannot be searched over.
    """
    sweep = override.value()
    unknown = sorted(getattr(sweep, "tags", set()) - {"log"})
    if unknown:
        raise ValueError(f"unknown tag {', '.join(unknown)}; {_ALLOWED}")
    log = "log" in getattr(sweep, "tags", set())
    if isinstance(sweep, IntervalSweep):
        return _interval(sweep, log=log)
    if log:
        raise ValueError(f"only an interval may be logarithmic; {_ALLOWED}")
    if isinstance(sweep, ChoiceSweep) and sweep.shuffle:
        raise ValueError(f"the order of choices is of no importance here; {_ALLOWED}")
    texts = list(dict.fromkeys(override.sweep_string_iterator()))
    if len(texts) < 2:
        raise ValueError(f"{len(texts)} values, and a search needs two or more; {_ALLOWED}")
    if isinstance(sweep, RangeSweep):
        return _range(sweep, len(texts))
    return CategoricalDistribution(texts)


def _interval(sweep: IntervalSweep, *, log: bool) -> BaseDistribution:
    start, end = sweep.start, sweep.end
    assert start is not None
    assert end is not None
    if not start < end:
        raise ValueError(f"the interval must go up, from {start:g} it goes to {end:g}")
    if log and start <= 0:
        raise ValueError(f"a logarithmic interval must be above 0, found {start:g}")
    if isinstance(start, int) and isinstance(end, int):
        return IntDistribution(start, end, log=log)
    return FloatDistribution(start, end, log=log)


def _range(sweep: RangeSweep, count: int) -> BaseDistribution:
    start, step = sweep.start, sweep.step
    assert start is not None
    exact = Decimal(str(start)) + (count - 1) * Decimal(str(step))  # 0.7000000000000001 is no multiple of 0.1
    low, high = sorted([Decimal(str(start)), exact])
    if isinstance(start, int) and isinstance(step, int):
        return IntDistribution(int(low), int(high), step=abs(step))
    return FloatDistribution(float(low), float(high), step=abs(float(step)))


def _extremes(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return [distribution.low, distribution.high]


def _in_words(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(map(str, distribution.choices))
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    whole = isinstance(distribution, IntDistribution) and distribution.step == 1
    step = "" if distribution.step is None or whole else f" in steps of {distribution.step:g}"
    kind = ", whole numbers" if whole else ", logarithmic" if distribution.log else ""
    return f"{distribution.low:g} to {distribution.high:g}{step}{kind}"


def _num_values(distribution: BaseDistribution) -> int | None:
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.step is None:
        return None
    return round((distribution.high - distribution.low) / distribution.step) + 1


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)
