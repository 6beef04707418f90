"""The optimizer's part of a training step: parameter groups with the same settings are stepped as one."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

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
        self._one = torch.ones(())  # to count steps by, in less time than by a number
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
        if type(self._optimizer) is SGD:
            self._begin_momenta()
        if found_inf is None and type(self._optimizer) in (Adam, AdamW) and self._step_adam():
            return
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

    @torch.no_grad()
    def _step_adam(self) -> bool:
        """Make the step of a fused Adam on the CPU by its kernel; return False if that is not what is to be done.

        On a small network, what `Adam.step` does around the kernel takes several times as long as the kernel itself.
        """
        optimizer = self._optimizer
        calls: list[tuple[dict[str, Any], list[Tensor], list[Tensor], list[dict[str, Tensor]]]] = []
        if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
            return False
        for first, parameters in self._joined:
            group = optimizer.param_groups[first]
            grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
            trained: list[Tensor] = [parameter for parameter in parameters if parameter.grad is not None]
            if not trained:
                continue
            states = [optimizer.state[parameter] for parameter in trained]
            is_plain = group["fused"] and not (group["amsgrad"] or group["capturable"] or group["differentiable"])
            is_plain = is_plain and all(parameter.is_cpu for parameter in trained)
            if not is_plain or not all(states) or len({parameter.dtype for parameter in trained}) > 1:
                return False
            calls.append((group, trained, grads, states))
        for group, trained, grads, states in calls:
            steps = [state["step"] for state in states]
            torch._foreach_add_(steps, [self._one] * len(steps))
            kernel = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
            kernel(
                trained,
                grads,
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                steps,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=group["maximize"],
            )
        return True

    def _begin_momenta(self) -> None:
        """Let momenta begin at zero, which makes no difference without dampening.

        PyTorch's fused SGD fails where only some parameters had a gradient before; where its first step is not applied,
        it keeps whatever is in the memory.
        """
        for group in self._optimizer.param_groups:
            if group["fused"] and group["momentum"] and not group["dampening"]:
                for parameter in group["params"]:
                    state = self._optimizer.state[parameter]
                    if state.get("momentum_buffer") is None:
                        state["momentum_buffer"] = torch.zeros_like(parameter)


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
