"""What the .npy files of images and of their labels at each pixel hold: shapes, and which values are allowed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from torch import Tensor

from mtlrun.errors import DataError


def map_file(path: Path, where: str = "") -> numpy.ndarray:
    """Map a file into memory; its values are not read. `where` is for errors."""
    try:
        array = numpy.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}{where}: not a readable .npy file: {error}") from error
    if not (isinstance(array, numpy.ndarray) and array.dtype.kind in "biuf"):
        raise DataError(f"{path}{where}: must hold an array of numbers, found {getattr(array, 'dtype', type(array))}")
    return array


@dataclass(frozen=True)
class Kind:
    """What one of the folders holds.

    Args:
        folder: its name.
        shape: of a tensor made from a file, without height and width: () for a map, (3,) for three channels.
        dtype: of that tensor.
        problem: from such a tensor to what is wrong with its values, or None.
    """

    folder: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    problem: Callable[[Tensor], str | None]

    def open(self, path: Path, size: tuple[int, int], where: str) -> numpy.ndarray:
        """Map a file into memory, [height, width, channels]; its values are not read. `where` is for errors."""
        array = map_file(path, where)
        channels = self.shape[0] if self.shape else 1
        allowed = [(*size, channels)] + ([size] if channels == 1 else [])
        if array.shape not in allowed:
            shapes = " or ".join(map(str, allowed))
            raise DataError(f"{path}{where}: must be of shape {shapes}, found {array.shape}")
        return array.reshape(*size, channels)

    def read(self, path: Path, size: tuple[int, int], where: str) -> Tensor:
        """Return a file as a tensor whose values have been checked, [*shape, height, width]."""
        array = self.open(path, size, where)
        found = torch.from_numpy(numpy.array(array.transpose(2, 0, 1), numpy.float32, order="C"))
        if self.folder == "image" and array.dtype.kind in "iu":
            found /= 255  # whole numbers are bytes of an image
        problem = self.problem(found)
        if problem is not None:
            raise DataError(f"{path}{where}: {problem}")
        return found.reshape(*self.shape, *size).to(self.dtype)


def _image_problem(image: Tensor) -> str | None:
    low, high = (float(number) for number in image.aminmax())
    fine = low >= -1e-3 and high <= 1 + 1e-3  # also false of a NaN
    return None if fine else f"floating-point images must be in [0, 1], found {low:g}..{high:g}"


def _depth_problem(depth: Tensor) -> str | None:
    wrong = depth[(depth < 0) | depth.isinf()]
    return f"depths must be finite and >= 0, 0 where invalid, found {float(wrong[0]):g}" if len(wrong) else None


def _normals_problem(normals: Tensor) -> str | None:
    # By hand, since norm() along the first axis is several times slower.
    length = float((normals * normals).sum(dim=0).nan_to_num().max()) ** 0.5
    return f"normals must have length 1, or 0 where invalid, found {length:g}" if length > 1.01 else None


def image_kind() -> Kind:
    """Return the kind of the inputs."""
    return Kind("image", (3,), torch.float32, _image_problem)


def segmentation_kind(folder: str, num_classes: int) -> Kind:
    """Return the kind of class indices."""
    return Kind(folder, (), torch.int64, _ClassProblem(num_classes))


@dataclass(frozen=True)
class _ClassProblem:
    """As a class, since a worker process may have to be sent it."""

    num_classes: int

    def __call__(self, classes: Tensor) -> str | None:
        wrong = classes[~((classes >= -1) & (classes < self.num_classes) & (classes == classes.round()))]
        allowed = f"0..{self.num_classes - 1}, or -1 where ignored"
        return f"classes must be in {allowed}, found {float(wrong[0]):g}" if len(wrong) else None


def depth_kind() -> Kind:
    """Return the kind of depths and inverse depths."""
    return Kind("depth", (1,), torch.float32, _depth_problem)


def normals_kind() -> Kind:
    """Return the kind of surface normals."""
    return Kind("normal", (3,), torch.float32, _normals_problem)
