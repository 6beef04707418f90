"""RotoGrad: homogenization of the task gradients' lengths and directions at the representation."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import CountOrZero, LearningRate, checked
from mtlrun.weightings.base import JacobianWeighting
from mtlrun.weightings.capabilities import LearnsWeights, RotatesRepresentation
from mtlrun.weightings.inner_products import lengths
from mtlrun.weightings.precision import at_least_float32

_SQUARINGS, _DEGREE = 6, 8  # of the exponential on a GPU


class RotoGrad(RotatesRepresentation, LearnsWeights, JacobianWeighting):
    """Task gradients scaled to one length at the representation z, with a rotation of z per task that aligns them.

    The input of task k's head is r_k = R_k z. With G_k the gradient of L_k with respect to z, of which g_nk is that of
    sample n, U_k = G_k / ‖G_k‖ and G_k^0 the gradient in an early step, d = C sum_k U_k where C = sum_k alpha_k ‖G_k‖
    and alpha_k = (‖G_k‖ / ‖G_k^0‖) / sum_j (‖G_j‖ / ‖G_j^0‖): tasks that have converged less count more in the length.
    R_k is trained on - sum_n <R_k^T gr_nk, v_n> with v_n = mean_k u_nk and gr_nk the gradient
    with respect to r_k, both held constant; it is not trained on the tasks' losses.

    Source: Javaloy & Valera, "RotoGrad: Gradient Homogenization in Multitask Learning" (ICLR 2022), algorithm 1; the
    burn-in and rotations without scaling (RotateOnly) are from the authors' package `rotograd`. The rotations start as
    identities and belong to the model, which predicts with them, so that they are in its checkpoints. Each step updates
    them incrementally, R_k <- R_k exp(A_k - A_k^T): the optimizer moves A_k from zero along the gradient
    V^T G_k - G_k^T V, whereas the authors parametrize R_k = exp(A_k - A_k^T). In the paper, the learning rate of the
    rotations is lower than that of the network, and falls; here it is constant.

    Args:
        burn_in: number of steps after which G_k^0 is taken again, since losses change quickly at first; >= 0. Authors:
            20.
        scale: False for rotations only, d = sum_k G_k.
        lr: learning rate of the rotations; with Adam, an angle changes by about twice this per step.
        grad_wrt: must be `representation`.
        common: see `JacobianWeighting` and `LearnsWeights`.
    """

    learns_from_losses_alone = True
    initial_norms: Tensor
    seen: Tensor

    @checked
    def __init__(
        self,
        burn_in: CountOrZero = 20,
        scale: bool = True,
        *,
        lr: LearningRate | None = 1e-4,
        grad_wrt: Literal["shared", "representation"] = "representation",
        **common: Any,
    ) -> None:
        super().__init__(grad_wrt=grad_wrt, lr=lr, **common)
        if grad_wrt != "representation":
            raise ValueError(f"grad_wrt must be 'representation', which is what the method rotates, found {grad_wrt!r}")
        self.burn_in = burn_in
        self.scale = scale
        self.rotations: Tensor | None = None  # those of the model, in its state

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        # Zero if there is none so far: a gradient of zero does not show how far a task has converged.
        self.register_buffer("initial_norms", torch.zeros(num_tasks, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros(num_tasks, dtype=torch.int64))

    def attach_rotations(self, rotations: Tensor) -> None:
        self.rotations = rotations
        zeros = torch.zeros_like(rotations, dtype=at_least_float32(rotations.dtype))
        self.turns = nn.Parameter(zeros)  # A; zero before each step

    def combine(self, jacobian: Tensor, losses: Tensor) -> Tensor:
        if self.rotations is None:
            raise ValueError("rotograd rotates a model's representation: call `attach_rotations` before the first step")
        norms = lengths(jacobian)
        units = torch.where(norms > 0, 1 / norms, 0.0).to(jacobian).unsqueeze(1) * jacobian
        self.turns.grad = self._turn_gradient(jacobian, units)
        length = self._common_length(norms).to(jacobian)
        return length * units.sum(dim=0) if self.scale else jacobian.sum(dim=0)

    def _common_length(self, norms: Tensor) -> Tensor:
        """Return C, given the ‖G_k‖ of the active tasks."""
        initial, seen = self.initial_norms[self.active], self.seen[self.active]
        initial = torch.where((initial == 0) | (seen == self.burn_in), norms, initial)
        self.initial_norms[self.active] = initial
        self.seen[self.active] = seen + 1
        ratios = torch.where(initial > 0, norms / initial, 0.0)
        total = ratios.sum()
        return torch.where(total > 0, ratios @ norms / total, 0.0)

    def _turn_gradient(self, jacobian: Tensor, units: Tensor) -> Tensor:
        """Return the gradient of the rotations' objective with respect to A at A = 0, zero for tasks without a loss.

        To first order in the skew matrix S = A - A^T, R_k exp(S) changes R_k^T gr_nk = g_nk to g_nk - S g_nk, so that
        the objective grows by sum_n <S g_nk, v_n>, whose gradient with respect to S is V^T G_k.
        """
        width = self.turns.shape[-1]
        gradients = jacobian.view(len(jacobian), -1, width)
        references = units.mean(dim=0).view(-1, width)
        products = references.mT @ gradients
        gradient = torch.zeros_like(self.turns)
        gradient[self.active] = (products - products.mT).to(gradient)
        return gradient

    @torch.no_grad()
    def learn(self) -> None:
        """Move A of the tasks with a loss in this step from zero, and turn their rotations by it."""
        super().learn()
        if self.rotations is None:
            return
        turns = self.turns[self.active]
        rotations = self.rotations[self.active].to(turns)
        turned = turn(rotations, turns - turns.mT)
        # A Newton step toward the nearest orthogonal matrix, so that rounding errors do not accumulate.
        self.rotations[self.active] = (1.5 * turned - 0.5 * turned @ (turned.mT @ turned)).to(self.rotations)
        self.turns.zero_()


def turn(rotations: Tensor, skew: Tensor) -> Tensor:
    """Return R exp(S) for rotations R and skew matrices S, [K, d, d].

    PyTorch's exponential looks at the norms first, for which the host would wait. On another device than the CPU it is
    a Taylor series of exp(S / 64) - I, squared six times: exact to float32's precision up to norms of about 50, that
    is, turns by several circles.
    """
    if skew.device.type == "cpu":
        turned: Tensor = rotations @ torch.linalg.matrix_exp(skew)
        return turned
    small = skew / 2**_SQUARINGS
    excess: Tensor = small / _DEGREE
    for number in range(_DEGREE - 1, 0, -1):
        excess = (small + small @ excess) / number
    for _ in range(_SQUARINGS):
        excess = 2 * excess + excess @ excess
    return rotations + rotations @ excess
