"""Drawing of rows into parts: at random, by group, stratified, in the order of time, or as folds.

Every function depends only on its arguments and on NumPy's PCG64, which does not change between versions.
"""

from collections.abc import Sequence

import numpy
import pandas

from mtlrun.datasets.generation.splitting import split_by_class

#: For each part, its rows as sorted positions.
Parts = list[numpy.ndarray]


def draw_rows(strata: numpy.ndarray, fractions: Sequence[float], seed: int) -> Parts:
    """Draw rows one by one, stratified by one or more columns.

    A combination of values is divided by itself if that gives every part at least one of its rows. The rows of rarer
    combinations go, one after the other and the rarest values first, to the part that lacks most of their values, where
    the first row with a value always goes to the first part.

    Args:
        strata: the value of each column by number, int64 [num_rows, num_columns]; no column for a plain draw.
        fractions: of all parts; they sum to 1.
        seed: 0 or more.
    """
    combined = combine(strata)
    counts = numpy.bincount(combined)
    frequent = numpy.array([_reaches_all(int(count), fractions) for count in counts])[combined]
    if strata.shape[1] == 0 or frequent.all():
        return split_by_class(combined, fractions[:-1], seed)
    places = numpy.flatnonzero(frequent)
    parts = numpy.zeros(len(combined), dtype=numpy.int64)
    for index, chosen in enumerate(split_by_class(combined[places], fractions[:-1], seed)):
        parts[places[chosen]] = index
    rare = numpy.flatnonzero(~frequent)
    allotted = numpy.where(frequent, parts, -1)
    parts[rare] = _allot(numpy.arange(len(combined)), strata, fractions, seed, allotted, every_value_in_first=True)[
        rare
    ]
    return _collect(parts, len(fractions))


def draw_groups(groups: numpy.ndarray, strata: numpy.ndarray, fractions: Sequence[float], seed: int) -> Parts:
    """Draw whole groups of rows, so that `fractions` are met as nearly as the groups allow.

    Without strata, the groups are lined up in a random order, the line is cut by `fractions`, and each group is
    assigned by its midpoint. With strata, the largest groups go first, each to the part that lacks most of its values,
    where the first group with a value always goes to the first part. If there are enough groups, no part is empty.

    Args:
        groups: the group of each row by number, int64 [num_rows].
        strata, fractions, seed: as for `draw_rows`.
    """
    sizes = numpy.bincount(groups)
    if strata.shape[1]:
        nothing = numpy.full(len(groups), -1)
        parts = _allot(groups, strata, fractions, seed, nothing, every_value_in_first=True)
    else:
        order = numpy.random.default_rng(seed).permutation(len(sizes))
        middles = (numpy.cumsum(sizes[order]) - sizes[order] / 2) / len(groups)
        parts = numpy.empty(len(sizes), dtype=numpy.int64)
        parts[order] = numpy.searchsorted(numpy.cumsum(fractions[:-1]), middles)
    _fill_empty_parts(parts, sizes, len(fractions))
    return _collect(parts[groups], len(fractions))


def cut_by_time(times: numpy.ndarray, groups: numpy.ndarray | None, fractions: Sequence[float]) -> Parts:
    """Cut rows in the order of their times: the first part is the earliest. Rows of equal times stay together.

    So do groups: there is no cut between the first time and the last of a group. If there are enough places to cut, no
    part is empty.

    Args:
        times: of each row, [num_rows].
        groups: the group of each row by number, int64 [num_rows]; None without groups.
        fractions: of all parts; they are met as nearly as equal times allow.
    """
    different, moments, sizes = numpy.unique(
        times if groups is None else _stretches(times, groups), return_inverse=True, return_counts=True
    )
    middles = (numpy.cumsum(sizes) - sizes / 2) / len(times)
    cuts = numpy.searchsorted(middles, numpy.cumsum(fractions[:-1]))
    if len(different) >= len(fractions):
        for index in range(len(cuts)):
            earliest = cuts[index - 1] + 1 if index else 1
            cuts[index] = numpy.clip(cuts[index], earliest, len(different) - len(cuts) + index)
    return _collect(numpy.searchsorted(cuts, moments, side="right"), len(fractions))


def _stretches(times: numpy.ndarray, groups: numpy.ndarray) -> numpy.ndarray:
    """Return for each row the number of the stretch of time that it is in: groups overlap within stretches only."""
    _, group, counts = numpy.unique(groups, return_inverse=True, return_counts=True)
    first = numpy.full(len(counts), times.max())
    last = numpy.full(len(counts), times.min())
    numpy.minimum.at(first, group, times)
    numpy.maximum.at(last, group, times)
    order = numpy.argsort(first, kind="stable")
    begins = first[order][1:] > numpy.maximum.accumulate(last[order])[:-1]
    stretch = numpy.empty(len(counts), dtype=numpy.int64)
    stretch[order] = numpy.concatenate([[0], numpy.cumsum(begins)])
    return stretch[group]


