"""The optimizer's part of a training step: parameter groups with the same settings are stepped as one."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

# What tells groups apart beside their settings.
_NAMES = ("params", "name", "initial_lr")


class Stepper:
    """Calls an optimizer, with as few groups as its settings allow: each group costs as much as many parameters.

    The optimizer's own groups, which have the names of tasks, stay as they are.

    Args:
        optimizer: with all its groups; their settings stay the same up to the learning rates, and those keep their
            ratios.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        # For each kind of settings the number of its first group, and the parameters of all its groups.
        self._joined = _join(optimizer)
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    @property
    def knows_found_inf(self) -> bool:
        """True if the optimizer leaves everything as it is where `found_inf` is 1, as fused ones do."""
        return bool(getattr(self._optimizer, "_step_supports_amp_scaling", False))

    def zero_grad(self) -> None:
        """Set all `.grad` to None."""
        for parameter in self._parameters:
            parameter.grad = None

    def step(self, found_inf: Tensor | None = None) -> None:
        """Apply the gradients.

        Args:
            found_inf: 1.0 on the parameters' device for a step that must not be applied, else 0.0; only where the
                optimizer knows it.
        """
        groups = self._optimizer.param_groups
        if len(self._joined) < len(groups):
            joined = [{**groups[first], "params": parameters} for first, parameters in self._joined]
            self._optimizer.param_groups = joined
        if found_inf is not None:
            self._optimizer.found_inf = found_inf  # type: ignore[attr-defined]
        try:
            self._optimizer.step()
        finally:
            self._optimizer.param_groups = groups
            if found_inf is not None:
                del self._optimizer.found_inf  # type: ignore[attr-defined]


def _join(optimizer: Optimizer) -> Sequence[tuple[int, list[nn.Parameter]]]:
    """Return the number of the first group of each kind of settings, and the parameters of all groups of that kind.

    Other optimizers than PyTorch's may keep numbers in their groups, so these are left as they are.
    """
    groups: list[dict[str, Any]] = optimizer.param_groups
    if not type(optimizer).__module__.startswith("torch.optim."):
        return [(number, group["params"]) for number, group in enumerate(groups)]
    settings: list[dict[str, Any]] = []
    joined: list[tuple[int, list[nn.Parameter]]] = []
    for number, group in enumerate(groups):
        kind = {key: value for key, value in group.items() if key not in _NAMES}
        if kind in settings:
            joined[settings.index(kind)][1].extend(group["params"])
        else:
            settings.append(kind)
            joined.append((number, list(group["params"])))
    return joined
