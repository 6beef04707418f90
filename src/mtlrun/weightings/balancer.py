"""The balancer of EnCodec: weights that give each task its part of the gradient."""

from typing import Any, Literal

import torch
from torch import Tensor

from mtlrun.config.bounds import Fraction, Positive, checked
from mtlrun.config.checks import check_one_of
from mtlrun.weightings.base import GradientWeighting, GradWrt
from mtlrun.weightings.capabilities import SeesSampleNorms
from mtlrun.weightings.preferences import UsesPreferences
from mtlrun.weightings.state.running_means import RunningMeans

NormOf = Literal["batch", "sample"]


class Balancer(SeesSampleNorms, UsesPreferences, GradientWeighting):
    """The sum of the task gradients, each divided by the running mean of its length and multiplied by its part.

    d = sum_k R (lambda_k / sum_j lambda_j) g_k / m_k, where m_k is the running mean of ‖g_k‖ with weight beta of the
    past, and the sum over j is over the tasks that have a loss in the step. So lambda_k is the fraction of the gradient
    that comes from task k, whatever the scale of its loss, and ‖d‖ is about R at most.

    Source: Défossez et al., "High Fidelity Neural Audio Compression" (TMLR 2023), the balancer, and the authors' code.
    They take the gradients with respect to the one tensor that all losses are functions of, there the output of the
    model; here it is the shared representation, and only the sum is sent through the trunk. The formula leaves open
    whether g_k is the gradient of a batch or of a sample. The authors' code averages the lengths of the samples'
    gradients (`norm_of: sample`): these are shorter than the gradient of the batch by about the square root of the
    batch size, and d is longer by that factor.

    Args:
        total_norm: R, > 0. Paper: 1.
        beta: weight of the past in the running means, in [0, 1]; 1 is the mean over all steps so far. Paper: .999.
        norm_of: what m_k is the mean length of: the gradient of a `batch`, or, as in the authors' code, that of a
            `sample`, which needs `grad_wrt: representation`.
        grad_wrt: paper: `representation`.
        preferences: lambda, one number > 0 per task; see `UsesPreferences`.
        common: see `GradientWeighting`.
    """

    @checked
    def __init__(
        self,
        total_norm: Positive = 1.0,
        beta: Fraction = 0.999,
        norm_of: NormOf = "batch",
        *,
        grad_wrt: GradWrt = "representation",
        **common: Any,
    ) -> None:
        super().__init__(grad_wrt=grad_wrt, **common)
        check_one_of("norm_of", norm_of, NormOf)
        if norm_of == "sample" and grad_wrt != "representation":
            raise ValueError(
                f"norm_of=sample needs grad_wrt=representation, which has a part for each sample, found {grad_wrt}"
            )
        self.total_norm = total_norm
        self.beta = beta
        self.needs_sample_norms = norm_of == "sample"
        self._sample_norms: Tensor | None = None

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        self.norms = RunningMeans(num_tasks, self.beta)

    def observe_sample_norms(self, norms: Tensor) -> None:
        self._sample_norms = norms

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        means = self.norms.update(self.active, self._norms(gram).unsqueeze(1))[self.active, 0]
        preferences = self.active_preferences()
        return torch.where(means > 0, self.total_norm * preferences / preferences.sum() / means, 0.0)

    def _norms(self, gram: Tensor) -> Tensor:
        """Return the lengths [K] of the task gradients in this step."""
        if not self.needs_sample_norms:
            return gram.diagonal().clamp_min(0).sqrt()
        if self._sample_norms is None:
            raise ValueError("norm_of=sample needs the gradients of the samples: call `observe_sample_norms` before")
        norms, self._sample_norms = self._sample_norms, None
        return norms.mean(dim=1)