def deal_folds(groups: numpy.ndarray | None, strata: numpy.ndarray, num_folds: int, seed: int) -> Parts:
    """Divide rows into folds of nearly equal size.

    Rows are shuffled, sorted by their strata, and dealt like cards, so that the numbers of each combination of values
    differ by one at most. Groups go whole, the largest first, each to the fold that lacks most of its values, or rows.

    Args:
        groups: the group of each row by number, int64 [num_rows]; None to deal rows.
        strata, seed: as for `draw_rows`.
        num_folds: 2 or more.
    """
    if groups is None:
        order = numpy.random.default_rng(seed).permutation(len(strata))
        order = order[numpy.argsort(combine(strata)[order], kind="stable")]
        folds = numpy.empty(len(strata), dtype=numpy.int64)
        folds[order] = numpy.arange(len(strata)) % num_folds
        return _collect(folds, num_folds)
    fractions = [1 / num_folds] * num_folds
    nothing = numpy.full(len(groups), -1)
    parts = _allot(groups, strata, fractions, seed, nothing, every_value_in_first=False)
    _fill_empty_parts(parts, numpy.bincount(groups), num_folds)
    return _collect(parts[groups], num_folds)


def number(cells: Sequence[str | None]) -> numpy.ndarray:
    """Number the values in the order in which they occur, int64 [num_cells]; an empty cell is a value."""
    codes: numpy.ndarray = pandas.factorize(numpy.array(cells, dtype=object), use_na_sentinel=False)[0]
    return codes.astype(numpy.int64)


def combine(strata: numpy.ndarray) -> numpy.ndarray:
    """Return the number of each row's combination of values, int64 [num_rows]; all 0 without columns."""
    combined = numpy.zeros(len(strata), dtype=numpy.int64)
    for column in strata.T:
        combined = numpy.unique(combined * (column.max(initial=0) + 1) + column, return_inverse=True)[1]
    return combined


def _collect(parts: numpy.ndarray, num_parts: int) -> Parts:
    return [numpy.flatnonzero(parts == index) for index in range(num_parts)]


def _reaches_all(count: int, fractions: Sequence[float]) -> bool:
    """Return True if so many rows give every part at least one, as `split_by_class` rounds."""
    rounded = [round(fraction * count) for fraction in fractions[:-1]]
    return min(rounded) >= 1 and sum(rounded) < count


def _fill_empty_parts(parts: numpy.ndarray, sizes: numpy.ndarray, num_parts: int) -> None:
    """Give each empty part the smallest unit of the part with the most units, as long as one has two, in place."""
    for empty in numpy.setdiff1d(numpy.arange(num_parts), parts):
        units = numpy.bincount(parts, minlength=num_parts)
        if units.max() > 1:
            candidates = numpy.flatnonzero(parts == units.argmax())
            parts[candidates[sizes[candidates].argmin()]] = empty


def _allot(
    units: numpy.ndarray,
    strata: numpy.ndarray,
    fractions: Sequence[float],
    seed: int,
    allotted: numpy.ndarray,
    *,
    every_value_in_first: bool,
) -> numpy.ndarray:
    """Return the part of each unit, int64 [num_units]; units are groups of rows, or single rows.

    Units come in a random order, the largest first and then those with the rarest value. Each goes to the part p with
    the least sum over its values v of c_v (2 n_vp + c_v) / (f_p N_v), where c_v, n_vp and N_v are the numbers of rows
    with this value in the unit, in the part so far, and in all, and f_p is the fraction of the part. That is the least
    increase of chi-squared, the sum of (n_vp - f_p N_v)^2 / (f_p N_v); for a single value it is Sainte-Lague's method.

    Args:
        units: the unit of each row by number.
        strata, fractions, seed: as for `draw_rows`.
        allotted: the part of each row that is settled before, -1 for the others.
        every_value_in_first: a unit goes to the first part if this has no row with one of its values yet.
    """
    # One column of values that no two columns of the strata share, and 0 for "any row".
    values, start = [numpy.zeros(len(units), dtype=numpy.int64)], 1
    for column in strata.T:
        values.append(column + start)
        start += int(column.max()) + 1
    totals = numpy.bincount(numpy.concatenate(values), minlength=start)
    inside = numpy.zeros((start, len(fractions)))
    for column in values:
        settled = allotted >= 0
        numpy.add.at(inside, (column[settled], allotted[settled]), 1)
    pending = numpy.flatnonzero(allotted < 0)
    pairs = numpy.concatenate([units[pending] * start + column[pending] for column in values])
    pairs, counts = numpy.unique(pairs, return_counts=True)
    holders, held = numpy.divmod(pairs, start)
    present, first, sizes = numpy.unique(holders, return_index=True, return_counts=True)
    num_rows = numpy.bincount(units)[present]
    rarest = numpy.minimum.reduceat(totals[held], first)
    shuffled = numpy.random.default_rng(seed).permutation(len(present))
    order = shuffled[numpy.lexsort((rarest[shuffled], -num_rows[shuffled]))]
    parts = numpy.zeros(int(units.max()) + 1, dtype=numpy.int64)
    shares = numpy.asarray(fractions)
    for index in order:
        chosen = slice(first[index], first[index] + sizes[index])
        of, count = held[chosen], counts[chosen][:, None]
        if every_value_in_first and (inside[of, 0] == 0).any():
            part = 0
        else:
            part = int((count * (2 * inside[of] + count) / (shares * totals[of][:, None])).sum(axis=0).argmin())
        inside[of, part] += count[:, 0]
        parts[present[index]] = part
    return parts
