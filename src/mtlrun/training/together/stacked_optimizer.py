"""The optimizers of several models as one over their stacked parameters."""

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.optim import Optimizer

from mtlrun.training.stepping import Stepper
from mtlrun.training.together.stacked_models import StackedModels

#: Those whose step treats each entry of a parameter by itself, with the same hyperparameters for all.
_ELEMENTWISE = (
    optim.SGD, optim.Adam, optim.AdamW, optim.NAdam, optim.RAdam, optim.Adamax, optim.Adagrad, optim.Adadelta,
    optim.RMSprop, optim.Rprop,
)  # fmt: skip
#: What their state holds besides tensors like the parameter: numbers that depend on the count of steps.
_COUNTS = ("step", "mu_product")
#: What a group holds that differs from one model to the next, or is set before each step.
_NOT_COMPARED = ("params", "lr")


class StackedOptimizer:
    """One optimizer that makes the step of several; the moments of each are views of its own.

    Args:
        optimizers: of one class, over the parameters of the models, in the same groups.
        models: after they were stacked.
        model: that of the first optimizer, for the names of its parameters.
    """

    def __init__(self, optimizers: Sequence[Optimizer], models: StackedModels, model: nn.Module) -> None:
        self._optimizers = optimizers
        names = {parameter: name for name, parameter in model.named_parameters()}
        first = optimizers[0]
        #: The stacked parameter, and the parameters that are its views.
        self._stacks: list[tuple[Tensor, list[Tensor]]] = []
        groups = []
        for number, group in enumerate(first.param_groups):
            stacks = []
            for place, parameter in enumerate(group["params"]):
                members = [optimizer.param_groups[number]["params"][place] for optimizer in optimizers]
                stack = models.parameters[names[parameter]]
                self._stacks.append((stack, members))
                stacks.append(stack)
            groups.append({**group, "params": stacks})
        accepted = signature(type(first).__init__).parameters
        defaults = {key: value for key, value in first.defaults.items() if key in accepted}
        self._joint = type(first)(groups, **defaults)
        self._stepper = Stepper(self._joint)
        self._spread: dict[tuple[int, str], int] = {}  # identities of the state whose views the optimizers have
        self._gather()

    @classmethod
    def make(
        cls, optimizers: Sequence[Optimizer], models: StackedModels, model: nn.Module
    ) -> "StackedOptimizer | None":
        """Return one for these optimizers; None if their steps cannot be made as one."""
        if type(optimizers[0]) not in _ELEMENTWISE or not _is_alike(optimizers):
            return None
        return cls(optimizers, models, model)

    def step(self) -> None:
        """Make the step of all models; the learning rates are those of the first one's optimizer."""
        for group, current in zip(self._joint.param_groups, self._optimizers[0].param_groups, strict=True):
            group["lr"] = current["lr"]
        self._stepper.step()
        self._spread_state()

    def release(self) -> None:
        """Give each optimizer counts of steps of its own, so that it can make steps by itself."""
        for _, members in self._stacks:
            for optimizer, member in zip(self._optimizers, members, strict=True):
                state = optimizer.state.get(member, {})
                for key in _COUNTS:
                    if isinstance(state.get(key), Tensor):
                        state[key] = state[key].clone()

    def _gather(self) -> None:
        """Stack what the optimizers have kept so far."""
        for stack, members in self._stacks:
            states = [
                optimizer.state.get(member, {}) for optimizer, member in zip(self._optimizers, members, strict=True)
            ]
            if not states[0]:
                continue
            gathered: dict[str, Any] = {}
            for key, value in states[0].items():
                is_moment = isinstance(value, Tensor) and key not in _COUNTS
                if is_moment:
                    gathered[key] = torch.stack([state[key] for state in states])
                else:
                    gathered[key] = value.clone() if isinstance(value, Tensor) else value
            self._joint.state[stack] = gathered
        self._spread_state()

    def _spread_state(self) -> None:
        """Make the state of each optimizer that of its part of the stacks."""
        for number, (stack, members) in enumerate(self._stacks):
            for key, value in self._joint.state.get(stack, {}).items():
                if self._spread.get((number, key)) == id(value) and isinstance(value, Tensor):
                    continue
                self._spread[number, key] = id(value)
                is_moment = isinstance(value, Tensor) and key not in _COUNTS
                for place, (optimizer, member) in enumerate(zip(self._optimizers, members, strict=True)):
                    optimizer.state[member][key] = value[place] if is_moment else value


def same_rates(optimizers: Sequence[Optimizer]) -> bool:
    """Return True if the learning rates of the optimizers are the same."""
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    return all(other == rates[0] for other in rates[1:])


def _is_alike(optimizers: Sequence[Optimizer]) -> bool:
    """Return True if the optimizers have the same hyperparameters, and have made as many steps."""
    described = [
        [
            (
                {key: value for key, value in group.items() if key not in _NOT_COMPARED},
                [_counts(optimizer.state.get(parameter, {})) for parameter in group["params"]],
            )
            for group in optimizer.param_groups
        ]
        for optimizer in optimizers
    ]
    return all(other == described[0] for other in described[1:])


def _counts(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state with each moment's presence in its place."""
    return {
        key: float(value) if isinstance(value, Tensor) and key in _COUNTS else isinstance(value, Tensor) or value
        for key, value in state.items()
    }
