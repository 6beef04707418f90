"""Weighting by homoscedastic uncertainty."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtlrun.config.bounds import Logarithm, checked
from mtlrun.config.checks import check_one_of
from mtlrun.weightings.base import LossWeighting
from mtlrun.weightings.capabilities import LearnsWeights, UsesTaskKinds

Form = Literal["auto", "regression", "classification", "log1p"]

_FACTORS = {"regression": 0.5, "classification": 1.0, "log1p": 0.5}


class Uncertainty(UsesTaskKinds, LearnsWeights, LossWeighting):
    """sum_k a_k exp(-s_k) L_k + b(s_k), with learned s_k = log sigma_k^2.

    Source: Kendall, Gal & Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and
    Semantics" (CVPR 2018), equations 7 (regression, a = 1/2) and 10 (classification, a = 1), with b(s) = s / 2. At the
    optimum in s, the weight of a task is 1 / (2 L_k) in either form. There, b is negative for losses below 1, and so
    may be the whole objective.

    With `log1p`, b(s) = log(1 + exp(s)), which is never negative, and a = 1/2: Liebel & Körner, "Auxiliary Tasks in
    Multi-task Learning" (2018, arXiv 1805.06334). At its optimum, the weight of a task is
    2 / (L_k + sqrt(L_k² + 8 L_k)), which grows more slowly as the loss falls. They learn sigma itself; here it is s, as
    in the other forms, so that no step can bring sigma to zero.

    Args:
        form: `regression`, `classification` or `log1p`; or `auto`, which is `classification` for tasks whose loss is a
            cross-entropy, and else `regression`; one for all tasks or one per task. Outside of a run, `auto` is
            `regression` unless `set_categorical` is called. Published code uses `regression` for all.
        init: initial s. The paper's code starts at 0, MTAN and LibMTL at -0.5.
        common: see `Weighting` and `LearnsWeights`.
    """

    learns_from_losses_alone = True
    needs_positive_losses = True  # exp(-s) L has no minimum in s for a negative L
    factors: Tensor
    bounded: Tensor

    @checked
    def __init__(self, form: Form | Sequence[Form] = "auto", init: Logarithm = 0.0, **common: Any) -> None:
        super().__init__(**common)
        for word in [form] if isinstance(form, str) else form:
            check_one_of("form", word, Form)
        self.form = form
        self.init = init

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        forms = [self.form] * num_tasks if isinstance(self.form, str) else list(self.form)
        if len(forms) != num_tasks:
            raise ValueError(f"form must be one word, or one for each of the {num_tasks} tasks, found {len(forms)}")
        self._forms = forms
        self.register_buffer("factors", torch.empty(num_tasks, dtype=torch.float64))
        is_bounded = torch.tensor([form == "log1p" for form in forms])
        self.register_buffer("bounded", is_bounded, persistent=False)  # whether b is bounded below
        self.set_categorical([False] * num_tasks)
        self.log_variance = nn.Parameter(torch.full((num_tasks,), float(self.init), dtype=torch.float64))

    def set_categorical(self, categorical: Sequence[bool]) -> None:
        kinds = ["classification" if each else "regression" for each in categorical]
        forms = [kind if form == "auto" else form for form, kind in zip(self._forms, kinds, strict=True)]
        self.factors = self.factors.new_tensor([_FACTORS[form] for form in forms])

    def objective(self, losses: Tensor) -> Tensor:
        log_variance = self.log_variance[self.active]
        penalty = torch.where(self.bounded[self.active], functional.softplus(log_variance), 0.5 * log_variance)
        return (self.factors[self.active] * torch.exp(-log_variance) * losses + penalty).sum()
