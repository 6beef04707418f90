"""The last layer of a network: of those with a weight matrix or a kernel, the one that is applied last."""

from collections.abc import Iterable, Mapping

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

_NORMALIZATIONS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


def last_layer(
    network: nn.Module, among: Iterable[nn.Parameter], order: Mapping[nn.Parameter, int] | None = None
) -> list[nn.Parameter]:
    """Return the parameters of the last layer, weight and bias, that are `among` the given ones.

    A layer is a module that holds parameters itself. One with a weight of two dimensions or more counts before one with
    another parameter of that kind, this before an embedding, and this before all others. The scale and shift of a
    normalization do not count at all.

    Args:
        network: whose layers are looked at.
        among: for example those that are shared and trained; without a layer among them, the result is empty.
        order: when each parameter is used, as `order_of_use` returns it; None for the order of definition.
    """
    candidates = set(among)
    found: list[nn.Parameter] = []
    best = (-1, -1)
    for module in network.modules():
        if isinstance(module, (*_NORMALIZATIONS, ParametrizationList)):
            continue
        parameters = {name: parameter for name, parameter in _held_by(module).items() if parameter in candidates}
        if not parameters:
            continue
        used = 0 if order is None else max(order.get(parameter, -1) for parameter in parameters.values())
        place = (_rank(module, parameters), used)
        if place >= best:
            found, best = list(parameters.values()), place
    return found


def order_of_use(output: Tensor) -> dict[nn.Parameter, int]:
    """Return, for each parameter that `output` was computed from, a number that grows with the time of its last use.

    Autograd numbers operations in the order in which they are made.
    """
    order: dict[nn.Parameter, int] = {}
    seen = set()
    waiting = [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for source, _ in node.next_functions:
            leaf = getattr(source, "variable", None)
            if leaf is None:
                waiting.append(source)
            else:
                order[leaf] = max(order.get(leaf, -1), node._sequence_nr())
    return order


def _held_by(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a module itself, {name: parameter}, with those that its weights are computed from."""
    parameters = dict(module.named_parameters(recurse=False))
    if is_parametrized(module):
        parameters |= dict(module.parametrizations.named_parameters())  # type: ignore[union-attr]
    return parameters


def _rank(module: nn.Module, parameters: Mapping[str, nn.Parameter]) -> int:
    """Return how much a module is what a layer is meant to be; the most counts."""
    if isinstance(module, _EMBEDDINGS):
        return 1
    matrices = [name for name, parameter in parameters.items() if parameter.dim() >= 2]
    if not isinstance(module, _ConvNd):  # the scale of a normalization of one's own may be [1, n, 1, 1]
        matrices = [name for name in matrices if parameters[name].dim() == 2 or parameters[name].squeeze().dim() >= 2]
    if not matrices:
        return 0
    return 3 if any("weight" in name for name in matrices) else 2
