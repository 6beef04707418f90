"""Running means of numbers that each task has in each step, such as the lengths of its gradient."""

import torch
from torch import Tensor, nn

from mtlrun.weightings.state.task_vectors import TaskVectors


class RunningMeans(nn.Module):
    """Exponential running means without the bias of a start at zero.

    The mean of x_1, ..., x_t is sum_i beta^(t-i) x_i / sum_i beta^(t-i), over the steps in which the task had a loss:
    x_1 after the first of them, and the plain mean for beta = 1.

    Args:
        num_tasks: K.
        beta: weight of the past, in [0, 1].
    """

    counts: Tensor

    def __init__(self, num_tasks: int, beta: float) -> None:
        super().__init__()
        self.beta = beta
        self.sums = TaskVectors()
        self.register_buffer("counts", torch.zeros(num_tasks, dtype=torch.float64))

    def update(self, active: slice | Tensor, values: Tensor) -> Tensor:
        """Take in the numbers of one step, and return the means so far.

        Args:
            active: index of the tasks that have a loss in this step.
            values: their numbers, [tasks, n], in float64.

        Returns:
            [K, n], NaN for a task that has had no loss so far.
        """
        sums = self.sums.like(values, len(self.counts))
        sums[active] = self.beta * sums[active] + values
        self.counts[active] = self.beta * self.counts[active] + 1
        return sums / self.counts.to(sums).unsqueeze(1)
