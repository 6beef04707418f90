"""All pictures of a table, and why some are left out."""

from collections.abc import Callable
from dataclasses import dataclass, field

from mtlrun.comparison.plots.cosines import draw_cosines
from mtlrun.comparison.plots.critical_difference import draw_critical_difference
from mtlrun.comparison.plots.delta_bars import draw_delta_bars
from mtlrun.comparison.plots.picture import NotDrawnError, Picture
from mtlrun.comparison.plots.scatter import draw_scatter
from mtlrun.comparison.plots.training_curves import draw_training_curves
from mtlrun.comparison.plots.view import View
from mtlrun.comparison.plots.weights import draw_weights
from mtlrun.comparison.table import ComparisonTable

#: In the order in which they are read: results first, then how they came about.
_PICTURES: tuple[tuple[str, Callable[[View], Picture]], ...] = (
    ("task against task", draw_scatter),
    ("change against single-task networks", draw_delta_bars),
    ("critical difference", draw_critical_difference),
    ("training curves", draw_training_curves),
    ("task weights", draw_weights),
    ("gradient cosines", draw_cosines),
)


@dataclass
class Drawn:
    """The pictures of a table.

    Args:
        pictures: what could be drawn.
        left_out: a sentence on each picture that could not be.
    """

    pictures: list[Picture] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def draw_all(table: ComparisonTable, reference: str | None = None) -> Drawn:
    """Return all pictures that a table has enough for.

    Args:
        table: what to show.
        reference: name of the row that others are held against, which is drawn in black; None for the one that the
            table tests them against, or else the one that weights tasks equally.

    Raises:
        DataError: Matplotlib is not installed.
    """
    if reference is None and table.against is not None:
        reference = table.against.baseline
    view, drawn = View(table, reference), Drawn()
    for title, draw in _PICTURES:
        try:
            drawn.pictures.append(draw(view))
        except NotDrawnError as reason:
            drawn.left_out.append(f"no picture of {title}: {reason}")
    if view.common:
        values = ", ".join(f"{key}={value}" for key, value in view.common.items())
        for picture in drawn.pictures:
            picture.caption += f" Methods are of {values} if their names have no other."
    return drawn
