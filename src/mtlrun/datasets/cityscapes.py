"""Cityscapes: street scenes with segmentation and inverse depth, from the .npy files of MTAN's authors."""

from typing import Any, Literal

from mtlrun.config.checks import check_one_of
from mtlrun.datasets.files.npy import DenseNpy
from mtlrun.datasets.files.npy_kinds import DEPTH, IMAGE, segmentation

Classes = Literal[7, 19]


class Cityscapes(DenseNpy):
    """2 975 images to train on and 500 to test on, 128 x 256 pixels; 7 or 19 classes, and inverse depth.

    Source: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding" (CVPR 2016), as preprocessed
    by Liu et al., "End-to-End Multi-Task Learning with Attention" (CVPR 2019). Files are
    <root>/{train,val}/{image,label_7 or label_19,depth}/<i>.npy, 2.7 GB in memory.

    Samples are an image [3, H, W] and the targets segmentation int64 [H, W], -1 where ignored, and depth [1, H, W]:
    larger is nearer, 0 where invalid.

    Args:
        root: folder that holds `train` and `val`.
        classes: 7 or 19: which of the folders label_7 and label_19 is read.
        **common: see `DenseNpy`.
    """

    name = "cityscapes"
    inverse_depth = True

    def __init__(self, root: str, classes: Classes = 7, **common: Any) -> None:
        check_one_of("classes", classes, Classes)
        self.kinds = {"image": IMAGE, "segmentation": segmentation(f"label_{classes}", classes), "depth": DEPTH}
        super().__init__(root, **common)
