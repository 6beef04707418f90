"""Models of one architecture with their parameters and buffers in common memory, stacked."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn


class StackedModels:
    """The parameters and buffers of several models, stacked; from now on those of each model are views of these.

    Args:
        models: of one architecture, on one device.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        #: {name: [num_models, ...]}, leaves of the graph.
        self.parameters = _stack([dict(model.named_parameters()) for model in models])
        self.buffers = _stack([dict(model.named_buffers()) for model in models])

    @property
    def trained(self) -> dict[str, Tensor]:
        """{name: stacked parameter} of those that require a gradient."""
        return {name: stacked for name, stacked in self.parameters.items() if stacked.requires_grad}

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for stacked in self.parameters.values():
            stacked.grad = None


def _stack(members: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Stack the tensors of each name, and make them views of the stack."""
    stacked = {}
    for name, first in members[0].items():
        stack = torch.stack([tensors[name].detach() for tensors in members])
        for tensors, view in zip(members, stack.unbind(), strict=True):
            tensors[name].data = view
        stacked[name] = stack.requires_grad_(first.requires_grad)
    return stacked


def find_difference(objects: Sequence[object]) -> str | None:
    """Return which attribute the objects do not have in common, None if they are alike.

    Of modules everything is compared but parameters and, of the first one given, buffers: what is stacked.

    Args:
        objects: modules of one class.
    """
    first, *others = objects
    for other in others:
        for place in _differences(first, other, "", set()):
            return place or type(first).__name__
    return None


#: Attributes of every module that are no data of its own, or that are stacked.
_OF_MODULES = {"_parameters", "_buffers", "_modules", "training"} | {
    name for name in vars(nn.Module()) if "hook" in name or name.startswith("_non_persistent")
}


def _differences(one: object, other: object, place: str, seen: set[int]) -> Iterator[str]:
    """Yield the places in which two objects differ."""
    if one is other or id(one) in seen:
        return
    if type(one) is not type(other):
        yield place
        return
    if isinstance(one, nn.Parameter):
        return
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if not torch.equal(one, other):
            yield place
        return
    if isinstance(one, str | int | float | bool | bytes | complex | type | torch.dtype | torch.device):
        if one != other and not (one != one and other != other):  # NaN equals NaN
            yield place
        return
    seen.add(id(one))
    pairs = _parts(one, other)
    if pairs is None:
        yield place
        return
    for name, a, b in pairs:
        yield from _differences(a, b, f"{place}.{name}" if place else name, seen)


def _parts(one: object, other: object) -> list[tuple[str, object, object]] | None:
    """Return (name, part of one, part of the other); None if they do not have as many parts, or cannot be compared."""
    if isinstance(one, nn.Module) and isinstance(other, nn.Module):
        names = [name for name in vars(one) if name not in _OF_MODULES]
        pairs = [(name, vars(one)[name], vars(other).get(name)) for name in names]
        modules = zip(one._modules.items(), one._modules.values(), other._modules.values(), strict=False)
        return [*pairs, *((name, a, b) for (name, _), a, b in modules)]
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = [str(key) if isinstance(key, str | int) else "" for key in one]
        return None if len(one) != len(other) else list(zip(keys, one.values(), other.values(), strict=True))
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        numbers = [str(number) for number in range(len(one))]
        return None if len(one) != len(other) else list(zip(numbers, one, other, strict=True))
    if callable(one) and hasattr(one, "__qualname__"):
        return [] if one.__qualname__ == getattr(other, "__qualname__", None) else None
    if hasattr(one, "__dict__"):
        return [(name, value, vars(other).get(name)) for name, value in vars(one).items()]
    return [] if one == other else None
