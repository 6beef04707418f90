"""Pictures of a comparison, by Matplotlib: one in each file, all drawn from a `ComparisonTable` and the runs in it.

Here: what each picture shows, the style that they have in common, and SVG and PNG files. Not here: numbers, which come
from the table, from `statistics` and from metrics.jsonl.

Contract: a picture is a Matplotlib figure with a title and a caption; what cannot be drawn raises `NotDrawnError`,
which says why. Nothing depends on pyplot or on the user's settings of Matplotlib, and the same table gives the same
file. Matplotlib is an extra (`pip install 'mtlrun[report]'`), imported in the functions that use it.

    for picture in draw_all(table).pictures:
        print(picture.title, picture.caption, to_svg(picture))
"""

from mtlrun.comparison.plots.drawing import Drawn, draw_all
from mtlrun.comparison.plots.files import to_png, to_svg, write_pictures
from mtlrun.comparison.plots.picture import NotDrawnError, Picture
from mtlrun.comparison.plots.view import View

__all__ = ["Drawn", "NotDrawnError", "Picture", "View", "draw_all", "to_png", "to_svg", "write_pictures"]
