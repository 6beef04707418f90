"""Activation checkpointing: what a module computed on the way is not kept, but computed anew in each backward pass."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


class Checkpointed(nn.Module):
    """Base class of modules that can do without the activations of their forward pass.

    Computing them anew draws the same random numbers, and leaves running statistics alone, so that gradients and
    buffers are those of a module that keeps its activations.
    """

    #: True if activations are not kept; see `checkpoint_activations`.
    checkpoints = False
    #: True while activations are computed anew.
    recomputes = False

    def checkpointed(self, function: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """Return function(*arguments), without keeping its activations if the module is to do without them."""
        if not (self.checkpoints and torch.is_grad_enabled()):
            return function(*arguments)
        from torch.utils.checkpoint import checkpoint

        output: Tensor = checkpoint(
            function, *arguments, use_reentrant=False, context_fn=lambda: (nullcontext(), _Recomputation(self))
        )
        return output


def checkpoint_activations(model: nn.Module) -> bool:
    """Let all modules of a model that can do without their activations do so; return False if there are none."""
    if isinstance(model, Checkpointed):
        model.checkpoints = True  # as a whole, with what it has of the kind inside
        return True
    found = [checkpoint_activations(child) for child in model.children()]
    return any(found)


class _Recomputation:
    """A context in which a module is run once more for the same inputs; it may be entered once per backward pass.

    Args:
        module: its layers with running statistics do not update them in this context. They are told by a momentum of
            zero, and not by having no statistics, since a layer must save the same tensors as in the first pass.
    """

    def __init__(self, module: Checkpointed) -> None:
        self._module = module
        self._layers = [layer for layer in module.modules() if isinstance(layer, _NormBase)]

    def __enter__(self) -> None:
        self._before = [(layer.momentum, layer.num_batches_tracked) for layer in self._layers]
        for layer in self._layers:
            layer.momentum, layer.num_batches_tracked = 0.0, None
        self._module.recomputes = True

    def __exit__(self, *_: object) -> None:
        self._module.recomputes = False
        for layer, (momentum, count) in zip(self._layers, self._before, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, count
