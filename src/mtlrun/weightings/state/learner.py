"""The optimizer of what a weighting learns."""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

LearnedOptimizer = Literal["adam", "sgd"]


class Learner:
    """An optimizer at a constant rate for a weighting's parameters, apart from the optimizer and schedule of the run.

    A parameter whose first dimension is that of the K tasks is optimized as K parameters, one per task, which share
    its memory: the entry of a task without a loss in a step, its moments and its count of steps stay as they are.

    Args:
        parameters: of the weighting; at least one.
        num_tasks: K.
        optimizer: `adam`, with PyTorch's defaults, or `sgd`, without momentum.
        lr: learning rate.
        weight_decay: factor of an L2 penalty, added to the gradient.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        num_tasks: int,
        optimizer: LearnedOptimizer = "adam",
        lr: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        self.parameters = list(parameters)
        self.lr = lr
        self._num_tasks = num_tasks
        self._pieces = [[nn.Parameter(piece) for piece in self._split(each.detach())] for each in self.parameters]
        pieces = [piece for pieces in self._pieces for piece in pieces]
        make: type[Adam] | type[SGD] = {"adam": Adam, "sgd": SGD}[optimizer]
        # One call for all tasks, on the CPU, too.
        has_kernel = all(piece.device.type in ("cpu", "cuda") for piece in pieces)
        call: dict[str, Any] = {"fused": True} if has_kernel else {"foreach": True}
        self._optimizer: Optimizer = make(pieces, lr=lr, weight_decay=weight_decay, **call)

    def step(self, active: slice | Tensor, from_losses_alone: bool = False) -> None:
        """Move the parameters along their gradients, which are set to None; one without a gradient stays.

        Args:
            active: index of the tasks that have a loss in this step, on the CPU.
            from_losses_alone: True if the entries of the other tasks have gradients of zero. Otherwise these are looked
                at, for which the host waits if they are on a GPU: one that is not zero has other causes than the task's
                loss, such as a penalty, and moves its entry.
        """
        present = set(range(self._num_tasks)[active] if isinstance(active, slice) else active.tolist())
        for parameter, pieces in zip(self.parameters, self._pieces, strict=True):
            values = self._split(parameter.detach())
            gradients = [None] * len(pieces) if parameter.grad is None else self._split(parameter.grad)
            for task, (piece, value, gradient) in enumerate(zip(pieces, values, gradients, strict=True)):
                piece.data = value  # the same memory, also after the weighting was copied or moved
                if gradient is not None and len(pieces) > 1 and task not in present:
                    gradient = None if from_losses_alone or not gradient.any() else gradient
                piece.grad = gradient
            parameter.grad = None
        self._optimizer.step()

    def _split(self, tensor: Tensor) -> Sequence[Tensor]:
        """Return a tensor's entries of the K tasks, or the tensor itself if it has none."""
        return tensor.unbind() if tensor.dim() and len(tensor) == self._num_tasks else [tensor]

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the optimizer, such as moments; the parameters are in the weighting's."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._optimizer.load_state_dict(state)
