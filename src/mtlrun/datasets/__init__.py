"""Datasets: one file each, and the loader that gives their batches."""

from mtlrun.datasets.base import SPLITS, MultiTaskDataset, SplitName, TensorSplit
from mtlrun.datasets.batches.fetching import Batch, Loaded
from mtlrun.datasets.batches.loading import Loader
from mtlrun.datasets.batches.sampling import Sampling
from mtlrun.datasets.celeba import CelebA
from mtlrun.datasets.cifar10_voc import Cifar10VOC
from mtlrun.datasets.cityscapes import Cityscapes
from mtlrun.datasets.images import Images
from mtlrun.datasets.multidigits import MultiDigits
from mtlrun.datasets.multimnist import MultiMNIST
from mtlrun.datasets.nyuv2 import NYUv2
from mtlrun.datasets.office import Office
from mtlrun.datasets.omniglot import OmniglotAlphabets
from mtlrun.datasets.oxford_pets import OxfordPets
from mtlrun.datasets.scenes import Scenes
from mtlrun.datasets.table import Table
from mtlrun.datasets.tox21 import Tox21
from mtlrun.datasets.toys import GradNormToy, KendallToy, MMoESynthetic
from mtlrun.datasets.without_data import NoData

__all__ = [
    "SPLITS",
    "Batch",
    "CelebA",
    "Cifar10VOC",
    "Cityscapes",
    "GradNormToy",
    "Images",
    "KendallToy",
    "Loaded",
    "Loader",
    "MMoESynthetic",
    "MultiDigits",
    "MultiMNIST",
    "MultiTaskDataset",
    "NYUv2",
    "NoData",
    "Office",
    "OmniglotAlphabets",
    "OxfordPets",
    "Sampling",
    "Scenes",
    "SplitName",
    "Table",
    "TensorSplit",
    "Tox21",
]
