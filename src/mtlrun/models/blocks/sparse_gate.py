"""The gate of DSelect-k: sparse in the end, and yet smooth."""

from math import ceil, log2

import torch
from torch import Tensor, nn


def smooth_step(t: Tensor, gamma: float) -> Tensor:
    """Return S(t) = -2/gamma^3 t^3 + 3/(2 gamma) t + 1/2 on [-gamma/2, gamma/2], 0 below and 1 above.

    Written in u = t/gamma + 1/2 as 3 u^2 - 2 u^3, which is exactly 0 and 1 at the ends.
    """
    u = (t / gamma + 0.5).clamp(0, 1)
    return u.square() * (3 - 2 * u)


def select(bits: Tensor, num_experts: int) -> Tensor:
    """Return the weights r of the experts by their binary numbers: the product of each bit or of one minus it.

    Args:
        bits: [..., m] in [0, 1], the highest first.
        num_experts: n <= 2^m; the result is [..., n], and sums to less than 1 where unused numbers have a weight.
    """
    r = torch.ones_like(bits[..., :1])
    for bit in bits.split(1, dim=-1):
        r = torch.stack([r * (1 - bit), r * bit], dim=-1).flatten(-2)
    return r[..., :num_experts]


class Constant(nn.Module):
    """Learned numbers that are the same for all samples, where a linear layer would give some for each.

    Args:
        size: how many.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(size))

    def forward(self, _: Tensor) -> Tensor:
        return self.bias


class DSelectKGate(nn.Module):
    """The weights of n experts, at most k of them other than zero in the end.

    Each of k selectors holds m = ceil(log2 n) numbers z, whose smooth-steps are the bits of an expert's number; a
    softmax of w weights the selectors. z starts uniform in +-gamma/100, where the step is steep and near linear, w in
    +-.05: the authors' code.

    Args:
        num_experts: n.
        k: number of selectors.
        gamma: width of the smooth-step.
        size: of the vector that z and w are linear in, with a bias; None for a static gate, the bias alone.
    """

    def __init__(self, num_experts: int, k: int, gamma: float, size: int | None) -> None:
        super().__init__()
        self.num_experts, self.k, self.gamma = num_experts, k, gamma

        def make(numbers: int, bound: float) -> nn.Module:
            layer = Constant(numbers) if size is None else nn.Linear(size, numbers)
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound)
            return layer

        self.z = make(k * ceil(log2(num_experts)), gamma / 100)
        self.w = make(k, 0.05) if k > 1 else None  # the weight of a single selector is 1

    def forward(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights [batch, n] and the selectors' own ones r [batch, k, n]; [n] and [k, n] if static."""
        r = select(smooth_step(self.z(seen).unflatten(-1, (self.k, -1)), self.gamma), self.num_experts)
        if self.w is None:
            return r.squeeze(-2), r
        return (self.w(seen).softmax(dim=-1).unsqueeze(-1) * r).sum(dim=-2), r
