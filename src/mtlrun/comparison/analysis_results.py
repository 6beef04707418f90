"""What the analyses of a table find, as data."""

from dataclasses import dataclass, field
from math import nan
from typing import Any

from mtlrun.comparison.samples import SampleDifference
from mtlrun.comparison.statistics.friedman import RankTest
from mtlrun.comparison.statistics.improvement import Estimate
from mtlrun.comparison.statistics.paired import Difference
from mtlrun.comparison.statistics.ranks import ALPHA


@dataclass
class Contrast:
    """The difference of a row to the chosen one in one column.

    Args:
        row: name of the row.
        column: key of the column.
        title: of the column.
        over_repetitions: the difference over seeds or folds; None where one of both has no value.
        over_samples: the difference over test samples; None where it is not known.
        why_not: why there is none over test samples; "" where there is one.
        p: of the difference over repetitions, corrected for the number of rows that are tested in the column.
        p_samples: the same over test samples.
        needed: number of repetitions that would find such a difference, even if it were the smallest of the column;
            None if it is not paired, no number is enough, or repetitions are folds.
    """

    row: str
    column: str
    title: str
    over_repetitions: Difference | None
    over_samples: SampleDifference | None = None
    why_not: str = ""
    p: float | None = None
    p_samples: float | None = None
    needed: int | None = None

    @property
    def verdict(self) -> str:
        """What the difference is, in words: `better` and `worse` are outside the noise of both."""
        difference = self.over_repetitions
        if difference is None:
            return "no value"
        if self.p is None:
            return "too few repetitions"
        if self.p >= ALPHA:
            return "inside the noise"
        better = "better" if difference.gain > 0 else "worse"
        if self.over_samples is None:
            return f"{better} over repetitions"
        agrees = self.over_samples.gain * difference.gain > 0
        if agrees and self.p_samples is not None and self.p_samples < ALPHA:
            return better
        return "inside the noise of the test samples"


@dataclass
class Overall:
    """A row held against the chosen one over all tasks, by the main metrics.

    Args:
        row: name of the row.
        improvement: probability that one of its runs is better than one of the chosen row on a task; None for the
            chosen row.
        gain: interquartile mean of the relative gains against single-task networks, in percent, of all runs and tasks;
            None without a single-task baseline.
    """

    row: str
    improvement: Estimate | None
    gain: Estimate | None


@dataclass
class Against:
    """All rows of a table against a chosen one.

    Args:
        baseline: name of the chosen row.
        repetition: what the rows are repeated over, such as `seed`.
        contrasts: column by column.
        overall: of each row.
        ranks: Friedman's test of the rows in `ranked`; None with fewer than three rows or two blocks.
        ranked: names of the rows that it is of.
        notes: sentences on what is not known.
    """

    baseline: str
    repetition: str
    contrasts: list[Contrast] = field(default_factory=list)
    overall: list[Overall] = field(default_factory=list)
    ranks: RankTest | None = None
    ranked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class Spread:
    """The test means of a method's trials in one column.

    Args:
        best: of the trial that validation prefers; NaN where validation cannot choose.
        median, low, high: over all trials.
    """

    best: float
    median: float
    low: float
    high: float


@dataclass
class TunedMethod:
    """A method with the trials of its swept keys.

    Args:
        label: what tells the method from others, {key: value}.
        trials: number of its rows, each one or several repetitions of a config.
        best: values of the swept keys that validation prefers; None where it cannot choose.
        best_row: name of that row; "" for none.
        validation: mean skill of that row on validation, NaN for none.
        spreads: {key of a column: over the trials}.
    """

    label: dict[str, Any]
    trials: int
    best: dict[str, Any] | None
    best_row: str
    validation: float
    spreads: dict[str, Spread]


@dataclass
class Tuning:
    """The methods of a table whose numbers were swept.

    Args:
        keys: the swept keys.
        methods: all methods, those with one trial too.
        notes: sentences on what could not be chosen.
    """

    keys: list[str]
    methods: list[TunedMethod] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class TradeOff:
    """One row among the others, by its means.

    Args:
        row: name of the row.
        dominated_by: names of the rows that are nowhere worse and somewhere better; none on the Pareto front.
        added: by how much the hypervolume of all rows is smaller without this one; NaN where it is not known.
        wins: fraction of all weights of the tasks under which it has the highest mean skill; NaN where it is not known.
        profile: for each threshold the fraction of its pairs of a task and a repetition with a higher skill.
    """

    row: str
    dominated_by: list[str]
    added: float = nan
    wins: float = nan
    profile: list[float] = field(default_factory=list)


@dataclass
class TradeOffs:
    """The multi-objective view.

    Args:
        objectives: keys of the columns, the main metric of each task.
        rows: those that have all objectives.
        hypervolume: of all rows together; NaN where it is not known.
        reference: the value of each objective down to which it extends.
        reference_is: what that is, in words.
        thresholds: of the profiles, skills on test.
        notes: sentences on what the numbers are, and what is not known.
    """

    objectives: list[str]
    rows: list[TradeOff]
    hypervolume: float = nan
    reference: list[float] = field(default_factory=list)
    reference_is: str = ""
    thresholds: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
