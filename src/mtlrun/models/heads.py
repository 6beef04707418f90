"""Heads: from a feature vector to a task's prediction."""

from collections.abc import Sequence

from torch import nn


class MLPHead(nn.Sequential):
    """Linear layers with ReLU between them; without hidden layers, one linear layer.

    Maps [batch, num_features] to [batch, output_size].

    Args:
        num_features: length of the feature vector; filled in by the model.
        output_size: number of values to give per sample; filled in by the model.
        hidden: widths of the layers between the two.
    """

    def __init__(self, num_features: int, output_size: int, hidden: Sequence[int] = ()) -> None:
        if any(width < 1 for width in hidden):
            raise ValueError(f"hidden must list widths >= 1, found {list(hidden)}")
        widths = [num_features, *hidden, output_size]
        layers: list[nn.Module] = []
        for index in range(len(widths) - 1):
            layers += [nn.Linear(widths[index], widths[index + 1]), nn.ReLU()]
        super().__init__(*layers[:-1])
