"""The head for one prediction per sample."""

from collections.abc import Sequence

from torch import nn

from mtlrun.config.bounds import Width, checked
from mtlrun.models.blocks.layers import Resize, is_map


class MLPHead(nn.Sequential):
    """A multi-layer perceptron, by default a single linear layer; the mean over all positions comes first for maps.

    Maps [batch, *feature_shape] to [batch, n].

    Args:
        feature_shape: shape of one sample's features; filled in by the model.
        output_shape: (n,); filled in by the model.
        hidden: widths of the hidden layers, which are followed by ReLU.
    """

    @checked
    def __init__(self, feature_shape: Sequence[int], output_shape: Sequence[int], hidden: Sequence[Width] = ()) -> None:
        if len(output_shape) != 1:
            raise ValueError(
                f"MLPHead gives numbers for a whole sample, and the task wants maps of shape {tuple(output_shape)}; "
                "use mtlrun.models.heads.ConvHead"
            )
        widths = [feature_shape[0], *hidden, output_shape[0]]
        layers: list[nn.Module] = [Resize(())] if is_map(feature_shape) else []
        for index in range(len(widths) - 1):
            layers += [nn.Linear(widths[index], widths[index + 1]), nn.ReLU()]
        super().__init__(*layers[:-1])
