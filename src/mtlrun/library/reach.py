"""Which parameters the losses of a batch reach, by autograd's graph: shared ones, and those of one task alone."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mtlrun.errors import ConfigError
from mtlrun.gradients import Sharing
from mtlrun.library.given import Given

_NOT_SEEN = "representation: none of the losses depends on this tensor; give the one that the heads see"

#: A place in autograd's graph: a node, and which of its outputs.
Edge = tuple[Any, int]


def leaves(tensor: Tensor, stop: Tensor | None = None) -> tuple[list[Tensor], bool]:
    """Return the leaves of autograd's graph that a tensor depends on, and whether it depends on `stop`.

    Args:
        tensor: with its graph.
        stop: a tensor of the graph behind which nothing is followed, though around it is.

    Raises:
        ConfigError: a part of the network is hidden from the graph.
    """
    end = None if stop is None else _edge(stop)
    found: list[Tensor] = []
    met_end = False
    seen: set[Any] = set()
    edges = [_edge(tensor)]
    while edges:
        edge = edges.pop()
        if edge == end:
            met_end = True
            continue
        node = edge[0]
        if node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        elif node.name() == "CheckpointFunctionBackward":
            raise ConfigError(
                "activation checkpointing hides its parameters from autograd; use torch.utils.checkpoint with "
                "use_reentrant=False"
            )
        edges += [following for following in reversed(node.next_functions) if following[0] is not None]
    return found, met_end


def _edge(tensor: Tensor) -> Edge:
    if tensor.grad_fn is None:  # of a leaf: what adds up its gradient
        return tensor.view_as(tensor).grad_fn.next_functions[0]  # type: ignore[union-attr]
    return tensor.grad_fn, tensor.output_nr


class Reach:
    """The parameters that each of a batch's losses reaches.

    Args:
        losses: {task: scalar with its graph}.
        representation: the tensor that separates shared from task-specific parameters, if there is one.

    Raises:
        ConfigError: no loss depends on the representation.
    """

    def __init__(self, losses: Mapping[str, Tensor], representation: Tensor | None = None) -> None:
        if representation is not None and not representation.requires_grad:
            raise ConfigError(_NOT_SEEN)
        reached = {name: leaves(loss, representation) for name, loss in losses.items()}
        #: {task: what its loss reaches, without what it reaches through the representation alone}.
        self.of_tasks = {name: found for name, (found, _) in reached.items()}
        #: What the representation depends on.
        self.behind: list[Tensor] = []
        if representation is not None:
            if not any(through for _, through in reached.values()):
                raise ConfigError(_NOT_SEEN)
            self.behind, _ = leaves(representation)

    def split(self, shared: Iterable[nn.Parameter] | None) -> tuple[list[nn.Parameter], dict[str, list[nn.Parameter]]]:
        """Return the shared parameters, and those of each task.

        Args:
            shared: those of the caller; None for what several losses reach, or the representation depends on.

        Raises:
            ConfigError: no such division of the parameters would give each of them its gradient.
        """
        owners: dict[Tensor, list[str]] = {}
        for name, found in self.of_tasks.items():
            for leaf in found:
                owners.setdefault(leaf, []).append(name)
        behind = dict.fromkeys(self.behind)
        around = [leaf for leaf in owners if leaf in behind and isinstance(leaf, nn.Parameter)]
        if around:
            raise ConfigError(
                f"representation: the loss of {owners[around[0]][0]} also reaches {_count(around)} around it, and its "
                "gradient would lack that part; leave representation out"
            )
        several = [leaf for leaf, names in owners.items() if len(names) > 1 and isinstance(leaf, nn.Parameter)]
        if shared is None:
            if behind and several:
                raise ConfigError(
                    f"representation: the losses of {' and '.join(owners[several[0]])} reach {_count(several)} around "
                    "it; leave representation out"
                )
            chosen = [leaf for leaf in (behind or several) if isinstance(leaf, nn.Parameter)]
        else:
            chosen = [parameter for parameter in shared if parameter.requires_grad]
            left_out = [leaf for leaf in [*several, *behind] if isinstance(leaf, nn.Parameter)]
            known = set(chosen)
            if left_out := [leaf for leaf in left_out if leaf not in known]:
                raise ConfigError(
                    f"shared: several losses reach {_count(left_out)} that are not among them, and would get no "
                    "gradient; give all of them, or leave shared out, and they are found"
                )
        taken = set(chosen)
        heads = {
            name: [leaf for leaf in found if owners[leaf] == [name] and leaf not in taken]
            for name, found in self.of_tasks.items()
        }
        return chosen, heads  # type: ignore[return-value]  # leaves that are no Parameter have a `.grad`, too


class SharingFinder:
    """Finds what the losses of each batch reach; which parameters are shared stays as in the first batch."""

    def __init__(self) -> None:
        self._owners: dict[Tensor, str | None] = {}  # {parameter: the task that owns it, or None if it is shared}

    def find(self, given: Given, losses: Mapping[str, Tensor], tasks: Sequence[str]) -> Sharing:
        """Return the parameters that some losses reach.

        Args:
            given: with the parameters and the representation that the caller names.
            losses: {task: scalar with its graph}.
            tasks: the names of all tasks.

        Raises:
            ConfigError: what is shared cannot be found, or is not what it was.
        """
        missing = [name for name in tasks if name not in losses]
        if given.shared is None and not self._owners and missing:
            raise ConfigError(
                "shared: what is shared is found in a batch that has all tasks, and the first one lacks "
                f"{', '.join(missing)}; give the shared parameters"
            )
        shared, heads = Reach(losses, given.representation).split(given.shared)
        if given.shared is None:
            shared = self._as_before(shared, heads)
        return Sharing(shared, list(heads.values()), given.last_layer)

    def _as_before(self, shared: list[nn.Parameter], heads: dict[str, list[nn.Parameter]]) -> list[nn.Parameter]:
        """Return what was shared in the first batch, and take it out of the heads of this one.

        Raises:
            ConfigError: this batch does not go with that division.
        """
        owners: dict[Tensor, str | None] = dict.fromkeys(shared)
        owners |= {parameter: name for name, group in heads.items() for parameter in group}
        known = self._owners or owners
        for parameter, owner in owners.items():
            allowed = (None, owner) if parameter in known or owner is not None else ()
            if known.get(parameter, owner) not in allowed:
                raise ConfigError(
                    f"shared: a parameter of shape {tuple(parameter.shape)} is reached by other losses than in the "
                    "first batch; give the shared parameters"
                )
        self._owners = owners | known
        for name, group in heads.items():
            heads[name] = [parameter for parameter in group if self._owners[parameter] is not None]
        return [parameter for parameter, owner in self._owners.items() if owner is None]  # type: ignore[misc]


def _count(parameters: Sequence[Tensor]) -> str:
    """Return how many parameters there are, and what they look like, in words."""
    shapes = ", ".join(str(tuple(parameter.shape)) for parameter in parameters[:3])
    more = ", ..." if len(parameters) > 3 else ""
    return f"{len(parameters)} parameter{'s' if len(parameters) > 1 else ''} of shape {shapes}{more}"
