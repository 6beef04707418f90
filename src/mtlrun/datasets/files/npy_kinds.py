"""Kinds of .npy files, of images and of dense labels: their shapes, and which values are allowed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from torch import Tensor

from mtlrun.errors import DataError


def map_file(path: Path, where: str = "") -> numpy.ndarray:
    """Map a file into memory without reading its values. `where` names the sample in errors."""
    try:
        array = numpy.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}{where}: not a readable .npy file: {error}") from error
    if not (isinstance(array, numpy.ndarray) and array.dtype.kind in "biuf"):
        raise DataError(f"{path}{where}: must hold an array of numbers, found {getattr(array, 'dtype', type(array))}")
    return array


@dataclass(frozen=True)
class Kind:
    """The kind of the files in one folder.

    Args:
        folder: its name.
        shape: of the tensor made from a file, without height and width: () for a map, (3,) for three channels.
        dtype: of that tensor.
        problem: a function from that tensor to a sentence on what is wrong with its values, or None.
        integer_scale: divides the values of files that hold whole numbers.
    """

    folder: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    problem: Callable[[Tensor], str | None]
    integer_scale: float = 1

    def open(self, path: Path, size: tuple[int, int], where: str) -> numpy.ndarray:
        """Map a file into memory, [height, width, channels], without reading its values."""
        array = map_file(path, where)
        channels = self.shape[0] if self.shape else 1
        allowed = [(*size, channels)] + ([size] if channels == 1 else [])
        if array.shape not in allowed:
            shapes = " or ".join(map(str, allowed))
            raise DataError(f"{path}{where}: must be of shape {shapes}, found {array.shape}")
        return array.reshape(*size, channels)

    def read(self, path: Path, size: tuple[int, int], where: str) -> Tensor:
        """Read a file, check its values, and return them as a tensor [*shape, height, width]."""
        array = self.open(path, size, where)
        values = torch.from_numpy(numpy.array(array.transpose(2, 0, 1), numpy.float32, order="C"))
        if array.dtype.kind in "iu" and self.integer_scale != 1:
            values /= self.integer_scale
        problem = self.problem(values)
        if problem is not None:
            raise DataError(f"{path}{where}: {problem}")
        return values.reshape(*self.shape, *size).to(self.dtype)


def _image_problem(image: Tensor) -> str | None:
    low, high = (float(number) for number in image.aminmax())
    valid = low >= -1e-3 and high <= 1 + 1e-3  # False for NaN
    return None if valid else f"floating-point images must be in [0, 1], found {low:g}..{high:g}"


def _depth_problem(depth: Tensor) -> str | None:
    wrong = depth[(depth < 0) | depth.isinf()]
    return f"depths must be finite and >= 0, 0 where invalid, found {float(wrong[0]):g}" if len(wrong) else None


def _normals_problem(normals: Tensor) -> str | None:
    # Not norm(), which is several times slower along the first axis.
    length = float((normals * normals).sum(dim=0).nan_to_num().max()) ** 0.5
    return f"normals must have length 1, or 0 where invalid, found {length:g}" if length > 1.01 else None


@dataclass(frozen=True)
class _ClassProblem:
    """The check of class indices; a class, so that it can be pickled for a worker process."""

    num_classes: int

    def __call__(self, classes: Tensor) -> str | None:
        wrong = classes[~((classes >= -1) & (classes < self.num_classes) & (classes == classes.round()))]
        allowed = f"0..{self.num_classes - 1}, or -1 where ignored"
        return f"classes must be in {allowed}, found {float(wrong[0]):g}" if len(wrong) else None


#: RGB images; whole numbers are bytes.
IMAGE = Kind("image", (3,), torch.float32, _image_problem, integer_scale=255)
#: Depths or inverse depths.
DEPTH = Kind("depth", (1,), torch.float32, _depth_problem)
#: Surface normals.
NORMALS = Kind("normal", (3,), torch.float32, _normals_problem)


def segmentation(folder: str, num_classes: int) -> Kind:
    """Return the kind of class indices, -1 where ignored."""
    return Kind(folder, (), torch.int64, _ClassProblem(num_classes))
