"""The computation of a model's passes: in which precision, and in which memory format."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from mtlrun.config.settings import Precision
from mtlrun.models.gradient_scale import GradientScale

if TYPE_CHECKING:
    from mtlrun.models.base import MultiTaskModel, Output
    from mtlrun.models.compiled import CompiledFunctions

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Computation:
    """How the passes of a model are computed; whatever it returns is in float32 at least.

    Args:
        precision: bf16 and fp16 are autocast: parameters stay in float32, and so do the operations that need it. fp32
            and tf32 differ by what PyTorch is set to (`use_tf32` in `mtlrun.setup.environment`).
        channels_last: give batches of images in the memory format that has a pixel's channels side by side.
    """

    def __init__(self, precision: Precision = "fp32", *, channels_last: bool = False) -> None:
        self.precision, self._channels_last = precision, channels_last
        #: Of the gradients inside the model, in training with float16; None for none.
        self.scale: GradientScale | None = None
        #: What the model calls in training in place of its methods; None if it is not compiled.
        self.compiled: CompiledFunctions | None = None

    def run(self, model: "MultiTaskModel", inputs: Tensor, tasks: Sequence[str] | None) -> "Output":
        """Return the output of a model for inputs [batch, ...].

        Args:
            model: in training mode or not.
            inputs: on its device.
            tasks: those whose predictions are requested; None for all, also where `forward` takes no `tasks`.
        """
        if self._channels_last and inputs.dim() == 4:
            inputs = inputs.to(memory_format=torch.channels_last)
        with self.autocast(inputs.device):
            output = cast("Output", model(inputs) if tasks is None else model(inputs, tasks))
        output = in_float32(output)
        return output if self.scale is None else map_terms(output, self.scale.enter)

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context in which a model computes in half precision, if that is asked for."""
        half = _HALF.get(self.precision)
        return nullcontext() if half is None else torch.autocast(device.type, dtype=half)

    def as_written(self) -> AbstractContextManager[object]:
        """Return the context in which a compiled model runs as it is written, so that a graph may be walked again."""
        return nullcontext() if self.compiled is None else self.compiled.off()

    def boundary(self, representation: Tensor) -> Tensor:
        """Return a representation in float32, in which the tasks' gradients add up there, unscaled."""
        if self.precision in _HALF:
            representation = _float32(representation)
        return representation if self.scale is None else self.scale.enter(representation)

    def beyond(self, representation: Tensor) -> Tensor:
        """Return a representation, as `boundary` returns it, for `decode`."""
        return representation if self.scale is None else self.scale.leave(representation)


def in_float32(output: "Output") -> "Output":
    """Return an output with all that losses, metrics and the objective are made of in float32 at least.

    In half precision a mean over pixels overflows, and others lose digits.
    """
    tensors = [*output.predictions.values(), *output.regularizers.values()]
    tensors += [each for auxiliary in output.auxiliary for each in auxiliary.predictions.values()]
    if output.domain_logits is not None:
        tensors.append(output.domain_logits)
    return output if all(_float32(tensor) is tensor for tensor in tensors) else map_terms(output, _float32)


def map_terms(output: "Output", function: Callable[[Tensor], Tensor]) -> "Output":
    """Return an output with a function of each tensor that losses, metrics and the objective are made of."""

    def each(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: function(tensor) for name, tensor in tensors.items()}

    return replace(
        output,
        predictions=each(output.predictions),
        auxiliary=[replace(auxiliary, predictions=each(auxiliary.predictions)) for auxiliary in output.auxiliary],
        domain_logits=None if output.domain_logits is None else function(output.domain_logits),
        regularizers=each(output.regularizers),
    )


def _float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
