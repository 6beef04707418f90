"""Findings: the affinity matrices of the runs on one data set, and the groups of tasks that they suggest."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

from mtlrun.comparison.affinity.associations import spearman
from mtlrun.comparison.affinity.grouping import Grouping, best_grouping
from mtlrun.comparison.affinity.measures import FAMILIES, MEASURES, AffinityMatrix
from mtlrun.comparison.affinity.performance import gains_of_pairs
from mtlrun.comparison.affinity.training import logged_affinities
from mtlrun.comparison.data_sets import group_by_data
from mtlrun.comparison.groups import ConfigGroup, group_by_config
from mtlrun.comparison.run import Run

#: Groups of the runs on one data set -> (matrices, {measure: why there is none}).
Source = Callable[[Sequence[ConfigGroup]], tuple[list[AffinityMatrix], dict[str, str]]]
#: Measures that say nothing about which tasks to train together.
_NOT_GROUPED = ("overlap",)
# Of fewer directed pairs a rank correlation says nothing.
_FEWEST_PAIRS = 6


@dataclass
class Suggestion:
    """The best groups of tasks by one matrix.

    Args:
        matrix: what they follow from.
        grouping: the groups, of positions in the matrix.
    """

    matrix: AffinityMatrix
    grouping: Grouping

    @property
    def networks(self) -> list[list[str]]:
        """The tasks that are trained together."""
        return [[self.matrix.tasks[position] for position in network] for network in self.grouping.networks]

    @property
    def served(self) -> list[list[str]]:
        """Of each network, the tasks that are predicted by it."""
        return [[self.matrix.tasks[position] for position in served] for served in self.grouping.served]

    def describe(self) -> str:
        """Return the networks in words; helpers, whose predictions come from another network, in parentheses."""
        words = []
        for network, served in zip(self.networks, self.served, strict=True):
            names = [task if task in served else f"({task})" for task in network]
            words.append("{" + ", ".join(names) + "}")
        return " ".join(words)


@dataclass
class Findings:
    """What is known about the tasks of one data set.

    Args:
        title: of the data set.
        groups: its runs.
        matrices: in the order of `MEASURES`.
        missing: {measure: why there is no matrix}.
        suggestions: one for each matrix that can give one.
        problems: why other matrices give none.
    """

    title: str
    groups: Sequence[ConfigGroup]
    matrices: list[AffinityMatrix] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    suggestions: list[Suggestion] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def agreements(self) -> dict[str, tuple[float, int]]:
        """Return {title of a matrix: (Spearman's rank correlation with the gains of pairs, number of pairs)}.

        That is what a measure is worth on this data. A pair counts once for each direction. Nothing if there are no
        gains, or those of several methods, or too few pairs.
        """
        gains = [matrix for matrix in self.matrices if matrix.measure == "gain"]
        if len(gains) != 1:
            return {}
        found = {}
        for matrix in self.matrices:
            common = [
                (closeness, gain)
                for task, of_task in zip(matrix.tasks, matrix.closeness(), strict=True)
                for other, closeness in zip(matrix.tasks, of_task, strict=True)
                if task != other and isfinite(closeness) and isfinite(gain := gains[0].value(task, other))
            ]
            if matrix.measure != "gain" and len(common) >= _FEWEST_PAIRS:
                found[matrix.title] = (spearman(*zip(*common, strict=True)), len(common))
        return found

    def suggest(self, num_networks: int, *, helpers: bool = False) -> None:
        """Find the best groups of tasks by each matrix.

        Args:
            num_networks: at most so many.
            helpers: see `best_grouping`.
        """
        for matrix in self.matrices:
            if matrix.measure in _NOT_GROUPED:
                continue
            alone = matrix.about.alone
            try:
                grouping = best_grouping(matrix.closeness(), num_networks, alone=alone, helpers=helpers)
            except ValueError as error:
                self.problems.append(f"{matrix.title}: no groups are suggested: {error}")
            else:
                self.suggestions.append(Suggestion(matrix, grouping))


def find_affinities(runs: Sequence[Run], wanted: Sequence[str], others: Mapping[str, Source]) -> list[Findings]:
    """Return the findings on each data set.

    Args:
        runs: of any data sets.
        wanted: keys of `MEASURES`.
        others: {family: what finds its matrices} for the families `data` and `model`, which need more than records.
    """
    sources: dict[str, Source] = {"training": logged_affinities, "performance": gains_of_pairs, **others}
    by_record = {id(run.record): run for run in runs}
    found = []
    for title, records in group_by_data([run.record for run in runs]).items():
        groups = group_by_config([by_record[id(record)] for record in records])
        findings = Findings(title, groups)
        for family in FAMILIES:
            if any(MEASURES[measure].family == family for measure in wanted):
                matrices, missing = sources[family](groups)
                findings.matrices += [matrix for matrix in matrices if matrix.measure in wanted]
                findings.missing |= {measure: why for measure, why in missing.items() if measure in wanted}
        findings.matrices.sort(key=lambda matrix: list(MEASURES).index(matrix.measure))
        found.append(findings)
    return found


def measures_of(choice: str) -> list[str]:
    """Return the measures of a family, or the one of this name; an empty list if there is neither."""
    return [key for key, measure in MEASURES.items() if choice in (key, measure.family)]
