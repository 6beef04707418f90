"""The gate of DSelect-k, which is differentiable everywhere and becomes sparse during training."""

from math import ceil, log2

import torch
from torch import Tensor, nn


def smooth_step(t: Tensor, gamma: float) -> Tensor:
    """Return S(t) = -2/gamma^3 t^3 + 3/(2 gamma) t + 1/2 on [-gamma/2, gamma/2], 0 below and 1 above.

    Computed as 3 u^2 - 2 u^3 with u = t/gamma + 1/2, which is exactly 0 and 1 at the ends.
    """
    u = (t / gamma + 0.5).clamp(0, 1)
    return u.square() * (3 - 2 * u)


def select(bits: Tensor, num_experts: int) -> Tensor:
    """Return the weights r of the experts: for each binary code, the product of b or 1 - b over its bits.

    Args:
        bits: [..., m] in [0, 1], the most significant bit first.
        num_experts: n <= 2^m. The result is [..., n]; it sums to less than 1 if codes without an expert have weight.
    """
    r = torch.ones_like(bits[..., :1])
    for bit in bits.split(1, dim=-1):
        r = torch.stack([r * (1 - bit), r * bit], dim=-1).flatten(-2)
    return r[..., :num_experts]


class Constant(nn.Module):
    """A learned vector that takes the place of a linear layer: the same for all samples.

    Args:
        size: length of the vector.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(size))

    def forward(self, _: Tensor) -> Tensor:
        return self.bias


class DSelectKGate(nn.Module):
    """A gate that weights n experts, of which at most k keep a weight other than zero once it has converged.

    Each of k selectors has m = ceil(log2 n) logits z, whose smooth-steps are the bits of an expert's index; a softmax
    of w weights the selectors. Initialized as in the authors' code: z uniform in +-gamma/100, where the smooth-step is
    steep and nearly linear, and w uniform in +-.05.

    Args:
        num_experts: n.
        k: number of selectors.
        gamma: width of the smooth-step.
        size: length of the vector in which z and w are linear (with a bias); None for a static gate: the bias alone.
    """

    def __init__(self, num_experts: int, k: int, gamma: float, size: int | None) -> None:
        super().__init__()
        self.num_experts, self.k, self.gamma = num_experts, k, gamma

        def make(num_outputs: int, bound: float) -> nn.Module:
            layer = Constant(num_outputs) if size is None else nn.Linear(size, num_outputs)
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound)
            return layer

        self.z = make(k * ceil(log2(num_experts)), gamma / 100)
        self.w = make(k, 0.05) if k > 1 else None  # the weight of a single selector is 1

    def forward(self, gate_input: Tensor) -> tuple[Tensor, Tensor]:
        """Return the experts' weights [batch, n], and those by each selector, r [batch, k, n]; no batch if static."""
        r = select(smooth_step(self.z(gate_input).unflatten(-1, (self.k, -1)), self.gamma), self.num_experts)
        if self.w is None:
            return r.squeeze(-2), r
        return (self.w(gate_input).softmax(dim=-1).unsqueeze(-1) * r).sum(dim=-2), r
