"""Embeddings of numbers: a learned vector that depends on the number, for each column.

Source: Gorishniy, Rubachev & Babenko, "On Embeddings for Numerical Features in Tabular Deep Learning" (NeurIPS 2022).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PerColumnLinear(nn.Module):
    """A linear layer for each column: [batch, columns, inputs] to [batch, columns, outputs].

    Args:
        num_columns: of the input.
        num_inputs, num_outputs: of each layer. Initialized as `torch.nn.Linear`.
    """

    def __init__(self, num_columns: int, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        bound = num_inputs**-0.5
        self.weight = nn.Parameter(torch.empty(num_columns, num_inputs, num_outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_columns, num_outputs).uniform_(-bound, bound))

    def forward(self, features: Tensor) -> Tensor:
        return (features.transpose(0, 1) @ self.weight).transpose(0, 1) + self.bias


class PiecewiseLinear(nn.Module):
    """A piecewise linear function of each number, continuous, with a bend at each edge between two bins.

    Equation 1 of the paper encodes x by T numbers, one for each bin [b_{t-1}, b_t): 1 if x is above it, 0 if below, and
    else (x - b_{t-1}) / (b_t - b_{t-1}); the first and the last bin extend to infinity. A linear layer for each column
    follows, without an activation. It starts at zero, and another, of x itself, is added, so that the embedding starts
    as a linear one: Gorishniy, Kotelnikov & Babenko, "TabM" (ICLR 2025).

    Args:
        edges: of the bins of each column, ascending, [num_bins + 1]; a column with a single one has no bins.
        size: length of the embedding of a number.
    """

    left: Tensor
    scale: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(self, edges: Sequence[Sequence[float]], size: int) -> None:
        super().__init__()
        most = max(1, *(len(of_column) - 1 for of_column in edges))
        left, scale = torch.zeros(len(edges), most), torch.zeros(len(edges), most)
        lowest, highest = torch.zeros(len(edges), most), torch.ones(len(edges), most)
        for index, of_column in enumerate(edges):
            bounds = torch.tensor(of_column, dtype=torch.float64)
            count = len(bounds) - 1
            if count:
                left[index, :count], scale[index, :count] = bounds[:-1], 1 / bounds.diff()
                lowest[index, 0], highest[index, count - 1] = -math.inf, math.inf
        for name, values in (("left", left), ("scale", scale), ("lowest", lowest), ("highest", highest)):
            self.register_buffer(name, values)
        self.linear = PerColumnLinear(len(edges), 1, size)
        self.bends = nn.Parameter(torch.zeros(len(edges), most, size))

    def encode(self, numbers: Tensor) -> Tensor:
        """Return the encoding of numbers [batch, columns], [batch, columns, bins]; 0 for bins that a column lacks."""
        encoded = (numbers.unsqueeze(-1) - self.left) * self.scale
        return encoded.maximum(self.lowest).minimum(self.highest)

    def forward(self, numbers: Tensor) -> Tensor:
        """Map [batch, columns] to [batch, columns, size]."""
        bent = (self.encode(numbers).transpose(0, 1) @ self.bends).transpose(0, 1)
        embedded: Tensor = self.linear(numbers.unsqueeze(-1)) + bent
        return embedded


class Periodic(nn.Module):
    """Sines and cosines of each number, with learned frequencies: ReLU(W [sin(2 pi c x); cos(2 pi c x)] + b).

    Equations 2 and 3 of the paper; the k frequencies c of a column are drawn from a normal distribution, W and b are
    those of the column.

    Args:
        num_columns: of the input.
        size: length of the embedding of a number.
        num_frequencies: k. Authors' code: 48.
        std: of the initial frequencies, the most important number. Authors' code: .01; paper: tuned from .01 to 100.
    """

    def __init__(self, num_columns: int, size: int, num_frequencies: int, std: float) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.empty(num_columns, num_frequencies).normal_(std=std))
        self.linear = PerColumnLinear(num_columns, 2 * num_frequencies, size)

    def forward(self, numbers: Tensor) -> Tensor:
        """Map [batch, columns] to [batch, columns, size]."""
        angles = 2 * math.pi * self.frequencies * numbers.unsqueeze(-1)
        embedded: Tensor = self.linear(torch.cat([angles.sin(), angles.cos()], dim=-1)).relu()
        return embedded
