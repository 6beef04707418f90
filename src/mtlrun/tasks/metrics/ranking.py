"""Metrics of how yes-or-no labels are ranked: pooled over the split, and then the mean over the labels."""

import math

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc, binary_average_precision


class _Ranking(Metric):
    """Keeps all scores and targets; subclasses judge one label at a time.

    All subclasses have the same state and update, so that torchmetrics keeps one for all of them.

    A label that the split does not allow to be judged is left out of the mean; NaN if there is no other.
    """

    higher_is_better = True
    full_state_update = False
    scores: list[Tensor]
    answers: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.add_state("answers", [], dist_reduce_fx="cat")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            prediction: probabilities [batch] or [batch, num_labels]; those of all batches are compared.
            target: 0 or 1, a number < 0 where the label is missing; of the same shape.
        """
        self.scores.append(prediction.reshape(len(prediction), -1))
        self.answers.append(target.reshape(len(target), -1).to(torch.int8))

    def compute(self) -> Tensor:
        # On the CPU: cumulative sums are not deterministic on GPUs.
        columns = zip(torch.cat(self.scores).cpu().T, torch.cat(self.answers).cpu().T, strict=True)
        found = [self._judge(scores[answers >= 0], answers[answers >= 0].long()) for scores, answers in columns]
        return torch.tensor(found).nanmean()

    def _judge(self, scores: Tensor, answers: Tensor) -> float:
        """Return the value of one label, NaN where there is none."""
        raise NotImplementedError


class AUROC(_Ranking):
    """Area under the ROC curve; of labels that are both 0 and 1 somewhere."""

    def _judge(self, scores: Tensor, answers: Tensor) -> float:
        if len(answers.unique()) < 2:
            return math.nan
        return float(binary_auroc(scores, answers, validate_args=False))


class AveragePrecision(_Ranking):
    """Area under the curve of precision over recall, as a sum of steps; of labels that are 1 somewhere."""

    def _judge(self, scores: Tensor, answers: Tensor) -> float:
        if not answers.any():
            return math.nan
        return float(binary_average_precision(scores, answers, validate_args=False))
