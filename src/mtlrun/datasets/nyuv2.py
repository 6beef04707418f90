"""NYUv2: indoor scenes with segmentation, depth and surface normals, from the .npy files of MTAN's authors."""

from collections.abc import Mapping

from mtlrun.datasets.files.npy import DenseNpy
from mtlrun.datasets.files.npy_kinds import DEPTH, IMAGE, NORMALS, Kind, segmentation


class NYUv2(DenseNpy):
    """795 images to train on and 654 to test on, 288 x 384 pixels; 13 classes, depth and surface normals.

    Source: Silberman et al., "Indoor Segmentation and Support Inference from RGBD Images" (ECCV 2012), as preprocessed
    by Liu et al., "End-to-End Multi-Task Learning with Attention" (CVPR 2019). Files are
    <root>/{train,val}/{image,label,depth,normal}/<i>.npy, 6 GB in memory. The validation split is drawn without regard
    to which rooms were filmed together.

    Samples are an image [3, H, W] and the targets segmentation int64 [H, W], -1 where ignored; depth [1, H, W] in
    meters, 0 where invalid; normals [3, H, W], zero vectors where invalid. The arguments are those of `DenseNpy`.
    """

    name = "nyuv2"
    kinds: Mapping[str, Kind] = {
        "image": IMAGE,
        "segmentation": segmentation("label", 13),
        "depth": DEPTH,
        "normals": NORMALS,
    }
