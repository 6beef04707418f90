"""The scale of the gradients inside a model that computes in float16, which holds nothing below 6e-8."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

# PyTorch's defaults, but for the largest scale, above which more would be lost than saved.
_FIRST, _LARGEST, _EVERY = 2.0**16, 2.0**24, 2000


class GradientScale:
    """A factor on all gradients inside a model: they are multiplied where they enter it, and divided where they leave.

    Outside of the model all gradients are in float32 and unscaled: those of losses, of the representation and of the
    parameters, whoever takes them. Where the scaled ones exceed float16, those of the parameters are not finite; such a
    step is skipped, and the factor halved. It is doubled after 2000 steps that were not. Powers of two change no digit.

    Source: Micikevicius et al., "Mixed Precision Training" (ICLR 2018), section 3.2, which scales the loss.

    Args:
        device: of the model.
    """

    def __init__(self, device: torch.device) -> None:
        self._factor = torch.tensor(_FIRST, device=device)
        self._inverse = 1 / self._factor
        #: Steps since the last change, steps that were skipped, and those of them without another one in between.
        self._counts = torch.zeros(3, dtype=torch.int64, device=device)

    def unscale_at(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divide all gradients of these parameters from now on."""
        for parameter in parameters:
            if parameter.requires_grad:
                parameter.register_hook(lambda gradient: gradient * self._inverse)

    def enter(self, tensor: Tensor) -> Tensor:
        """Return a tensor that the model puts out; the gradient that comes back to it is multiplied."""
        return _times(tensor, self._factor)

    def leave(self, tensor: Tensor) -> Tensor:
        """Return a tensor that the model goes on with; the gradient that comes back to it is divided."""
        return _times(tensor, self._inverse)

    def update(self, is_skipped: Tensor | bool) -> None:
        """Count a step, and change the factor if it was skipped, or many were not. Waits for nothing.

        Args:
            is_skipped: whether a gradient was not finite, on any device.
        """
        skipped = torch.as_tensor(is_skipped, device=self._factor.device)
        since, total, in_a_row = self._counts.unbind()
        since = torch.where(skipped, 0, since + 1)
        grows = since >= _EVERY
        larger = torch.where(grows, (2 * self._factor).clamp(max=_LARGEST), self._factor)
        self._factor = torch.where(skipped, self._factor / 2, larger)
        self._inverse = 1 / self._factor
        in_a_row = torch.where(skipped, in_a_row + 1, 0)
        self._counts = torch.stack([torch.where(grows, 0, since), total + skipped, in_a_row])

    def skipped(self) -> tuple[int, int]:
        """Return how many steps were skipped, and how many of them without another one since. Waits for the device."""
        _, total, in_a_row = self._counts.tolist()
        return total, in_a_row

    def state_dict(self) -> dict[str, Any]:
        """Return factor and counts as a checkpoint can hold them."""
        return {"factor": float(self._factor), "counts": self._counts.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._factor = torch.full_like(self._factor, state["factor"])
        self._inverse = 1 / self._factor
        self._counts = torch.tensor(state["counts"], dtype=torch.int64, device=self._counts.device)


class _Times(torch.autograd.Function):
    """The identity, with a factor on the gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(tensor: Tensor, factor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def _times(tensor: Tensor, factor: Tensor) -> Tensor:
    scaled: Tensor = _Times.apply(tensor, factor) if tensor.requires_grad else tensor
    return scaled
