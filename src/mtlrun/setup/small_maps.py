"""Images that are too small for their backbone: its last convolutions then see little but padding."""

from torch import nn

from mtlrun.models.backbones import Backbone


def describe_small_maps(model: nn.Module, name: str) -> list[str]:
    """Return a sentence if the maps of a backbone shrink to a single pixel; nothing otherwise.

    A 3x3 convolution there has eight of nine weights on padding, so what its stage adds is little more than a layer on
    a vector.

    Args:
        model: with backbones among its modules.
        name: of the backbone's option.
    """
    for backbone in model.modules():
        if not isinstance(backbone, Backbone) or len(backbone.input_shape) != 3:
            continue
        shapes = backbone.stage_shapes
        single = [number for number, shape in enumerate(shapes, start=1) if len(shape) == 3 and max(shape[1:]) == 1]
        if single:
            height, width = backbone.input_shape[1:]
            stages = f"stage {single[0]}" if len(single) == 1 else f"stages {single[0]} to {single[-1]}"
            return [
                f"images of {height} x {width} are small for backbone={name}: the maps of {stages} of {len(shapes)} "
                "are single pixels, where 3x3 convolutions see padding; use larger images, "
                "backbone.stem=small of a ResNet, or backbone=convnet"
            ]
    return []
