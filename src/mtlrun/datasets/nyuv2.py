"""NYUv2: indoor scenes with segmentation, depth and surface normals, from the .npy files of MTAN's authors."""

from mtlrun.config.settings import Protocol
from mtlrun.datasets.base import FileCache
from mtlrun.datasets.files.npy import DenseNpy
from mtlrun.datasets.files.npy_kinds import depth_kind, image_kind, normals_kind, segmentation_kind


class NYUv2(DenseNpy):
    """795 images to train on and 654 to test on, 288 x 384 pixels; 13 classes, depth and surface normals.

    Source: Silberman et al., "Indoor Segmentation and Support Inference from RGBD Images" (ECCV 2012), as preprocessed
    by Liu et al., "End-to-End Multi-Task Learning with Attention" (CVPR 2019). Files are
    <root>/{train,val}/{image,label,depth,normal}/<i>.npy, of any numeric type, channels last; images in [0, 1] (whole
    numbers: 0..255). The folder `val` is the test split; the validation split is a share of the folder `train`, drawn
    without regard to which rooms were filmed together.

    Samples are an image [3, H, W] and the targets segmentation int64 [H, W], -1 where ignored; depth [1, H, W] in
    metres, 0 where invalid; normals [3, H, W], zero vectors where invalid.

    Args:
        root: folder that holds `train` and `val`.
        augment: crop, scale and flip training images at random, see `mtlrun.datasets.files.augmentation`.
        cache: `memory` reads everything once, before training, into 6 GB; `none` reads each sample when it is needed.
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
        augment: bool = True,
        cache: FileCache = "none",
        val_fraction: float = 0.1,
        split_seed: int = 0,
        protocol: Protocol = "standard",
    ) -> None:
        kinds = {
            "image": image_kind(),
            "segmentation": segmentation_kind("label", 13),
            "depth": depth_kind(),
            "normals": normals_kind(),
        }
        super().__init__(
            "nyuv2",
            root,
            kinds,
            inverse_depth=False,
            augment=augment,
            cache=cache,
            val_fraction=val_fraction,
            split_seed=split_seed,
            protocol=protocol,
        )
