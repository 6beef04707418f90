"""Datasets: samples with labels for several tasks on the same inputs, and the batches made of them.

Here: one file per dataset; in `batches` how samples are drawn and fetched, in `files` the formats, in `tables` the
tables of labels, in `generation` what rendered and composed datasets share.
Not here: what a label means and how it is checked (`tasks`), the masking of unlabeled samples (`training.batch`), or
the loaders of a run (`setup.loaders`).

Contract: a `MultiTaskDataset` is built from its config alone and knows neither the device nor the run's seed: the
content of a split is the same in every run. The order of samples and their augmentation depend on the seed, the epoch
and the position alone, so that a continued run sees the same batches. A missing label has the value that its task
reserves for it. A split without a list of sources, sample IDs or sample weights has None in their place.
"""

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
    from mtlrun.datasets.input_columns import InputColumn as InputColumn
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
