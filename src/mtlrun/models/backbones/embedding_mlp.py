"""A multi-layer perceptron on columns of a table: embeddings of categories, and of numbers if wanted."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import FractionBelowOne, Positive, Width, WidthFactor, checked
from mtlrun.config.checks import check_one_of
from mtlrun.config.suggest import suggest
from mtlrun.models.backbones.base import Backbone, ColumnLike
from mtlrun.models.backbones.mlp import Activation, Norm, hidden_stages
from mtlrun.models.backbones.number_embeddings import Periodic, PiecewiseLinear
from mtlrun.models.backbones.width import widened

Numbers = Literal["plain", "piecewise_linear", "periodic"]
CategoryEncoding = Literal["index", "one_hot"]
#: {column: length of its embedding}, or one length for all; None for `default_size`.
EmbeddingSizes = Width | Mapping[str, Width] | None


class EmbeddingMLP(Backbone):
    """A multi-layer perceptron on vectors in which some numbers are indices of categories, which have embeddings.

    Sources: Guo & Berkhahn, "Entity Embeddings of Categorical Variables" (2016); for embeddings of numbers see
    `number_embeddings`. The first stage is the embeddings and the first hidden layer, so that there are as many stages
    as in `MLP`. Category 0 stands for what training does not have. Its embedding starts at zero, and stays there unless
    the dataset counts rare categories of training as such.

    Args:
        input_shape: (size,).
        columns: the meaning of each number of the input; filled in from the dataset. None if all are numbers.
        category_encoding: how the dataset is to encode categories; it reads this key of the config. With `one_hot` all
            inputs are numbers.
        embedding_sizes: length of the embeddings of each categorical column, {column: length}, or of all; None, as for
            columns that are not named, for `default_size`.
        numbers: how numbers enter: `plain`, as they are; `piecewise_linear` or `periodic`: as embeddings. Indicators
            always enter as they are.
        number_size: length of the embedding of a number.
        num_bins: of `piecewise_linear`, with quantiles of training as edges; None for the square root of the number of
            training samples, from 4 to 48.
        num_frequencies, frequency_std: of `periodic`.
        hidden, dropout, norm, activation, residual: see `MLP`.
        width: factor on `hidden` and on the lengths of embeddings, rounded.
    """

    @checked
    def __init__(
        self,
        input_shape: tuple[int, ...],
        columns: Sequence[ColumnLike] | None = None,
        category_encoding: CategoryEncoding = "index",
        embedding_sizes: EmbeddingSizes = None,
        numbers: Numbers = "plain",
        number_size: Width = 16,
        num_bins: Width | None = 48,
        num_frequencies: Width = 48,
        frequency_std: Positive = 0.01,
        hidden: Sequence[Width] = (128, 64),
        dropout: FractionBelowOne = 0.0,
        norm: Norm = "none",
        activation: Activation = "relu",
        residual: bool = False,
        width: WidthFactor = 1.0,
    ) -> None:
        if len(input_shape) != 1:
            raise ValueError(
                f"embedding_mlp needs vectors, such as rows of a table, found inputs of shape {tuple(input_shape)}"
            )
        check_one_of("category_encoding", category_encoding, CategoryEncoding)
        check_one_of("numbers", numbers, Numbers)
        self._columns: list[ColumnLike] = [_Number()] * input_shape[0] if columns is None else list(columns)
        self._sizes = _embedding_sizes(self._columns, embedding_sizes, width)
        embeddings = InputLayer(self._columns, self._sizes)
        if numbers != "plain" and embeddings.numbers:
            chosen = [self._columns[place] for place in embeddings.numbers]
            (size,) = widened([number_size], width)
            embeddings.embed_numbers = (
                PiecewiseLinear(_edges(chosen, num_bins), size)
                if numbers == "piecewise_linear"
                else Periodic(len(chosen), size, num_frequencies, frequency_std)
            )
            embeddings.size += len(chosen) * (size - 1)
        stages = hidden_stages(
            embeddings.size, hidden, dropout=dropout, norm=norm, activation=activation, residual=residual, width=width
        )
        stages[0].insert(0, embeddings)
        super().__init__(stages, input_shape)

    def embed_inputs(self) -> nn.Module | None:
        return InputLayer(self._columns, self._sizes) if self._sizes else None


class InputLayer(nn.Module):
    """Numbers and embeddings of categories, concatenated: [batch, num_columns] to [batch, size].

    Args:
        columns: of the input.
        sizes: lengths of the embeddings of the categorical ones, in their order.
    """

    number_places: Tensor
    indicator_places: Tensor
    category_places: Tensor

    def __init__(self, columns: Sequence[ColumnLike], sizes: Sequence[int]) -> None:
        super().__init__()
        places: dict[str, list[int]] = {"number": [], "indicator": [], "category": []}
        for place, column in enumerate(columns):
            places[column.kind].append(place)
        self.numbers = places["number"]
        for kind, of_kind in places.items():
            self.register_buffer(f"{kind}_places", torch.tensor(of_kind, dtype=torch.int64), persistent=False)
        #: Module from numbers [batch, numbers] to [batch, numbers, size]; None to use them as they are.
        self.embed_numbers: nn.Module | None = None
        self.embeddings = nn.ModuleList(
            _embedding(columns[place].num_categories, size)
            for place, size in zip(places["category"], sizes, strict=True)
        )
        self.size = len(places["number"]) + len(places["indicator"]) + sum(sizes)

    def forward(self, inputs: Tensor) -> Tensor:
        numbers = inputs.index_select(1, self.number_places)
        if self.embed_numbers is not None:
            numbers = self.embed_numbers(numbers).flatten(1)
        parts = [numbers, inputs.index_select(1, self.indicator_places)]
        indices = inputs.index_select(1, self.category_places).long()
        parts += [embed(of_column) for embed, of_column in zip(self.embeddings, indices.unbind(1), strict=True)]
        return torch.cat(parts, dim=1)


def default_size(num_categories: int) -> int:
    """Return the length of the embeddings of so many categories: 1.6 n^.56, at most 50; fastai's rule, with 600."""
    return min(50, round(1.6 * math.pow(num_categories, 0.56)))


