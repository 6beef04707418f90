"""Forward and backward pass of a training step, captured once and replayed: a few launches in place of hundreds."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from mtlrun.gradients import Update
from mtlrun.models import MultiTaskModel
from mtlrun.tasks import Task
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.forward import ModelSharing, untouched
from mtlrun.training.plain_pass import PlainPass, shapes, weigh
from mtlrun.weightings import LossWeighting, Weighting

logger = logging.getLogger(__name__)

# As often as PyTorch's documentation asks for before a capture.
_WARM_UPS = 3


class Graphs(Protocol):
    """Something that records work on a device, and repeats it in the same memory."""

    def warm_up(self, work: Callable[[], object]) -> None:
        """Do the work so often that libraries have made their choices."""

    def capture(self, work: Callable[[], Sequence[Tensor]]) -> tuple[Sequence[Tensor], Callable[[], object]]:
        """Return the tensors that `work` returns, and what fills them anew from the memory that it has read."""


class CudaGraphs:
    """CUDA graphs that have their memory in common, to be replayed in the order of their capture.

    Args:
        device: a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def warm_up(self, work: Callable[[], object]) -> None:
        current, side = torch.cuda.current_stream(self._device), torch.cuda.Stream(self._device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                work()
        current.wait_stream(side)

    def capture(self, work: Callable[[], Sequence[Tensor]]) -> tuple[Sequence[Tensor], Callable[[], object]]:
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(self._device),
            torch.cuda.stream(torch.cuda.current_stream(self._device)),  # which a capture that fails does not put back
            # Of this thread only: another one may pin the memory of the next batch meanwhile.
            torch.cuda.graph(graph, self._pool, capture_error_mode="thread_local"),
        ):
            results = work()
        self._pool = graph.pool()
        return results, graph.replay


class CapturedPasses:
    """The passes of a model for batches of one shape, in which every sample has the label of each task.

    What follows the losses, and what follows the gradients, is no part of them: objective, guard, clipping, optimizer.

    Args:
        model: in training mode, on the device of the graphs.
        tasks: those of the model.
        graphs: what captures.
    """

    def __init__(self, model: MultiTaskModel, tasks: Mapping[str, Task], graphs: Graphs) -> None:
        self._model, self._graphs = model, graphs
        self._pass = PlainPass(model, tasks)
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._shapes: tuple[object, ...] | None = None

    def forward(self, batch: LabeledBatch) -> "CapturedForward | None":
        """Send a batch through the model; None, with nothing done, if it is not of the shape of the first one."""
        found = shapes(batch)
        if found is None or (self._shapes is not None and found != self._shapes):
            return None
        if self._shapes is None:
            self._capture(batch)
            self._shapes = found
        for static, tensor in zip(self._samples, _samples(batch), strict=True):
            static.copy_(tensor, non_blocking=True)
        self._replay_forward()
        return CapturedForward(self, list(batch.tasks))

    @property
    def losses(self) -> Tensor:
        """The losses [K] of the last forward pass, in memory that the next one overwrites."""
        return self._losses

    def backward(self, weights: Tensor) -> None:
        """Set `.grad` to the gradient of the weighted sum of the losses, and of what joins the objective besides."""
        self._weights.copy_(weights)
        self._replay_backward()
        for parameter, gradient in zip(self._reached, self._gradients, strict=True):
            parameter.grad = gradient

    def _capture(self, batch: LabeledBatch) -> None:
        self._samples = [tensor.clone() for tensor in _samples(batch)]
        names = list(batch.tasks)
        self._weights = torch.ones(len(names), device=self._samples[0].device)
        self._reached = list(self._trained)

        def forward() -> list[Tensor]:
            self._roots = self._pass(self._samples[0], dict(zip(names, self._samples[1:], strict=True)))
            return [self._roots[0]]

        def backward() -> list[Tensor]:
            # No graph is kept: it would keep what adds to `.grad`, which belongs to the stream on which it was made.
            losses, regularizer = self._roots
            del self._roots
            roots, factors = [losses], [self._weights.to(losses.dtype)]
            if regularizer.requires_grad:
                roots.append(regularizer)
                factors.append(torch.ones_like(regularizer))
            gradients = torch.autograd.grad(roots, self._trained, factors, allow_unused=True)
            self._reached = [one for one, grad in zip(self._trained, gradients, strict=True) if grad is not None]
            return [grad for grad in gradients if grad is not None]

        with untouched(self._model):
            self._graphs.warm_up(lambda: (forward(), backward()))
            (losses,), self._replay_forward = self._graphs.capture(forward)
            self._gradients, self._replay_backward = self._graphs.capture(backward)
        self._losses = losses.detach()
        shape = tuple(self._samples[0].shape)
        logger.info("the passes of batches of shape %s are replayed from CUDA graphs; others are made as ever", shape)


class CapturedForward:
    """A batch that went through the captured forward pass; takes the place of `Forward` in a step.

    Args:
        passes: that it went through.
        active: the tasks, all of which have a loss.
    """

    def __init__(self, passes: CapturedPasses, active: list[str]) -> None:
        self._passes, self.active = passes, active

    def backward(self, weighting: Weighting, sharing: ModelSharing, **_: object) -> Update:
        """Set `.grad` to the update that a weighting of losses makes of the losses."""
        assert isinstance(weighting, LossWeighting)
        losses = self._passes.losses.clone()
        (weights,) = weigh([weighting], losses.unsqueeze(0))
        self._passes.backward(weights)
        return Update(losses, weights)


def _samples(batch: LabeledBatch) -> list[Tensor]:
    """Return the inputs of a batch of one source, followed by the targets of each task."""
    (part,) = batch.source_batches
    return [part.inputs, *part.targets.values()]
