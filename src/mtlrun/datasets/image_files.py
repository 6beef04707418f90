"""Images in ordinary files, decoded when they are asked for."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from mtlrun.datasets.base import Sample
from mtlrun.errors import DataError

# Of ImageNet's training images, in [0, 1]: what torchvision's pretrained networks were trained with.
_MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
_STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def decode(path: Path, size: int, where: str, *, labels: bool = False) -> numpy.ndarray:
    """Return an image as bytes [size, size, 3], or as whole numbers [size, size] where it holds labels.

    Its sides are scaled each by a factor of its own. `where` says in errors which sample this is.
    """
    try:
        with Image.open(path) as image:
            if labels:
                return numpy.array(image.resize((size, size), Image.Resampling.NEAREST))
            image.draft("RGB", (size, size))  # a JPEG that is larger is decoded at a half or less: faster
            return numpy.array(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
    # What Pillow raises for a broken file depends on its format.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} ({where}): not a readable image: {error}") from error


def find_missing(folder: Path, names: Iterable[str], advice: str) -> None:
    """Raise DataError unless `folder` holds files of all these names."""
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    missing = [name for name in names if name not in present]
    if missing:
        raise DataError(f"{folder} lacks {len(missing)} of the listed files, such as {missing[0]}; {advice}")


class ImageFiles(Dataset[Sample]):
    """A split of images [3, size, size] in files, with a class for each task.

    Args:
        name: of the split, for errors.
        paths: one for each sample.
        targets: {task: int64 [num_samples]}, -1 where a label is missing.
        size: side of the images.
        imagenet_normalisation: subtract ImageNet's mean and divide by its standard deviation; else in [0, 1].
        sources: {source: indices of its samples}, where each sample belongs to one of several.
    """

    def __init__(
        self,
        name: str,
        paths: Sequence[Path],
        targets: Mapping[str, Tensor],
        size: int,
        *,
        imagenet_normalisation: bool,
        sources: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.paths = paths
        self.targets = dict(targets)
        if sources is not None:
            self.sources = dict(sources)
        self._name = name
        self._size = size
        self._normalise = imagenet_normalisation
        self._rows = torch.stack(list(targets.values()), dim=1).numpy()

    def __len__(self) -> int:
        return len(self.paths)

    def where(self, index: int) -> str:
        """Return which sample this is in words."""
        return f"sample {index} of the {self._name} split"

    def image(self, index: int) -> Tensor:
        """Decode one image."""
        pixels = torch.from_numpy(decode(self.paths[index], self._size, self.where(index)))
        image = pixels.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
        return image.sub_(_MEAN).div_(_STD) if self._normalise else image

    def __getitem__(self, index: int) -> Sample:
        # Plain numbers: stacking tensors of one number each would take longer than decoding, with many tasks.
        return self.image(index), dict(zip(self.targets, self._rows[index].tolist(), strict=True))
