"""What the tasks that predict at each pixel have in common: the checks of their targets."""

from collections.abc import Callable

from torch import Tensor

_CHUNK = 64  # samples that are looked at together, so that checking a large split needs little memory


def check_same_pixels(prediction: Tensor, target: Tensor) -> None:
    """Raise ValueError unless both have the same height and width."""
    if prediction.shape[-2:] != target.shape[-2:]:
        found, wanted = (f"{shape[-2]} x {shape[-1]}" for shape in (target.shape, prediction.shape))
        raise ValueError(f"targets are maps of {found} pixels, and predictions of {wanted}")


def find_pixel(target: Tensor, is_wrong: Callable[[Tensor], Tensor]) -> tuple[int, int, int] | None:
    """Return (sample, row, column) of the first pixel that is wrong, None if all are right.

    Args:
        target: [num_samples, ..., height, width].
        is_wrong: from some of the samples to a mask of any shape that ends in [height, width].
    """
    for start in range(0, len(target), _CHUNK):
        part = target[start : start + _CHUNK]
        wrong = is_wrong(part)
        if wrong.any():
            places = wrong.reshape(len(part), -1, *target.shape[-2:]).any(dim=1).nonzero()
            sample, row, column = (int(number) for number in places[0])
            return start + sample, row, column
    return None


def at(place: tuple[int, int, int]) -> str:
    """Return a place that `find_pixel` found in words."""
    sample, row, column = place
    return f"at sample {sample}, pixel [{row}, {column}]"
