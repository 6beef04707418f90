"""Datasets: one file each, and the loader of their batches."""

from typing import TYPE_CHECKING

from mtlrun.lazy import lazy_exports

if TYPE_CHECKING:
    from mtlrun.datasets.base import SPLITS as SPLITS
    from mtlrun.datasets.base import MultiTaskDataset as MultiTaskDataset
    from mtlrun.datasets.base import Split as Split
    from mtlrun.datasets.base import SplitName as SplitName
    from mtlrun.datasets.base import TensorSplit as TensorSplit
    from mtlrun.datasets.batches.fetching import Batch as Batch
    from mtlrun.datasets.batches.fetching import Loaded as Loaded
    from mtlrun.datasets.batches.loading import Loader as Loader
    from mtlrun.datasets.batches.sampling import Sampling as Sampling
    from mtlrun.datasets.celeba import CelebA as CelebA
    from mtlrun.datasets.cifar10_voc import Cifar10VOC as Cifar10VOC
    from mtlrun.datasets.cityscapes import Cityscapes as Cityscapes
    from mtlrun.datasets.images import Images as Images
    from mtlrun.datasets.multidigits import MultiDigits as MultiDigits
    from mtlrun.datasets.multimnist import MultiMNIST as MultiMNIST
    from mtlrun.datasets.nyuv2 import NYUv2 as NYUv2
    from mtlrun.datasets.office import Office as Office
    from mtlrun.datasets.omniglot import OmniglotAlphabets as OmniglotAlphabets
    from mtlrun.datasets.oxford_pets import OxfordPets as OxfordPets
    from mtlrun.datasets.scenes import Scenes as Scenes
    from mtlrun.datasets.table import Table as Table
    from mtlrun.datasets.tox21 import Tox21 as Tox21
    from mtlrun.datasets.toys import GradNormToy as GradNormToy
    from mtlrun.datasets.toys import KendallToy as KendallToy
    from mtlrun.datasets.toys import MMoESynthetic as MMoESynthetic
    from mtlrun.datasets.without_data import NoData as NoData
else:
    __all__, __getattr__, __dir__ = lazy_exports(__name__)