class _Number:
    """A column about which nothing is known but that it is a number."""

    name = ""
    kind: Literal["number", "indicator", "category"] = "number"
    num_categories = 0

    def quantiles(self, num_bins: int | None) -> None:
        return None


def _embedding(num_categories: int, size: int) -> nn.Embedding:
    """Return embeddings in the range of a linear layer's weights; that of category 0 is zero."""
    embedding = nn.Embedding(num_categories, size)
    nn.init.uniform_(embedding.weight, -(size**-0.5), size**-0.5)
    nn.init.zeros_(embedding.weight[0])
    return embedding


def _embedding_sizes(columns: Sequence[ColumnLike], given: EmbeddingSizes, width: float) -> list[int]:
    """Return the length of the embeddings of each categorical column."""
    categorical = {column.name: default_size(column.num_categories) for column in columns if column.kind == "category"}
    sizes = given if isinstance(given, Mapping) else dict.fromkeys(categorical, given) if given is not None else {}
    for name in sizes:
        if name not in categorical:
            what = "columns of categories" if categorical else "there are no columns of categories"
            raise ValueError(f"embedding_sizes: there is no column {name!r}; {suggest(name, categorical, what)}")
    return widened([sizes.get(name, size) for name, size in categorical.items()], width)


def _edges(columns: Sequence[ColumnLike], num_bins: int | None) -> list[Sequence[float]]:
    """Return the edges of the bins of each column."""
    edges = [column.quantiles(num_bins) for column in columns]
    if any(of_column is None for of_column in edges):
        raise ValueError(
            "numbers=piecewise_linear needs the quantiles of training, which the dataset does not give; use periodic"
        )
    return [of_column for of_column in edges if of_column is not None]
