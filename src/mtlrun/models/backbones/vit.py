"""Vision transformers made of torchvision's blocks."""

import math
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.vision_transformer import EncoderBlock

from mtlrun.config.bounds import Bounds, FractionBelowOne, Parts, Pixels, Width, WidthFactor, checked
from mtlrun.config.checks import check_one_of
from mtlrun.models.backbones.base import Backbone
from mtlrun.models.backbones.pretrained import check_images, check_pretrained, fill, read_weights
from mtlrun.models.backbones.width import widened

Size = Literal["mini", "b_16", "b_32", "l_16", "l_32", "h_14"]
NUM_STAGES = 4


class Config(NamedTuple):
    """The dimensions that a size stands for."""

    patch_size: int
    dim: int
    depth: int
    heads: int


SIZES = {
    "mini": Config(4, 128, 8, 4),
    "b_16": Config(16, 768, 12, 12),
    "b_32": Config(32, 768, 12, 12),
    "l_16": Config(16, 1024, 24, 16),
    "l_32": Config(32, 1024, 24, 16),
    "h_14": Config(14, 1280, 32, 16),
}


class ViT(Backbone):
    """A vision transformer without a class token, so that every stage returns a map of the patches.

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words" (ICLR 2021), equations 1 to 3, table 1 for the sizes.
    Four stages of about depth / 4 blocks each; the first begins with the patch and position embeddings, the last ends
    with the LayerNorm. All return [batch, dim, height / patch_size, width / patch_size]. Departure: the paper
    classifies by a class token; here heads take the mean over the patches or work on the map. The token and its
    position embedding are dropped from pretrained weights (the patches attended to it, so fine-tuning is needed), and
    position embeddings are interpolated if images differ in size from those of pretraining.

    Args:
        input_shape: (channels, height, width); height and width are multiples of the patch size.
        size: `b_16` to `h_14` of the paper and torchvision, or `mini` for small images, which is our choice (patches of
            4 x 4 pixels, dim 128, depth 8, 4 heads).
        patch_size: side of a patch in pixels; None for that of the size, as for the next three arguments.
        dim: channels, a multiple of the number of heads.
        depth: number of blocks, 4 or more.
        heads: number of attention heads.
        mlp_ratio: width of the blocks' hidden layer as a multiple of dim. Paper: 4.
        dropout: probability, in [0, 1), on embeddings, after the attention and in the hidden layers. torchvision's: 0.
        width: factor on dim, rounded to a multiple of the number of heads; hidden layers follow.
        weights: pretrained weights, see `pretrained.read_weights`; None for random ones.
    """

    @checked
    def __init__(
        self,
        input_shape: tuple[int, ...],
        size: Size = "mini",
        patch_size: Pixels | None = None,
        dim: Width | None = None,
        depth: Parts | None = None,
        heads: Parts | None = None,
        mlp_ratio: Annotated[float, Bounds(0, 1000, open_low=True, limit=True)] = 4.0,
        dropout: FractionBelowOne = 0.0,
        width: WidthFactor = 1.0,
        weights: str | None = None,
    ) -> None:
        check_one_of("size", size, Size)
        given = {"patch_size": patch_size, "dim": dim, "depth": depth, "heads": heads}
        config = SIZES[size]._replace(**{key: value for key, value in given.items() if value is not None})
        _check(config)
        channels = config.heads * widened([config.dim // config.heads], width)[0]
        check_images("vit", input_shape, smallest=config.patch_size)
        if any(side % config.patch_size for side in input_shape[1:]):
            raise ValueError(
                f"patch_size must divide the height and width of images, found {config.patch_size} and "
                f"inputs of shape {tuple(input_shape)}"
            )
        if weights is not None and size == "mini":
            raise ValueError("weights need a size of torchvision's (b_16, b_32, l_16, l_32 or h_14), found size=mini")
        pairs = {name: (getattr(config, name), needed) for name, needed in SIZES[size]._asdict().items()}
        check_pretrained(weights, input_shape, **pairs, mlp_ratio=(mlp_ratio, 4.0), width=(width, 1.0))
        patches = Patches(input_shape, config.patch_size, channels, dropout)
        blocks = nn.Sequential(
            *(
                EncoderBlock(config.heads, channels, max(1, round(channels * mlp_ratio)), dropout, 0.0)
                for _ in range(config.depth)
            )
        )
        norm = nn.LayerNorm(channels, eps=1e-6)
        if weights is not None:
            _load(weights, f"vit_{size}", patches, blocks, norm)
        ends = [index * config.depth // NUM_STAGES for index in range(NUM_STAGES + 1)]
        groups = [nn.Sequential(*blocks[start:end]) for start, end in pairwise(ends)]
        groups[-1].append(norm)
        stages: list[nn.Module] = [OnMaps(group) for group in groups]
        stages[0] = nn.Sequential(patches, stages[0])
        super().__init__(stages, input_shape)


class Patches(nn.Module):
    """The sum of a linear map of each patch and an embedding of its position (equation 1).

    Args:
        input_shape: (channels, height, width).
        patch_size: side of a patch in pixels.
        dim: channels of the result.
        dropout: probability.
    """

    def __init__(self, input_shape: tuple[int, ...], patch_size: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.projection = nn.Conv2d(input_shape[0], dim, patch_size, stride=patch_size)
        fan_in = input_shape[0] * patch_size**2
        nn.init.trunc_normal_(self.projection.weight, std=math.sqrt(1 / fan_in))  # as torchvision initializes
        nn.init.zeros_(torch.as_tensor(self.projection.bias))
        height, width = (side // patch_size for side in input_shape[1:])
        self.positions = nn.Parameter(torch.empty(1, dim, height, width).normal_(std=0.02))
        self.dropout = nn.Dropout(dropout)

    def forward(self, images: Tensor) -> Tensor:
        embedded: Tensor = self.dropout(self.projection(images) + self.positions)
        return embedded


class OnMaps(nn.Module):
    """Layers on tokens [batch, positions, dim], applied to maps [batch, dim, height, width].

    Args:
        layers: applied one after the other.
    """

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, features: Tensor) -> Tensor:
        tokens: Tensor = self.layers(features.flatten(2).mT)
        return tokens.mT.reshape(features.shape)


def _check(config: Config) -> None:
    for name, least in Config(patch_size=1, dim=1, depth=NUM_STAGES, heads=1)._asdict().items():
        if getattr(config, name) < least:
            raise ValueError(f"{name} must be >= {least}, found {getattr(config, name)}")
    if config.dim % config.heads:
        raise ValueError(f"dim must be a multiple of heads ({config.heads}), found {config.dim}")


def _load(weights: str, model: str, patches: Patches, blocks: nn.Sequential, norm: nn.LayerNorm) -> None:
    """Copy torchvision's weights, except those of the class token and the classifier."""
    state = dict(read_weights(weights, model))
    positions = state.pop("encoder.pos_embedding", None)
    state.pop("class_token", None)
    layers = nn.ModuleDict({f"encoder_layer_{index}": block for index, block in enumerate(blocks)})
    network = nn.ModuleDict(  # torchvision's names
        {"conv_proj": patches.projection, "encoder": nn.ModuleDict({"layers": layers, "ln": norm})}
    )
    fill(network, state, weights, model, without="heads.")
    dim = patches.positions.shape[1]
    side = math.isqrt(max(0, positions.shape[1] - 1)) if positions is not None and positions.dim() == 3 else 0
    if positions is None or not side or positions.shape != (1, 1 + side**2, dim):
        shape = None if positions is None else tuple(positions.shape)
        raise ValueError(
            f"weights: {weights} does not fit {model}: encoder.pos_embedding must have the shape "
            f"(1, 1 + a square, {dim}), found {shape}"
        )
    grid = positions[:, 1:].float().mT.unflatten(2, (side, side))
    size = patches.positions.shape[2:]
    if grid.shape[2:] != size:  # bicubic with aligned corners, as torchvision's interpolate_embeddings does
        grid = nn.functional.interpolate(grid, size, mode="bicubic", align_corners=True)
    with torch.no_grad():
        patches.positions.copy_(grid)
