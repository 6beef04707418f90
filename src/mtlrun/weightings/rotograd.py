"""RotoGrad: gradients at the representation made alike in length and turned towards each other."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from mtlrun.weightings.base import JacobianWeighting, check_lr
from mtlrun.weightings.capabilities import RotatesRepresentation


class RotoGrad(RotatesRepresentation, JacobianWeighting):
    """Gives all tasks' gradients at the representation z one length, and each task a rotation of z that aligns them.

    The head of task k is given r_k = R_k z. With G_k the gradient of L_k by z, a row g_nk for each sample n of the
    batch, U_k = G_k / ‖G_k‖ and G_k^0 that of an early step, d = C sum_k U_k where C = sum_k alpha_k ‖G_k‖ and
    alpha_k = (‖G_k‖ / ‖G_k^0‖) / sum_j (‖G_j‖ / ‖G_j^0‖): a task that has converged less has more say in the length.
    R_k is trained, by the run's optimizer, on - sum_n <R_k^T gr_nk, v_n> with v_n = mean_k u_nk and gr_nk the gradient
    by r_k, both held constant; no loss of a task reaches it.

    Source: Javaloy & Valera, "RotoGrad: Gradient Homogenization in Multitask Learning" (ICLR 2022), algorithm 1; the
    burn-in and rotations without scaling (RotateOnly) are from the authors' package `rotograd`. The rotations start as
    identities and belong to the model, which predicts with them, so that they are selected with its weights. Each step
    turns them from where they stand, R_k <- R_k exp(A_k - A_k^T): the optimizer moves A_k from zero by the gradient
    V^T G_k - G_k^T V, where the authors keep R_k = exp(A_k - A_k^T). The paper has the rotations learn more slowly than
    the network, at a rate that falls faster than its; here both follow the same schedule.

    Args:
        burn_in: after so many steps G_k^0 is taken once more, since losses change quickly at first; >= 0. Authors: 20.
        scale: False for rotations only, d = sum_k G_k.
        lr: learning rate of the rotations, by the run's optimizer; an angle per step under Adam.
        grad_wrt: `representation` only.
        losses, loss_transform: see `JacobianWeighting`.
    """

    initial_norms: Tensor
    seen: Tensor

    def __init__(
        self,
        burn_in: int = 20,
        scale: bool = True,
        *,
        lr: float | None = 1e-4,
        grad_wrt: Literal["shared", "representation"] = "representation",
        **common: Any,
    ) -> None:
        super().__init__(grad_wrt=grad_wrt, **common)
        if grad_wrt != "representation":
            raise ValueError(f"grad_wrt must be 'representation', which is what the method rotates, found {grad_wrt!r}")
        if burn_in < 0:
            raise ValueError(f"burn_in must be >= 0, found {burn_in}")
        self.lr = check_lr(lr)
        self.burn_in = burn_in
        self.scale = scale
        self.rotations: Tensor | None = None  # the model's, which has them in its state

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        # Zero stands for none so far: a gradient of zero says nothing of how far a task is.
        self.register_buffer("initial_norms", torch.zeros(num_tasks, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros(num_tasks, dtype=torch.int64))

    def attach_rotations(self, rotations: Tensor) -> None:
        self.rotations = rotations
        self.turns = nn.Parameter(torch.zeros_like(rotations))  # A, zero but for the moment between step and turn

    def combine(self, jacobian: Tensor, losses: Tensor) -> Tensor:
        if self.rotations is None:
            raise ValueError("rotograd rotates a model's representation: call `attach_rotations` before the first step")
        norms = jacobian.norm(dim=1)
        units = torch.where(norms > 0, 1 / norms, 0.0).unsqueeze(1) * jacobian
        self.turns.grad = self._turn_gradient(jacobian, units)
        length = self._common_length(norms.double()).to(jacobian)
        return length * units.sum(dim=0) if self.scale else jacobian.sum(dim=0)

    def _common_length(self, norms: Tensor) -> Tensor:
        """Return C for ‖G_k‖ of the active tasks."""
        initial, seen = self.initial_norms[self.active], self.seen[self.active]
        initial = torch.where((initial == 0) | (seen == self.burn_in), norms, initial)
        self.initial_norms[self.active] = initial
        self.seen[self.active] = seen + 1
        ratios = torch.where(initial > 0, norms / initial, 0.0)
        total = ratios.sum()
        return torch.where(total > 0, ratios @ norms / total, 0.0)

    def _turn_gradient(self, jacobian: Tensor, units: Tensor) -> Tensor:
        """Return the gradient of the rotations' objective by A at A = 0, zero for tasks that are absent.

        To first order in the skew matrix S = A - A^T, R_k exp(S) turns R_k^T gr_nk = g_nk into g_nk - S g_nk, so that
        the objective grows by sum_n <S g_nk, v_n>, whose gradient by S is V^T G_k.
        """
        width = self.turns.shape[-1]
        gradients = jacobian.view(len(jacobian), -1, width)
        references = units.mean(dim=0).view(-1, width)
        products = references.mT @ gradients
        gradient = torch.zeros_like(self.turns)
        gradient[self.active] = (products - products.mT).to(gradient)
        return gradient

    @torch.no_grad()
    def on_optimizer_step(self) -> None:
        if self.rotations is None:
            return
        turned = self.rotations @ torch.linalg.matrix_exp(self.turns - self.turns.mT)
        # A Newton step to the nearest orthogonal matrix, lest rounding errors add up over the steps.
        self.rotations.copy_(1.5 * turned - 0.5 * turned @ (turned.mT @ turned))
        self.turns.zero_()
