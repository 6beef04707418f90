"""The style of all pictures: sizes, text, colors, markers and lines that can be told apart in print and on dark pages.

Black is the color of the text around a picture: SVG files have `currentColor` in its place. The other colors are those
of Okabe & Ito, "Color Universal Design" (2008), which people with any color vision can tell apart, without the two that
are too light on white. No color is the only difference: each method has its own pair of marker and line as well.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mtlrun.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Inches; a column of a paper with two columns, and both of them.
COLUMN, PAGE = 3.5, 7.0
#: Points.
TEXT, SMALL = 8.0, 7.0
#: On white as on near-black, each has a contrast of at least 3, what WCAG 2.2 asks of graphics (criterion 1.4.11).
INK, GRAY = "#000000", "#858585"
#: Opacity of text that is less important than other text.
FAINT = 0.65
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1, 1, 1, 1, 1)))

_SETTINGS = {
    "font.family": ["DejaVu Sans"],
    "font.size": TEXT,
    "axes.labelsize": TEXT,
    "axes.titlesize": TEXT,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 4.0,
    "text.parse_math": False,  # a $ in the name of a task is a $
    "axes.formatter.use_mathtext": False,
    "axes.formatter.useoffset": False,
    "figure.dpi": 72,  # a pixel is a point, the unit of all lengths
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "mtlrun",
}


def require_matplotlib() -> Any:
    """Return the library.

    Raises:
        DataError: it is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise DataError(
            "pictures need the library matplotlib, which is not installed: pip install 'mtlrun[report]'"
        ) from None
    return matplotlib


@contextmanager
def styled() -> Iterator[None]:
    """Draw, or save, in this style, whatever the user's own settings are; also a decorator.

    Raises:
        DataError: Matplotlib is not installed.
    """
    matplotlib = require_matplotlib()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the reader's fonts may have it
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of a size in inches, which arranges its parts by itself."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # which measures texts
    return figure


def arrange(figure: "Figure") -> None:
    """Give the parts of a figure their final places, which names and files depend on."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def panel_grid(count: int, height: float) -> "tuple[Figure, list[Any]]":
    """Return a figure with some panels, one in a column or two beside each other, each as high as is said."""
    columns = 1 if count == 1 else 2
    rows = -(-count // columns)
    figure = new_figure(COLUMN * columns, height * rows)
    return figure, [figure.add_subplot(rows, columns, index + 1) for index in range(count)]
