"""Findings as a picture: a heat map for each matrix, and for each part of the training where there are several."""

from collections.abc import Iterator, Sequence
from math import isfinite, isnan
from textwrap import fill
from typing import TYPE_CHECKING, Any

from mtlrun.comparison.affinity.findings import Findings
from mtlrun.comparison.affinity.formats import as_texts
from mtlrun.comparison.affinity.measures import AffinityMatrix
from mtlrun.comparison.plots.picture import Picture
from mtlrun.comparison.plots.style import SMALL, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Told apart with any color vision, and in gray: orange is harm and purple help; dark blue is low and yellow high.
_SIGNED, _UNSIGNED = "PuOr", "cividis"
_COLUMNS = 3
_TITLE = 36  # characters of a line
_MOST_NUMBERS = 14  # tasks: the cells of more have no room for numbers
_CELL = 0.5  # inches


@styled()
def draw(all_findings: Sequence[Findings]) -> Picture:
    """Return a picture with all matrices.

    Raises:
        DataError: Matplotlib is not installed.
    """
    panels = list(_panels(all_findings))
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    size = max(2.0, _CELL * max(len(matrix.tasks) for matrix, _, _ in panels))
    figure = new_figure(columns * (size + 1.6), rows * (size + 1.3))
    for index, (matrix, title, values) in enumerate(panels):
        _draw_panel(figure, figure.add_subplot(rows, columns, index + 1), matrix, title, values)
    measures = dict.fromkeys(matrix.measure for matrix, _, _ in panels)
    readings = {matrix.measure: f"{matrix.about.title}: {matrix.about.reading}." for matrix, _, _ in panels}
    return Picture("affinity", "affinity of tasks", " ".join(readings[measure] for measure in measures), figure)


def _panels(all_findings: Sequence[Findings]) -> Iterator[tuple[AffinityMatrix, str, list[list[float]]]]:
    for findings in all_findings:
        data = f"{findings.title}: " if len(all_findings) > 1 else ""
        for matrix in findings.matrices:
            yield matrix, data + matrix.title, matrix.values
            for part, values in matrix.stages.items() if len(matrix.stages) > 1 else ():
                yield matrix, f"{data}{matrix.title}, {part}", values


def _draw_panel(figure: "Figure", axes: Any, matrix: AffinityMatrix, title: str, values: list[list[float]]) -> None:
    """Draw one matrix. The colors of all parts of a training mean the same: they cover the pairs of different tasks."""
    everything = [matrix.values, *matrix.stages.values()]
    pairs = [value for grid in everything for a, row in enumerate(grid) for b, value in enumerate(row) if a != b]
    largest = max((abs(value) for value in pairs if isfinite(value)), default=0.0) or 1.0
    low = -largest if matrix.about.signed else 0.0
    colors = _SIGNED if matrix.about.signed else _UNSIGNED
    mesh = axes.pcolormesh(values, cmap=colors, vmin=low, vmax=largest)
    axes.set_title(fill(title, _TITLE))
    centers = [index + 0.5 for index in range(len(matrix.tasks))]
    axes.set_xticks(centers, matrix.tasks, rotation=45, ha="right")
    axes.set_yticks(centers, matrix.tasks)
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    axes.spines[:].set_visible(False)
    if not matrix.about.mutual:
        axes.set_xlabel("on")
        axes.set_ylabel("of")
    figure.colorbar(mesh, ax=axes, shrink=0.7).outline.set_visible(False)
    if len(matrix.tasks) > _MOST_NUMBERS:
        return
    texts = as_texts(AffinityMatrix(matrix.measure, matrix.tasks, values, matrix.spread, matrix.counts))
    for row, of_row in enumerate(values):
        for column, value in enumerate(of_row):
            if not isnan(value):
                red, green, blue, _ = mesh.cmap(mesh.norm(value))
                dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
                # Not quite black, which would become the color of the text around the picture.
                axes.text(centers[column], centers[row], texts[row][column], ha="center", va="center", size=SMALL - 1,
                          color="white" if dark else "#010101")  # fmt: skip
