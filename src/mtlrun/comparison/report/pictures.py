"""The pictures of a table, as far as there is room for them and something to draw."""

from mtlrun.comparison.plots import draw_all, to_svg
from mtlrun.comparison.report.document import Block, Picture, Points
from mtlrun.comparison.report.references import References
from mtlrun.comparison.table import ComparisonTable
from mtlrun.errors import DataError

#: Characters that the pictures of a table may have, so that a report stays small.
MOST = 1_000_000


def pictures(table: ComparisonTable, references: References, *, alone: bool, prefix: str = "") -> list[Block]:
    """Return the pictures, and why others are left out.

    Args:
        table: what they show.
        references: the row that the others are held against is drawn in black.
        alone: whether each becomes a file of its own.
        prefix: what their names begin with, so that they differ from those of other tables.
    """
    chosen = references.chosen.baseline if references.chosen is not None else None
    try:
        drawn = draw_all(table, chosen)
    except DataError as error:  # Matplotlib is not installed
        return [Points([str(error)], small=True)]
    blocks: list[Block] = []
    left_out, room = list(drawn.left_out), MOST
    for picture in drawn.pictures:
        picture.name = prefix + picture.name  # before the conversion: ids in the SVG begin with it
        svg = to_svg(picture, alone=alone)
        if len(svg) > room:
            left_out.append(f"{picture.title}: too large for this file")
            continue
        room -= len(svg)
        blocks.append(Picture(svg, picture.title, picture.caption, picture.name))
    return [*blocks, Points(left_out, small=True)] if left_out else blocks
