"""One picture of a comparison, and the error of one that cannot be drawn."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtlrun.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Begins the gid of an artist whose further text appears in an SVG where the mouse is over it.
TIP = "tip:"


@dataclass
class Picture:
    """One picture.

    Args:
        name: of its file, without suffix, such as `training-curves`; the ids inside its SVG begin with it.
        title: a few words.
        caption: sentences on what is shown and how it is read, and on what is not shown.
        figure: the drawing.
    """

    name: str
    title: str
    caption: str
    figure: "Figure"


class NotDrawnError(DataError):
    """Raised where a table has nothing for a picture; the message says why, after the title of the picture."""
