"""A grid of images with captions of its rows and a legend of its colors."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

import torch
from torch import Tensor

from mtlrun.tasks.base import Legend

if TYPE_CHECKING:  # slow to import, and most runs draw nothing
    from PIL.ImageFont import FreeTypeFont, ImageFont

#: The key of the text in the PNG that has where the grid is: "left top right bottom scale", in pixels.
GRID = "grid"
_LOWEST_ROW, _NARROWEST, _PADDING, _SWATCH = 16, 240, 4, 10  # pixels
_MOST_ENTRIES = 40
# Words, x, y below the grid, and the color of the swatch; None for none.
_Placed = tuple[str, int, int, tuple[float, ...] | None]


@dataclass(frozen=True)
class Picture:
    """Rows of images of the same samples.

    Args:
        grid: [3, height, width], bytes.
        captions: of the rows, from above.
        legend: what colors mean.
    """

    grid: Tensor
    captions: Sequence[str]
    legend: Legend = field(default_factory=list)

    def write_png(self, file: BinaryIO) -> tuple[int, int]:
        """Write the grid with captions to its left and the legend below; return the width and height.

        Small images are enlarged, so that a caption fits beside a row.
        """
        from PIL import Image, ImageDraw, ImageFont
        from PIL.PngImagePlugin import PngInfo

        scale = -(-_LOWEST_ROW * len(self.captions) // self.grid.shape[1])
        pixels = self.grid.repeat_interleave(scale, 1).repeat_interleave(scale, 2).permute(1, 2, 0).contiguous()
        grid = Image.fromarray(pixels.to(torch.uint8).numpy())
        font = ImageFont.load_default()
        left = 2 * _PADDING + max(round(font.getlength(caption)) for caption in self.captions)
        width = max(left + grid.width, _NARROWEST)
        entries = self._place_legend(font, width)
        height = grid.height + (entries[-1][2] + _SWATCH + _PADDING if entries else 0)
        image = Image.new("RGB", (width, height), "white")
        image.paste(grid, (left, 0))
        pen = ImageDraw.Draw(image)
        for row, caption in enumerate(self.captions):
            middle = (row + 0.5) * grid.height / len(self.captions)
            pen.text((_PADDING, middle - _SWATCH / 2 - 1), caption, "black", font)
        for words, x, y, color in entries:
            top = grid.height + y
            if color is not None:
                fill = tuple(round(255 * channel) for channel in color)
                pen.rectangle((x, top, x + _SWATCH - 1, top + _SWATCH - 1), fill, outline="black")
            pen.text((x + _SWATCH + _PADDING, top - 1), words, "black", font)
        about = PngInfo()
        about.add_text(GRID, f"{left} 0 {left + grid.width} {grid.height} {scale}")
        image.save(file, "PNG", pnginfo=about)
        return image.size

    def _place_legend(
        self, font: "FreeTypeFont | ImageFont", width: int
    ) -> list[tuple[str, int, int, tuple[float, ...] | None]]:
        """Return (words, x, y below the grid, color) of each entry of the legend, in lines of at most `width`."""
        shown: list[tuple[str, tuple[float, ...] | None]] = list(self.legend[:_MOST_ENTRIES])
        if len(self.legend) > _MOST_ENTRIES:
            shown.append((f"and {len(self.legend) - _MOST_ENTRIES} more", None))
        placed = []
        x = y = _PADDING
        for words, color in shown:
            needed = _SWATCH + 3 * _PADDING + round(font.getlength(words))
            if x + needed > width and x > _PADDING:
                x, y = _PADDING, y + _SWATCH + _PADDING
            placed.append((words, x, y, color))
            x += needed
        return placed
