"""Pairs of images that overlap on one canvas, as in MultiMNIST: one at the upper left, one at the lower right."""

import numpy
import torch
from torch import Tensor
from torch.nn.functional import interpolate


def draw_partners(random: numpy.random.Generator, count: int, repeats: int = 1) -> numpy.ndarray:
    """Return the index of a random partner for each of `count` images, `repeats` times."""
    # A partner is any other image: 1..n-1 steps further, modulo n.
    steps = random.integers(1, count, size=repeats * count)
    return (numpy.tile(numpy.arange(count), repeats) + steps) % count


def overlay(left: Tensor, right: Tensor, *, shift: int, canvas_side: int, size: int, mode: str) -> Tensor:
    """Overlay pairs of images, taking the brighter pixel, and resize the canvas; return [n, 1, size, size].

    Args:
        left, right: [n, side, side]; the left ones lie at [0, side), the right ones at [shift, shift + side) of both
            directions.
        shift: in pixels.
        canvas_side: side of the black canvas in pixels, `shift` + side or more.
        size: side of the resized canvas in pixels.
        mode: of `torch.nn.functional.interpolate`.
    """
    side = left.shape[-1]
    canvas = torch.zeros(len(left), 1, canvas_side, canvas_side, dtype=left.dtype)
    canvas[:, 0, :side, :side] = left
    corner = canvas[:, 0, shift : shift + side, shift : shift + side]
    corner.copy_(torch.maximum(corner, right))
    return interpolate(canvas, (size, size), mode=mode)
