"""Cityscapes: street scenes with segmentation and inverse depth, from the .npy files of MTAN's authors."""

from typing import Literal

from mtlrun.config.checks import check_one_of
from mtlrun.config.settings import Protocol
from mtlrun.datasets.base import FileCache
from mtlrun.datasets.files.npy import DenseNpy
from mtlrun.datasets.files.npy_kinds import depth_kind, image_kind, segmentation_kind

Classes = Literal[7, 19]


class Cityscapes(DenseNpy):
    """2 975 images to train on and 500 to test on, 128 x 256 pixels; 7 or 19 classes, and inverse depth.

    Source: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding" (CVPR 2016), as preprocessed
    by Liu et al., "End-to-End Multi-Task Learning with Attention" (CVPR 2019). Files are
    <root>/{train,val}/{image,label_7 or label_19,depth}/<i>.npy, of any numeric type, channels last; images in [0, 1]
    (whole numbers: 0..255). The folder `val` is the test split; the validation split is a share of the folder `train`.

    Samples are an image [3, H, W] and the targets segmentation int64 [H, W], -1 where ignored, and depth [1, H, W]:
    larger is nearer, 0 where invalid.

    Args:
        root: folder that holds `train` and `val`.
        classes: 7 or 19; which of the folders label_7 and label_19 is read.
        augment: crop, scale and flip training images at random, see `mtlrun.datasets.files.augmentation`.
        cache: `memory` reads everything once, before training, into 2.7 GB; `none` reads each sample when it is needed.
        val_fraction: share of the folder `train` that is the validation split, in (0, 1).
        split_seed: fixes which images those are; the run's seed does not.
        protocol: `standard` selects on the validation split and evaluates the test split once; `legacy` is what the
            literature prints: all of the folder `train` is trained on, the test split is evaluated on the way, and the
            result is the mean over the last 10 evaluations, marked as test-selected; val_fraction and split_seed then
            have no effect.
    """

    def __init__(
        self,
        root: str,
        classes: Classes = 7,
        augment: bool = True,
        cache: FileCache = "none",
        val_fraction: float = 0.1,
        split_seed: int = 0,
        protocol: Protocol = "standard",
    ) -> None:
        check_one_of("classes", classes, Classes)
        kinds = {
            "image": image_kind(),
            "segmentation": segmentation_kind(f"label_{classes}", classes),
            "depth": depth_kind(),
        }
        super().__init__(
            "cityscapes",
            root,
            kinds,
            inverse_depth=True,
            augment=augment,
            cache=cache,
            val_fraction=val_fraction,
            split_seed=split_seed,
            protocol=protocol,
        )
