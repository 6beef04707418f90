"""DSelect-k: a mixture of experts with a sparse, differentiable gate."""

from collections.abc import Mapping, Sequence
from math import log2
from typing import Literal

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import Experts, NonNegative, Parts, Positive, checked
from mtlrun.models.backbones import BackboneFactory
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads, task_groups
from mtlrun.models.blocks.experts import GateInput, mixture, stack_units
from mtlrun.models.blocks.parallel_backbones import ParallelBackbones, one_of
from mtlrun.models.blocks.sparse_gate import DSelectKGate

#: Keeps the logarithm and the reciprocal in the penalties finite, as in the authors' code.
EPSILON = 1e-6


class DSelectK(MultiTaskModel):
    """Experts that all tasks share; each task selects at most k of them.

    Source: Hazimeh et al., "DSelect-k: Differentiable Selection in the Mixture of Experts with Applications to
    Multi-Task Learning" (NeurIPS 2021), and the authors' code.
    Two penalties are added to the objective, summed over tasks and selectors and averaged over samples (in the authors'
    code: summed): the entropy of the weights r, which drives each selector to a single expert; and, if n is not a power
    of two, 1 / sum(r) - 1, which keeps selectors away from codes without an expert (the code does not subtract 1; here
    0 means that such codes have no weight). An expert is a whole backbone; all of them are run, selected or not.
    Per-example gates see a small grid of means of images, see `GateInput`. Shared: all experts. Per task: the gate and
    the head. Size: `num_experts` backbones, whatever the number of tasks; a gate and a head per task.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the experts; filled in from the group `backbone`.
        num_experts: n, at least 2. Default: 8, as for mmoe.
        k: number of selectors, in 1..n. Default: 2.
        gate: `static`, the same weights for all samples; or `per_example`, linear in the input.
        gamma: width of the smooth-step, > 0. Default: that of the authors' code.
        entropy_penalty: factor of the entropy, >= 0. Default: that of the authors' code.
        unused_penalty: factor of the other penalty, >= 0. Default: that of the authors' code.
    """

    @checked
    def __init__(
        self,
        tasks: Mapping[str, TaskLike],
        backbone: BackboneFactory,
        num_experts: Experts = 8,
        k: Parts = 2,
        gate: Literal["static", "per_example"] = "static",
        gamma: Positive = 1.0,
        entropy_penalty: NonNegative = 1e-6,
        unused_penalty: NonNegative = 1.0,
    ) -> None:
        if k > num_experts:
            raise ValueError(f"k must be in 1..{num_experts}, the number of experts, found {k}")
        super().__init__(tuple(tasks))
        self.experts = ParallelBackbones((f"expert_{index + 1}" for index in range(num_experts)), backbone)
        first = one_of(self.experts)
        self.view = GateInput(first) if gate == "per_example" else None
        size = self.view.size if self.view else None
        self.gates = nn.ModuleDict({task: DSelectKGate(num_experts, k, gamma, size) for task in tasks})
        self.heads = make_heads(tasks, first.feature_shape, first.input_shape)
        self.entropy_penalty = entropy_penalty
        self.unused_penalty = unused_penalty if log2(num_experts) % 1 else 0.0

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested = self.requested(tasks)
        experts = stack_units([expert(inputs) for expert in self.experts.values()], [len(self.experts)])
        gate_input = self.view(inputs) if self.view else inputs
        # The penalties are on all tasks' gates, whichever are requested: static gates depend on parameters only.
        gates = {task: self.gates[task](gate_input) for task in (self.task_names if self.training else requested)}
        predictions = {task: self.heads[task](mixture(gates[task][0], experts)) for task in requested}
        selectors = torch.stack([r for _, r in gates.values()])
        return Output(predictions, regularizers=self.penalties(selectors) if self.training else {})

    def penalties(self, r: Tensor) -> dict[str, Tensor]:
        """Return {name: penalty} on the weights r that the tasks' selectors give, [K, k, n] or [K, batch, k, n]."""
        penalties = {}
        r = r.to(torch.promote_types(r.dtype, torch.float32))  # half precision has no room for EPSILON beside a weight
        num_samples = r.shape[1] if r.dim() == 4 else 1
        if self.entropy_penalty:
            penalties["entropy"] = -self.entropy_penalty / num_samples * (r * (r + EPSILON).log()).sum()
        if self.unused_penalty:
            excess = r.sum(dim=-1).clamp(min=EPSILON).reciprocal() - 1
            penalties["unused_codes"] = self.unused_penalty / num_samples * excess.sum()
        return penalties

    def parameter_groups(self) -> list[ParameterGroup]:
        view = [] if self.view is None else list(self.view.parameters())
        return [
            ParameterGroup("shared", [*self.experts.parameters(), *view]),
            *task_groups(self.gates, self.heads),
        ]
