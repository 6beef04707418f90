"""Heads: from features to a task's prediction."""

from collections.abc import Sequence

from torch import Tensor, nn

from mtlrun.models.layers import Fit, is_map, resize


class MLPHead(nn.Sequential):
    """Linear layers with ReLU between them; without hidden layers, one linear layer. Maps are averaged first.

    Maps [batch, *feature_shape] to [batch, n].

    Args:
        feature_shape: shape of one sample's features; filled in by the model.
        output_shape: (n,); filled in by the model.
        hidden: widths of the layers between the two.
    """

    def __init__(self, feature_shape: Sequence[int], output_shape: Sequence[int], hidden: Sequence[int] = ()) -> None:
        if any(width < 1 for width in hidden):
            raise ValueError(f"hidden must list widths >= 1, found {list(hidden)}")
        if len(output_shape) != 1:
            raise ValueError(
                f"MLPHead gives numbers for a whole sample, and the task wants maps of shape {tuple(output_shape)}; "
                "use mtlrun.models.heads.ConvHead"
            )
        widths = [feature_shape[0], *hidden, output_shape[0]]
        layers: list[nn.Module] = [Fit(())] if is_map(feature_shape) else []
        for index in range(len(widths) - 1):
            layers += [nn.Linear(widths[index], widths[index + 1]), nn.ReLU()]
        super().__init__(*layers[:-1])


class DenseHead(nn.Module):
    """Base of the heads that predict something at each pixel: what subclasses give is resized to the output's size.

    Args:
        feature_shape: (channels, height, width) of one sample's features; filled in by the model.
        output_shape: (n, height, width); filled in by the model.
    """

    def __init__(self, feature_shape: Sequence[int], output_shape: Sequence[int]) -> None:
        name = type(self).__name__
        if not is_map(feature_shape):
            raise ValueError(
                f"{name} predicts at each pixel and needs feature maps, found vectors of {feature_shape[0]} features; "
                "use a backbone whose last stage gives maps, such as resnet18 or segnet"
            )
        if len(output_shape) != 3:
            raise ValueError(
                f"{name} predicts at each pixel, and the task wants {output_shape[0]} numbers for a whole sample; "
                "use mtlrun.models.heads.MLPHead"
            )
        super().__init__()
        self.size = tuple(output_shape[1:])
        self.body: nn.Module

    def forward(self, features: Tensor) -> Tensor:
        return resize(self.body(features), self.size)


class ConvHead(DenseHead):
    """3x3 convolutions with BatchNorm and ReLU, a 1x1 convolution, then bilinear to the output's size.

    Args:
        feature_shape, output_shape: see `DenseHead`.
        hidden: channels of the 3x3 convolutions; none for the 1x1 convolution alone.
    """

    def __init__(
        self, feature_shape: Sequence[int], output_shape: Sequence[int], hidden: Sequence[int] = (64,)
    ) -> None:
        if any(width < 1 for width in hidden):
            raise ValueError(f"hidden must list numbers of channels >= 1, found {list(hidden)}")
        super().__init__(feature_shape, output_shape)
        channels = [feature_shape[0], *hidden]
        layers: list[nn.Module] = []
        for index, width in enumerate(hidden):
            layers += [nn.Conv2d(channels[index], width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Conv2d(channels[-1], output_shape[0], 1))
