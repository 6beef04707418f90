"""MoCo: multi-objective gradient correction."""

from typing import Any

import torch
from torch import Tensor

from mtlrun.weightings.base import JacobianWeighting
from mtlrun.weightings.solvers.simplex import project_on_simplex, share_out
from mtlrun.weightings.state.task_rows import TaskRows, check_by_parameter


class MoCo(JacobianWeighting):
    """MGDA on gradients that are averaged over steps, with weights that make one step towards the optimum per step.

    In step t, with the averages y_k as the rows of Y:

        y_k <- y_k - beta_t (y_k - g_k)                                  beta_t = beta / t^beta_decay
        d = Y^T lambda
        lambda <- Proj(lambda - gamma_t (Y Y^T + rho I) lambda)          gamma_t = gamma / t^gamma_decay

    y = 0 and lambda = 1/K at first, Proj the projection on the simplex. gamma is meant for gradients of length about
    one: for longer ones lambda leaps to the task with the shortest.

    Source: Fernando et al., "Mitigating Gradient Bias in Multi-objective Learning: A Provably Convergent Approach"
    (ICLR 2023). Defaults are those of LibMTL, which is based on the authors' code, gives each gradient the length of
    its loss first (`normalize`), and has a softmax in the place of the projection. For a task without a loss in a step
    nothing changes, and the others share out their part of lambda among themselves.

    Args:
        beta: step size of the averages, in (0, 1].
        beta_decay: how fast it falls, >= 0.
        gamma: step size of the weights, >= 0; 0 keeps them equal.
        gamma_decay: how fast it falls, >= 0.
        rho: pull of the weights towards equal ones, >= 0.
        normalize: give each gradient the length of its loss first; losses must then be positive.
        grad_wrt: `shared` only.
        losses, loss_transform: see `JacobianWeighting`.
    """

    task_weights: Tensor
    steps: Tensor

    def __init__(
        self,
        beta: float = 0.5,
        beta_decay: float = 0.5,
        gamma: float = 0.1,
        gamma_decay: float = 0.5,
        rho: float = 0.0,
        normalize: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        check_by_parameter(self.grad_wrt)
        if not 0 < beta <= 1:
            raise ValueError(f"beta must be in (0, 1], found {beta}")
        for name, value in {"beta_decay": beta_decay, "gamma": gamma, "gamma_decay": gamma_decay, "rho": rho}.items():
            if not value >= 0:
                raise ValueError(f"{name} must be >= 0, found {value}")
        self.beta, self.beta_decay = beta, beta_decay
        self.gamma, self.gamma_decay = gamma, gamma_decay
        self.rho = rho
        self.normalize = normalize
        self.needs_positive_losses = normalize  # a negative one would turn its gradient round

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        self.averages = TaskRows()
        self.register_buffer("task_weights", torch.full((num_tasks,), 1 / num_tasks, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros(num_tasks, dtype=torch.float64))

    def combine(self, jacobian: Tensor, losses: Tensor) -> Tensor:
        active = self.active
        if self.normalize:
            lengths = jacobian.norm(dim=1)
            jacobian = torch.where(lengths > 0, losses.to(jacobian) / lengths, 0.0).unsqueeze(1) * jacobian
        averages = self.averages.like(jacobian, self.num_tasks)
        self.steps[active] += 1
        step_sizes = (self.beta / self.steps[active] ** self.beta_decay).to(jacobian).unsqueeze(1)
        tracked = averages[active] - step_sizes * (averages[active] - jacobian)
        averages[active] = tracked

        part, weights = share_out(self.task_weights, active)
        slopes = (tracked @ tracked.T).double() @ weights + self.rho * weights
        step_size = self.gamma / self.steps.max() ** self.gamma_decay
        self.task_weights[active] = part * project_on_simplex(weights - step_size * slopes)
        return weights.to(jacobian) @ tracked
