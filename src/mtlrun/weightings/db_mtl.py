"""DB-MTL: dual balancing."""

from typing import Any

import torch
from torch import Tensor

from mtlrun.config.bounds import Exponent, FractionBelowOne, checked
from mtlrun.weightings.base import JacobianWeighting, LossTransform
from mtlrun.weightings.inner_products import lengths
from mtlrun.weightings.state.task_vectors import TaskVectors, check_grad_wrt_shared


class DBMTL(JacobianWeighting):
    """The sum of running means of the gradients of log-losses, all scaled to the length of the longest.

    In step t: ghat_k <- g_k + beta_t (ghat_k - g_k) with beta_t = beta / t^decay and ghat_k = 0 at the start, where g_k
    is the gradient of log L_k; d = sum_k alpha_k ghat_k with alpha_k = max_j ‖ghat_j‖ / ‖ghat_k‖.

    Source: Lin et al., "Dual-Balancing for Multi-Task Learning" (2023, arXiv 2308.12029), and the authors' LibMTL. t
    counts the steps in which the task had a loss. The logarithm is the key `loss_transform`.

    Args:
        beta: weight of the past in the running mean, in [0, 1). The paper tunes it in {.1, .5, .9}, with decay 0 and
            .5; LibMTL: .9.
        decay: exponent of the decay of this weight, >= 0; 0 for a constant one.
        loss_transform: paper: `log`.
        common: see `JacobianWeighting`; `grad_wrt` must be `shared`.
    """

    steps: Tensor

    @checked
    def __init__(
        self,
        beta: FractionBelowOne = 0.1,
        decay: Exponent = 0.0,
        *,
        loss_transform: LossTransform = "log",
        **common: Any,
    ) -> None:
        super().__init__(loss_transform=loss_transform, **common)
        check_grad_wrt_shared(self.grad_wrt)
        self.beta = beta
        self.decay = decay

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        self.averages = TaskVectors()
        self.register_buffer("steps", torch.zeros(num_tasks, dtype=torch.float64))

    def combine(self, jacobian: Tensor, losses: Tensor) -> Tensor:
        self.steps[self.active] += 1
        past = (self.beta / self.steps[self.active] ** self.decay).to(jacobian).unsqueeze(1)
        balanced = self.averages.approach(jacobian, past, self.active, self.num_tasks)
        norms = lengths(balanced)
        inverse = torch.where(norms > 0, 1 / norms, 0.0).to(balanced)
        return norms.max().to(balanced) * (inverse @ balanced)
