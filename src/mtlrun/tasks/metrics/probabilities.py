"""Metrics of the predicted probabilities of classes: how good they are, and whether they mean what they say."""

import torch
from torch import Tensor, nn

from mtlrun.tasks.metrics.shared import SharedState
from mtlrun.tasks.resampling.probabilities import BINS


class _Probabilities(SharedState):
    """Base of metrics of the probabilities that logits stand for, in float64."""

    higher_is_better = False
    samples: Tensor
    log_loss: Tensor
    #: For each bin of probabilities the sum over its samples of outcome - probability, [number of bins].
    residuals: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("samples", torch.tensor(0.0, dtype=torch.float64))
        self.add_state("log_loss", torch.tensor(0.0, dtype=torch.float64))
        self.add_state("residuals", torch.zeros(BINS, dtype=torch.float64))

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            prediction: logits [batch, num_classes], or logits of yes [batch].
            target: classes, int64 [batch].
        """
        logits = prediction.double()
        if logits.dim() == 2:
            logarithms = logits.log_softmax(dim=1)
            losses = -logarithms.gather(1, target[:, None])
            highest, decided = logarithms.max(dim=1)
            probability, outcome = highest.exp(), decided == target
        else:
            losses = nn.functional.softplus(torch.where(target > 0, -logits, logits))
            probability, outcome = logits.sigmoid(), target > 0
        self.samples += len(target)
        self.log_loss += losses.sum()
        bins = (probability * BINS).ceil().clamp(1, BINS).nan_to_num(1).long() - 1
        # A matrix product, since adding at indices is not deterministic on GPUs.
        self.residuals += (outcome.double() - probability) @ nn.functional.one_hot(bins, BINS).double()


class LogLoss(_Probabilities):
    """Mean of minus the natural logarithm of the probability of the label."""

    def compute(self) -> Tensor:
        return self.log_loss / self.samples


class CalibrationError(_Probabilities):
    """Expected calibration error: the mean of |frequency - mean probability| over bins of probabilities.

    15 bins of equal width, weighted by their numbers of samples. Of classes, the probability is that of the class that
    is decided for, and the frequency how often that is right; of one label, those of yes.

    Source: Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), equation 3, for classes.
    """

    def compute(self) -> Tensor:
        return self.residuals.abs().sum() / self.samples
