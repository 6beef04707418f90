"""Checks of targets and predictions for the tasks that predict at each pixel."""

from collections.abc import Callable

from torch import Tensor

_CHUNK = 64  # samples checked together, so that checking a large split needs little memory


def check_same_pixels(prediction: Tensor, target: Tensor) -> None:
    """Raise ValueError unless both have the same height and width."""
    if prediction.shape[-2:] != target.shape[-2:]:
        target_size, prediction_size = (f"{shape[-2]} x {shape[-1]}" for shape in (target.shape, prediction.shape))
        raise ValueError(f"targets are maps of {target_size} pixels, and predictions of {prediction_size}")


def find_pixel(target: Tensor, is_invalid: Callable[[Tensor], Tensor]) -> tuple[int, int, int] | None:
    """Return (sample, row, column) of the first invalid pixel, None if all are valid.

    Args:
        target: [num_samples, ..., height, width].
        is_invalid: maps a chunk of samples to a mask of any shape that ends in [height, width].
    """
    for start in range(0, len(target), _CHUNK):
        chunk = target[start : start + _CHUNK]
        invalid = is_invalid(chunk)
        if invalid.any():
            pixels = invalid.reshape(len(chunk), -1, *target.shape[-2:]).any(dim=1).nonzero()
            sample, row, column = (int(index) for index in pixels[0])
            return start + sample, row, column
    return None


def describe_pixel(pixel: tuple[int, int, int]) -> str:
    """Return the position that `find_pixel` found in words, for an error message."""
    sample, row, column = pixel
    return f"at sample {sample}, pixel [{row}, {column}]"
